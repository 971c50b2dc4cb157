"""The things on the table. Each function paints one body, with its parts, at the frame it is given."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from engine.synthetic import shapes
from engine.synthetic.colours import Finish, draw_finish, jittered
from engine.synthetic.easel import Easel
from engine.synthetic.fields import Plane, clamp
from engine.synthetic.shapes import Form, Frame

ANY_PATTERN = (
    "graded", "striped", "wavy", "checkered", "spotted", "wooden", "marbled", "mottled", "speckled", "grainy",
    "woven",
    "rough",
    "tufted",
)  # fmt: skip
SOFT_PATTERN = ("graded", "marbled", "mottled", "speckled", "grainy", "wooden")


def _finish(easel: Easel, patterns: tuple[str, ...] = ANY_PATTERN) -> Finish:
    return draw_finish(easel.rng, easel.palette, patterns)


def _contrast(easel: Easel, finish: Finish) -> Finish:
    """A plain finish whose colour is another than the given one's, for a part."""
    colour = easel.palette.pick(easel.rng)
    base = jittered(easel.rng, colour)
    if np.abs(base - finish.base).sum() < 0.35:
        base = clamp(finish.base * np.float32(0.5 if finish.base.mean() > 0.4 else 1.7) + np.float32(0.04))
    return Finish(colour, base, base, "plain", finish.gloss)


def ball(easel: Easel, at: Frame) -> None:
    """A sphere, now and then with a band around it or a stem on top."""
    finish = _finish(easel)
    number = easel.canvas.begin(f"{finish.title} ball")
    form = Form(shapes.disc(at.p, at.q, 0.98))
    on = easel.solid(number, at, form, finish, 0.5)
    if easel.rng.random() < 0.35 and not at.window.empty:
        centre, half = easel.rng.uniform(-0.5, 0.5), easel.rng.uniform(0.08, 0.3)
        bow = np.float32(easel.rng.uniform(-0.35, 0.35)) * (1 - at.p * at.p)
        belt = _contrast(easel, finish)
        band = Form(np.maximum(np.abs(at.q - np.float32(centre) - bow) - np.float32(half), form.f))
        coverage = shapes.coverage_of(shapes.distance_px(band, at.radius_px)) * on
        rgb = easel.colour(belt, at, form)
        easel.canvas.paint_part(number, at.window, coverage, rgb, f"{belt.colour} band")


def fruit(easel: Easel, at: Frame) -> None:
    """An apple-like body with a stem and perhaps a leaf."""
    finish = replace(_finish(easel, SOFT_PATTERN), gloss=float(easel.rng.uniform(0.2, 0.7)))
    number = easel.canvas.begin(f"{finish.title} fruit")
    dent = np.float32(0.12) * np.exp(-6 * (at.p * at.p)) * clamp(-at.q)
    easel.solid(number, at, Form(shapes.disc(at.p, at.q * np.float32(1.1), 0.85) + dent, 0.85), finish, 0.4)
    brown = Finish("brown", jittered(easel.rng, "brown"), jittered(easel.rng, "brown"))
    lean = float(easel.rng.uniform(-0.25, 0.25))
    stem = shapes.bar(at.p, at.q, (0.0, -0.55), (lean, -0.95), 0.045)
    easel.part(number, at, Form(stem, 0.05), brown, "stem")
    if easel.rng.random() < 0.5:
        green = Finish("green", jittered(easel.rng, "green"), jittered(easel.rng, "olive"), "graded")
        small = np.float32(0.3)
        blade = shapes.leaf((at.p - np.float32(lean + 0.3)) / small, (at.q + np.float32(0.85)) / small, 0.45)
        form = Form(blade * small, 0.3)
        easel.part(number, at, form, green, "leaf")


def hoop(easel: Easel, at: Frame) -> None:
    """A torus of any thickness, from wire to doughnut."""
    finish = _finish(easel)
    half = float(easel.rng.uniform(0.06, 0.3))
    number = easel.canvas.begin(f"{finish.title} ring")
    easel.solid(number, at, Form(shapes.ring(at.p, at.q, 0.97 - half, half), half), finish, 0.3)


def coin(easel: Easel, at: Frame) -> None:
    """A flat disc: plate, coin or button with holes; the inner field is a part."""
    finish = _finish(easel)
    n_holes = int(easel.rng.choice((0, 0, 0, 2, 4)))
    number = easel.canvas.begin(f"{finish.title} {'button' if n_holes else 'plate'}")
    f = shapes.disc(at.p, at.q, 0.98)
    for hole in range(n_holes):
        turn = 2 * np.pi * hole / n_holes
        off_p, off_q = np.float32(0.27 * np.cos(turn)), np.float32(0.27 * np.sin(turn))
        f = np.maximum(f, -shapes.disc(at.p - off_p, at.q - off_q, 0.11))
    on = easel.solid(number, at, Form(f, 0.12), finish, 0.12)
    inner = Form(np.maximum(shapes.disc(at.p, at.q, easel.rng.uniform(0.45, 0.75)), f), 0.1)
    if easel.rng.random() < 0.6:
        field = finish if easel.rng.random() < 0.5 else _contrast(easel, finish)
        tone = easel.rng.uniform(0.75, 0.95)
        easel.part(number, at, inner, field.toned(float(tone)), "inner field", on=on)


def box(easel: Easel, at: Frame) -> None:
    """A box seen from a corner: three faces, each flat and lit by its own angle, each a part."""
    finish = _finish(easel)
    number = easel.canvas.begin(f"{finish.title} box")
    lean, rise, depth = easel.rng.uniform((0.15, 0.15, 0.3), (0.85, 0.5, 0.7))
    # Edges on screen: two along the table, one up; the far corner of the floor is the origin.
    across = np.asarray((0.75, rise * lean)) * easel.rng.uniform(0.6, 1)
    away = np.asarray((-0.75, rise * (1 - lean))) * easel.rng.uniform(0.6, 1)
    up = np.asarray((0.0, -depth * 1.3))
    far = -(across + away + up) / 2
    faces = {
        "top face": _face(at, far + up, across, away),
        "left face": _face(at, far + away, across, up),
        "right face": _face(at, far + across, away, up),
    }
    hull = np.minimum.reduce(list(faces.values()))
    easel.solid(number, at, Form(hull, 0.02), replace(finish, gloss=0.0, roughness_px=0.0), 0.3)
    for tone, (name, f) in zip(easel.rng.permutation((1.05, 0.8, 0.55)), faces.items(), strict=True):
        easel.part(number, at, Form(f, 0.02), replace(finish.toned(float(tone)), gloss=0.0), name)


def _face(at: Frame, corner: Plane, edge: Plane, other: Plane) -> Plane:
    """A parallelogram from a corner and two edges, each (2,), its corners put in clockwise order."""
    corners = np.stack([corner, corner + edge, corner + edge + other, corner + other]).astype(np.float32)
    middle = corners.mean(axis=0)
    turn = np.arctan2(corners[:, 1] - middle[1], corners[:, 0] - middle[0])
    return shapes.convex(at.p, at.q, corners[np.argsort(turn)])


def card(easel: Easel, at: Frame) -> None:
    """A flat rectangle: book, card or tile, perhaps with a label."""
    finish = _finish(easel)
    half_q = float(easel.rng.uniform(0.3, 0.7))
    number = easel.canvas.begin(f"{finish.title} {easel.rng.choice(('card', 'book', 'tile'))}")
    form = Form(shapes.slab(at.p, at.q, 0.72, half_q, float(easel.rng.uniform(0, 0.15))), 0.05)
    on = easel.solid(number, at, form, finish, 0.1)
    if easel.rng.random() < 0.5:
        off = np.float32(easel.rng.uniform(-0.25, 0.25))
        label = _contrast(easel, finish)
        patch = Form(shapes.slab(at.p - off, at.q, easel.rng.uniform(0.15, 0.4), 0.5 * half_q), 0.02)
        easel.part(number, at, patch, label, f"{label.colour} label", on=on)


def bottle(easel: Easel, at: Frame) -> None:
    """A turned bottle, jar or vase, with cap and label."""
    finish = replace(_finish(easel), gloss=float(easel.rng.uniform(0.3, 0.9)))
    number = easel.canvas.begin(f"{finish.title} {easel.rng.choice(('bottle', 'jar', 'vase'))}")
    neck, belly = easel.rng.uniform(0.08, 0.22), easel.rng.uniform(0.25, 0.45)
    shoulder = easel.rng.uniform(-0.55, -0.1)
    hip, foot = belly * easel.rng.uniform(0.8, 1.2), belly * easel.rng.uniform(0.6, 1)
    heights = (-0.95, shoulder - 0.15, shoulder + 0.2, 0.5, 0.95)
    form = shapes.lathe(at.p, at.q, heights, (neck, neck, belly, hip, foot))
    on = easel.solid(number, at, form, finish, 0.3)
    if easel.rng.random() < 0.6:
        cap = _contrast(easel, finish)
        lid = shapes.slab(at.p, at.q + np.float32(0.86), neck + 0.04, 0.12, 0.03)
        round_lid = Form(lid, float(neck + 0.04), np.abs(at.p) - np.float32(neck + 0.04))
        easel.part(number, at, round_lid, cap, f"{cap.colour} cap")
    if easel.rng.random() < 0.6:
        label = _contrast(easel, finish)
        band = np.maximum(np.abs(at.q - np.float32(0.4)) - np.float32(easel.rng.uniform(0.1, 0.28)), form.f)
        easel.part(number, at, Form(band, form.bevel, form.swell), label, f"{label.colour} label", on=on)


def cup(easel: Easel, at: Frame) -> None:
    """A cup from the side and a little above: body, handle, opening."""
    finish = _finish(easel)
    number = easel.canvas.begin(f"{finish.title} cup")
    loop = shapes.ring(at.p - np.float32(0.5), at.q * np.float32(0.8) - np.float32(0.05), 0.3, 0.075)
    easel.part(number, at, Form(loop, 0.075), replace(finish, pattern="plain"), "handle", lift=0.2)
    foot = float(easel.rng.uniform(0.3, 0.5))
    wall = shapes.lathe(at.p, at.q, (-0.6, 0.0, 0.65), (0.52, 0.5, foot))
    rim = shapes.disc(at.p / np.float32(0.52), (at.q + np.float32(0.6)) / np.float32(0.16)) * np.float32(0.16)
    body = Form(np.minimum(wall.f, rim), wall.bevel, wall.swell)
    on = easel.solid(number, at, body, finish, 0.25)
    dark = replace(finish.toned(0.4), pattern="graded", gloss=0.0)
    mouth = shapes.disc(at.p / np.float32(0.46), (at.q + np.float32(0.6)) / np.float32(0.12))
    easel.part(number, at, Form(mouth * np.float32(0.12), 0.02), dark, "opening", on=on)


def pan(easel: Easel, at: Frame) -> None:
    """A pan, spoon, racket or magnifier: a round head and a handle."""
    finish = _finish(easel)
    grip = _contrast(easel, finish)
    word = str(easel.rng.choice(("pan", "spoon", "racket")))
    number = easel.canvas.begin(f"{finish.title} {word}")
    head = float(easel.rng.uniform(0.22, 0.55))
    thin = float(easel.rng.uniform(0.03, 0.09))
    shaft = Form(shapes.bar(at.p, at.q, (head - 0.8, 0.0), (0.92, 0.0), thin), thin)
    easel.part(number, at, shaft, grip, "handle", lift=0.2)
    form = Form(shapes.disc(at.p + np.float32(1 - head), at.q * np.float32(1.1), head - 0.03), 0.12)
    easel.solid(number, at, form, finish, 0.2)


def gem(easel: Easel, at: Frame) -> None:
    """A star, gear or polygon."""
    finish = _finish(easel)
    n_tips, inner = int(easel.rng.integers(3, 14)), float(easel.rng.uniform(0.35, 0.85))
    number = easel.canvas.begin(f"{finish.title} {'star' if inner < 0.65 else 'gear'}")
    f = shapes.star(at.p, at.q, n_tips, inner, 0.04)
    if easel.rng.random() < 0.25:
        f = np.maximum(f, -shapes.disc(at.p, at.q, 0.4 * inner))
    easel.solid(number, at, Form(f, float(easel.rng.uniform(0.1, 0.5))), finish, 0.2)


def foliage(easel: Easel, at: Frame) -> None:
    """A leaf or feather with a rib; the blade's two halves differ a little."""
    finish = _finish(easel)
    width = float(easel.rng.uniform(0.15, 0.5))
    number = easel.canvas.begin(f"{finish.title} leaf")
    bend = np.float32(easel.rng.uniform(-0.35, 0.35)) * (1 - at.p * at.p)
    form = Form(shapes.leaf(at.p, at.q - bend, width, easel.rng.uniform(0.8, 1.6)), 0.4 * width)
    on = easel.solid(number, at, form, finish, 0.15)
    if not at.window.empty:
        rib = np.abs(at.q - bend) - np.float32(0.02)
        tone = float(easel.rng.choice((0.6, 1.4)))
        rgb = easel.colour(finish.toned(tone), at, form)
        cover = shapes.coverage_of(rib * np.float32(at.radius_px)) * on
        easel.canvas.paint_part(number, at.window, cover, rgb, "rib")


def pebble(easel: Easel, at: Frame) -> None:
    """An irregular blob: stone, splash or dough."""
    finish = _finish(easel)
    number = easel.canvas.begin(f"{finish.title} {easel.rng.choice(('pebble', 'blob'))}")
    f = shapes.blob(easel.rng, at.p, at.q, float(easel.rng.uniform(0.05, 0.35)))
    easel.solid(number, at, Form(f, float(easel.rng.uniform(0.3, 1))), finish, 0.3)


def glyph(easel: Easel, at: Frame) -> None:
    """A sign like a letter: two to four strokes between the points of a lattice."""
    finish = _finish(easel)
    number = easel.canvas.begin(f"{finish.title} letter")
    thick = float(easel.rng.uniform(0.06, 0.18))
    f = np.full_like(at.p, 1e3)
    lattice = (-0.6, 0.0, 0.6)
    here = easel.rng.choice(lattice, 2).tolist()
    for _ in range(int(easel.rng.integers(2, 5))):
        there = easel.rng.choice(lattice, 2).tolist()
        if easel.rng.random() < 0.3:
            stroke = shapes.arc(at.p, at.q, 0.6, thick, float(easel.rng.uniform(0.3, 2.2)))
        else:
            stroke = shapes.bar(at.p, at.q, here, there, thick)
        f, here = np.minimum(f, stroke), there
    easel.solid(number, at, Form(f, thick), finish, 0.15)


def rod(easel: Easel, at: Frame) -> None:
    """A stick, needle or pencil; a pencil's tip and end are parts."""
    finish = _finish(easel)
    thin = max(float(np.exp(easel.rng.uniform(np.log(0.015), np.log(0.14)))), 0.7 / at.radius_px)
    number = easel.canvas.begin(f"{finish.title} {'rod' if thin > 0.05 else 'needle'}")
    form = Form(shapes.bar(at.p, at.q, (-0.95 + thin, 0.0), (0.95 - thin, 0.0), thin), thin)
    on = easel.solid(number, at, form, finish, 0.1)
    for end in (-1, 1):
        if easel.rng.random() < 0.4:
            tip = Form(np.maximum(np.float32(easel.rng.uniform(0.55, 0.85)) - end * at.p, form.f), thin)
            trim = _contrast(easel, finish)
            easel.part(number, at, tip, trim, f"{trim.colour} tip", on=on)


def wire(easel: Easel, at: Frame) -> None:
    """A thin winding cable or an open loop."""
    finish = _finish(easel, ("striped", "graded"))
    thin = max(float(easel.rng.uniform(0.012, 0.06)), 0.8 / at.radius_px)
    number = easel.canvas.begin(f"{finish.title} wire")
    if easel.rng.random() < 0.5:
        f = shapes.wave(at.p, at.q, easel.rng.uniform(0.08, 0.35), easel.rng.uniform(0.7, 3), thin)
    else:
        f = shapes.arc(at.p, at.q, 0.95 - thin, thin, easel.rng.uniform(0.2, 2.2))
    easel.solid(number, at, Form(f, thin), finish, 0.1)


def moon(easel: Easel, at: Frame) -> None:
    """A crescent, banana or horn."""
    finish = _finish(easel, SOFT_PATTERN)
    number = easel.canvas.begin(f"{finish.title} crescent")
    bite = float(easel.rng.uniform(0.35, 0.9))
    easel.solid(number, at, Form(shapes.crescent(at.p, at.q, bite), 0.5 * bite), finish, 0.3)


def heart(easel: Easel, at: Frame) -> None:
    """A heart-shaped cushion."""
    finish = _finish(easel)
    number = easel.canvas.begin(f"{finish.title} heart")
    easel.solid(number, at, Form(shapes.heart(at.p, at.q), float(easel.rng.uniform(0.2, 0.8))), finish, 0.25)


@dataclass(frozen=True)
class Kind:
    """A body and how it stands: `upright` things lean little; `flat` is the strongest foreshortening."""

    paint: Callable[[Easel, Frame], None]
    weight: float
    upright: bool = False
    flat: float = 0.6


KINDS: tuple[Kind, ...] = (
    Kind(ball, 3, flat=1.0), Kind(fruit, 1.5, True, 0.9), Kind(hoop, 2), Kind(coin, 2, flat=0.45),
    Kind(box, 2, True, 0.8), Kind(card, 2), Kind(bottle, 2, True, 1.0), Kind(cup, 1.5, True, 1.0),
    Kind(pan, 1.5), Kind(gem, 1.5), Kind(foliage, 1.5), Kind(pebble, 2.5), Kind(glyph, 1.5),
    Kind(rod, 2, flat=1.0), Kind(wire, 1.2), Kind(moon, 1), Kind(heart, 0.6),
)  # fmt: skip
