"""Things found outdoors: trees, bushes, rocks, houses, animals and people, each with its parts."""

from dataclasses import replace

import numpy as np

from engine.synthetic import shapes
from engine.synthetic.bodies import Kind
from engine.synthetic.colours import Finish, draw_finish, jittered
from engine.synthetic.easel import Easel
from engine.synthetic.fields import Plane
from engine.synthetic.shapes import Form, Frame

COAT = ("mottled", "graded", "speckled", "tufted", "spotted")
CLOTH = ("graded", "striped", "checkered", "woven", "wavy")
WALL = ("grainy", "wooden", "rough", "striped", "woven")


def _named(easel: Easel, colour: str, pattern: str = "plain", gloss: float = 0.0) -> Finish:
    rng = easel.rng
    base = jittered(rng, colour)
    return Finish(colour, base, base * np.float32(rng.uniform(0.35, 1.5)), pattern, gloss)


def _any(easel: Easel, patterns: tuple[str, ...]) -> Finish:
    return replace(draw_finish(easel.rng, easel.palette, patterns), gloss=0.0)


def _ragged(easel: Easel, at: Frame, f: Plane, amount: float) -> Plane:
    """The silhouette with an uneven rim, as of leaves or fur."""
    return f + np.float32(amount) * easel.noise.patch(easel.rng, f.shape, "fine")


def tree(easel: Easel, at: Frame) -> None:
    """A trunk under a ragged crown."""
    rng = easel.rng
    number = easel.canvas.begin(f"{rng.choice(('round', 'tall'))} tree")
    lean = float(rng.uniform(-0.1, 0.1))
    trunk = Form(shapes.bar(at.p, at.q, (lean, -0.2), (0.0, 0.97), float(rng.uniform(0.04, 0.12))), 0.1)
    easel.part(
        number, at, trunk, _named(easel, str(rng.choice(("brown", "charcoal", "grey")))), "trunk", lift=0.2
    )
    wide = np.float32(rng.uniform(0.45, 0.85))
    crown = shapes.blob(
        rng, (at.p - np.float32(lean)) / wide, (at.q + np.float32(0.3)) / np.float32(0.68), 0.14, 8
    )
    leaves = _named(easel, str(rng.choice(("green", "olive", "teal", "orange"))), "tufted")
    form = Form(_ragged(easel, at, crown, rng.uniform(0.03, 0.12)) * np.float32(0.6), 0.5)
    easel.part(number, at, form, replace(leaves, roughness_px=1.5), "crown", lift=0.2)


def bush(easel: Easel, at: Frame) -> None:
    """A ragged mound without a trunk."""
    leaves = _named(easel, str(easel.rng.choice(("green", "olive", "brown", "teal"))), "tufted")
    number = easel.canvas.begin(f"{leaves.colour} bush")
    f = shapes.blob(easel.rng, at.p, at.q * np.float32(1.3), 0.3)
    rough = replace(leaves, roughness_px=1.2)
    easel.solid(number, at, Form(_ragged(easel, at, f, easel.rng.uniform(0.03, 0.15)), 0.7), rough, 0.2)


def rock(easel: Easel, at: Frame) -> None:
    """A boulder with a rough face."""
    stone = _named(easel, str(easel.rng.choice(("grey", "charcoal", "tan", "brown"))), "rough")
    number = easel.canvas.begin(f"{stone.colour} rock")
    f = shapes.blob(easel.rng, at.p, at.q * np.float32(1.25), 0.14, 7)
    form = Form(f, float(easel.rng.uniform(0.2, 0.8)))
    easel.solid(number, at, form, replace(stone, roughness_px=float(easel.rng.uniform(0.5, 2))), 0.3)


def house(easel: Easel, at: Frame) -> None:
    """Walls, a roof, a door and windows."""
    rng = easel.rng
    wall, roof = _any(easel, WALL), _any(easel, WALL)
    number = easel.canvas.begin(f"{wall.colour} house")
    half = float(rng.uniform(0.45, 0.8))
    on = easel.solid(number, at, Form(shapes.slab(at.p, at.q - np.float32(0.4), half, 0.5), 0.02), wall, 0.15)
    top = float(rng.uniform(0.3, 0.8))
    eave = half * float(rng.uniform(1.02, 1.2))
    gable = np.asarray([(0.0, -0.05 - top), (eave, -0.05), (-eave, -0.05)], np.float32)
    easel.part(number, at, Form(shapes.convex(at.p, at.q, gable), 0.02), roof, "roof")
    dark = _named(easel, str(rng.choice(("charcoal", "navy", "brown", "white"))), "graded", 0.4)
    door_p = np.float32(rng.uniform(-0.5, 0.5) * half)
    door = shapes.slab(at.p - door_p, at.q - np.float32(0.68), 0.11, 0.24)
    easel.part(number, at, Form(door, 0.02), _any(easel, CLOTH), "door", on=on)
    for column in range(int(rng.integers(1, 4))):
        window_p = np.float32((column - 1) * 0.6 * half)
        pane = shapes.slab(at.p - window_p, at.q - np.float32(0.2), 0.1, 0.12)
        easel.part(number, at, Form(pane, 0.02), dark, "window", on=on)


def animal(easel: Easel, at: Frame) -> None:
    """A four-legged beast from the side: legs, tail, body, head."""
    rng = easel.rng
    coat = _any(easel, COAT)
    number = easel.canvas.begin(f"{coat.title} animal")
    thick, belly = float(rng.uniform(0.05, 0.1)), float(rng.uniform(0.22, 0.34))
    for foot in (-0.5, -0.36, 0.3, 0.44):
        limb = shapes.bar(at.p, at.q, (foot, 0.1), (foot + float(rng.uniform(-0.12, 0.12)), 0.75), thick)
        easel.part(number, at, Form(limb, thick), coat.toned(0.85), "leg")
    end = (-0.95, float(rng.uniform(-0.3, 0.5)))
    easel.part(number, at, Form(shapes.bar(at.p, at.q, (-0.55, -0.05), end, 0.045), 0.05), coat, "tail")
    trunk = shapes.bar(at.p, at.q, (-0.4, 0.0), (0.35, -0.04), belly)
    easel.solid(number, at, Form(_ragged(easel, at, trunk, 0.012), belly), coat, 0.25)
    nose = (float(rng.uniform(0.75, 0.88)), float(rng.uniform(-0.45, -0.1)))
    head = shapes.bar(at.p, at.q, (0.55, -0.33), nose, float(rng.uniform(0.11, 0.18)))
    easel.part(number, at, Form(_ragged(easel, at, head, 0.012), 0.15), coat.toned(1.1), "head")


def person(easel: Easel, at: Frame) -> None:
    """Someone standing: legs, arms, a coat and a head."""
    rng = easel.rng
    cloth, legs = _any(easel, CLOTH), _any(easel, CLOTH)
    skin = _named(easel, str(rng.choice(("tan", "brown", "cream"))))
    number = easel.canvas.begin(f"person in {cloth.title}")
    stride = float(rng.uniform(0.05, 0.3))
    for side in (-1, 1):
        leg = shapes.bar(at.p, at.q, (0.06 * side, 0.2), (stride * side, 0.92), 0.075)
        easel.part(number, at, Form(leg, 0.08), legs, "leg", lift=0.1)
    coat = shapes.slab(at.p, at.q + np.float32(0.12), 0.2 + 0.08 * float(rng.random()), 0.42, 0.12)
    easel.solid(number, at, Form(coat, 0.2), cloth, 0.15)
    for side in (-1, 1):
        hand = (side * float(rng.uniform(0.22, 0.5)), float(rng.uniform(-0.3, 0.3)))
        arm = shapes.bar(at.p, at.q, (0.2 * side, -0.42), hand, 0.06)
        easel.part(number, at, Form(arm, 0.06), cloth.toned(0.9), "arm")
    easel.part(
        number,
        at,
        Form(shapes.disc(at.p, (at.q + np.float32(0.76)) * np.float32(0.85), 0.16), 0.16),
        skin,
        "head",
    )


KINDS: tuple[Kind, ...] = (
    Kind(tree, 3, True), Kind(bush, 2, True), Kind(rock, 2), Kind(house, 1.5, True),
    Kind(animal, 2, True), Kind(person, 2, True),
)  # fmt: skip
