"""Garden: flowers, leaves, stones and small beasts on soil or grass, in afternoon light.

The demo's own theme. No model that ships with the engine has been trained on it, so what the demo shows is
what a person meets on pictures of their own.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from engine.synthetic import shapes
from engine.synthetic.canvas import Canvas
from engine.synthetic.colours import Finish, Palette, jittered, mixed
from engine.synthetic.easel import Easel
from engine.synthetic.fields import Plane, clamp
from engine.synthetic.lighting import Light, shade
from engine.synthetic.shapes import Form, Frame
from engine.synthetic.textures import NoiseBank

PETALS = ("red", "pink", "yellow", "white", "purple", "orange", "sky blue")
LEAVES = ("green", "green", "olive", "yellow", "orange", "brown")
STONES = ("grey", "tan", "charcoal", "cream", "white")


def paint(canvas: Canvas, rng: Generator) -> None:
    """Soil or lawn, then leaves, stones, flowers and beasts, lower in the picture in front."""
    light = Light(
        towards=(-0.42, -0.47, 0.776),
        key=np.asarray((0.98, 0.92, 0.80), np.float32),
        sky=np.asarray((0.42, 0.46, 0.54), np.float32),
        shadow=0.5,
        softness=0.3,
    )
    easel = Easel(canvas, rng, light, NoiseBank.draw(rng, canvas.hw), Palette(PETALS))
    if rng.random() < 0.5:
        lawn(easel)
    else:
        soil(easel)
    for grow, frame in layout(easel):
        if not frame.window.empty:
            grow(easel, frame)


def soil(easel: Easel) -> None:
    """Brown crumbs of several sizes, lit as a rough surface."""
    noise = easel.noise
    relief = 3 * noise.broad + 2.2 * noise.fine + 0.25 * noise.grain
    shadeless = mixed(
        jittered(easel.rng, "brown", 0.02), jittered(easel.rng, "tan", 0.02), _tones(noise) * 0.6
    )
    easel.canvas.rgb[:] = shade(shadeless, relief, easel.light, 0.0)


def lawn(easel: Easel) -> None:
    """Green ground under a few hundred blades that belong to nobody."""
    rng, (h, w) = easel.rng, easel.canvas.hw
    ground = mixed(
        jittered(rng, "green", 0.02) * np.float32(0.5), jittered(rng, "olive", 0.02), _tones(easel.noise)
    )
    easel.canvas.rgb[:] = shade(ground, 3 * easel.noise.fine, easel.light, 0.0)
    for x, y in rng.uniform((0, 0), (w, h), (260, 2)):
        length = float((h * w) ** 0.5 * rng.uniform(0.02, 0.05))
        frame = Frame.stand(easel.canvas.hw, (float(x), float(y)), length, float(rng.normal(-1.57, 0.5)))
        bend = float(rng.uniform(-0.3, 0.3))
        f = shapes.leaf(frame.p, frame.q - bend * (1 - frame.p * frame.p), 0.09)
        blade = jittered(rng, str(rng.choice(("green", "olive"))), 0.04) * np.float32(rng.uniform(0.6, 1.35))
        easel.canvas.tint(frame.window, shapes.coverage_of(f * np.float32(length)), blade)


def _tones(noise: NoiseBank) -> Plane:
    return clamp(0.22 * noise.broad + 0.2 * noise.fine + 0.08 * noise.grain + 0.4)


def layout(easel: Easel) -> list[tuple[Callable[[Easel, Frame], None], Frame]]:
    """What grows where: large leaves and stones first, flowers next, beasts last; few overlap heavily."""
    rng, (h, w) = easel.rng, easel.canvas.hw
    beds: tuple[tuple[Callable[[Easel, Frame], None], int, float, float], ...] = (
        (leaf, int(rng.integers(4, 14)), 0.05, 0.14), (stone, int(rng.integers(2, 9)), 0.02, 0.10),
        (flower, int(rng.integers(3, 10)), 0.06, 0.16), (mushroom, int(rng.integers(0, 4)), 0.06, 0.10),
        (snail, int(rng.integers(0, 2)), 0.06, 0.09), (butterfly, int(rng.integers(0, 3)), 0.06, 0.1),
        (ladybird, int(rng.integers(1, 6)), 0.022, 0.045),
    )  # fmt: skip
    taken: list[tuple[float, float, float]] = []
    placed: list[tuple[Callable[[Easel, Frame], None], Frame]] = []
    for grow, n, smallest, largest in beds:
        for _ in range(n):
            radius = float((h * w) ** 0.5 * rng.uniform(smallest, largest))
            x, y = _free_spot(rng, (h, w), radius, taken)
            taken.append((x, y, radius))
            angle = float(rng.normal(0, 0.12)) if grow is mushroom else float(rng.uniform(0, 2 * np.pi))
            placed.append((grow, Frame.stand((h, w), (x, y), max(radius, 3.0), angle, 1.0, 1.15)))
    return placed


def _free_spot(
    rng: Generator, hw: tuple[int, int], radius: float, taken: list[tuple[float, float, float]]
) -> tuple[float, float]:
    """The least crowded of eight random places."""
    h, w = hw
    tries = rng.uniform((0.03 * w, 0.03 * h), (0.97 * w, 0.97 * h), (8, 2))
    crowding = [
        max((r + radius - np.hypot(x - a, y - b) for a, b, r in taken), default=0.0) for x, y in tries
    ]
    x, y = tries[int(np.argmin(np.maximum(crowding, -0.2 * radius)))]
    return float(x), float(y)


def leaf(easel: Easel, at: Frame) -> None:
    """A fallen or growing leaf: blade, midrib, side veins in its shading."""
    rng = easel.rng
    colour = str(rng.choice(LEAVES))
    base = jittered(rng, colour, 0.03)
    finish = Finish(colour, base, base * np.float32(0.6), "mottled", 0.25)
    number = easel.canvas.begin(f"{colour} leaf")
    bend = np.float32(rng.uniform(-0.25, 0.25)) * (1 - at.p * at.p)
    q = at.q - bend
    stem = Form(shapes.bar(at.p, q, (0.6, 0.0), (1.0, 0.0), 0.022), 0.03)
    easel.part(number, at, stem, finish.toned(0.7), "stem")
    blade = shapes.leaf(
        (at.p + np.float32(0.1)) / np.float32(0.9), q / np.float32(0.9), float(rng.uniform(0.28, 0.5))
    )
    veins = np.float32(0.012) * np.sin(26 * (at.p - np.abs(q)))
    form = Form(blade * np.float32(0.9), 0.25, blade + veins * (blade < -0.03))
    on = easel.solid(number, at, form, finish, 0.18)
    rib = Form(np.maximum(np.abs(q), at.p - np.float32(0.8)) - np.float32(0.022), 0.03)
    easel.part(number, at, rib, finish.toned(1.35), "midrib", on=on)


def stone(easel: Easel, at: Frame) -> None:
    """A smooth pebble."""
    rng = easel.rng
    colour = str(rng.choice(STONES))
    base = jittered(rng, colour, 0.03)
    finish = Finish(
        colour, base, base * np.float32(0.7), str(rng.choice(("rough", "speckled", "marbled"))), 0.15, 0.5
    )
    number = easel.canvas.begin(f"{colour} stone")
    f = shapes.blob(rng, at.p, at.q * np.float32(rng.uniform(1.0, 1.4)), 0.09, 4)
    easel.solid(number, at, Form(f, 0.7), finish, 0.3)


def flower(easel: Easel, at: Frame) -> None:
    """A ring of petals, perhaps a second one inside, about a centre; each petal is a part."""
    rng = easel.rng
    colour = str(rng.choice(PETALS))
    number = easel.canvas.begin(f"{colour} flower")
    n_petals = int(rng.integers(5, 13))
    petals = Finish(
        colour, jittered(rng, colour, 0.03), jittered(rng, str(rng.choice(PETALS)), 0.03), "plain", 0.2
    )
    _corolla(easel, at, number, petals, n_petals, 1.0)
    if rng.random() < 0.35:
        _corolla(easel, at, number, petals.toned(1.1), n_petals, 0.65)
    heart_colour = "brown" if colour in ("yellow", "orange") else "yellow"
    core = Finish(
        heart_colour, jittered(rng, heart_colour, 0.03), jittered(rng, "orange", 0.03), "speckled", 0.1, 0.9
    )
    middle = Form(shapes.disc(at.p, at.q, float(rng.uniform(0.18, 0.28))), 0.25)
    easel.part(number, at, middle, core, "centre", lift=0.06)


def _corolla(easel: Easel, at: Frame, number: int, finish: Finish, n_petals: int, reach: float) -> None:
    """All petals of one ring at once: space is folded into one sector per petal."""
    rng = easel.rng
    sector = np.float32(2 * np.pi / n_petals)
    turned = np.arctan2(at.q, at.p) / sector + np.float32(rng.random())
    petal = np.floor(turned)
    off_axis = (turned - petal - np.float32(0.5)) * sector
    radius = np.sqrt(at.p * at.p + at.q * at.q) / np.float32(reach)
    along, across = radius * np.cos(off_axis), radius * np.sin(off_axis)
    half = np.float32(0.52 * np.sin(np.pi / n_petals) * rng.uniform(0.95, 1.4))
    f = shapes.disc((along - np.float32(0.6)) / np.float32(0.38), across / half) * half
    furrow = np.exp(-((across / (np.float32(0.2) * half)) ** 2)) * clamp(-3 * f / half)
    furrow *= np.float32(0.25) * half
    distance = shapes.distance_px(Form(f), at.radius_px * reach)
    easel.shadow(at, distance, 0.2)
    coverage = shapes.coverage_of(distance)
    height = shapes.height_of(Form(f, float(half), f + furrow), at.radius_px * reach)
    glow = clamp(1.15 - 1.3 * radius)
    rgb = shade(mixed(finish.base, finish.other, glow), height, easel.light, finish.gloss)
    easel.canvas.paint(number, at.window, coverage, rgb)
    bits = coverage >= 0.5
    for which in np.unique(petal[bits]):
        # Floor runs over one full turn from any start, so the first and the last sector are the same petal.
        same = (petal == which) | (petal == which + n_petals)
        if which - n_petals not in petal[bits]:
            easel.canvas.mark_part(number, at.window, bits & same, "petal")


def ladybird(easel: Easel, at: Frame) -> None:
    """Head, two wing cases, and spots on each."""
    rng = easel.rng
    colour = str(rng.choice(("red", "red", "orange", "yellow")))
    base = jittered(rng, colour, 0.02)
    shell = Finish(colour, base, base * np.float32(0.8), "plain", 0.8)
    black = Finish("black", jittered(rng, "black", 0.01), jittered(rng, "charcoal", 0.01), "plain", 0.6)
    number = easel.canvas.begin(f"{colour} ladybird")
    easel.part(
        number, at, Form(shapes.disc(at.p - np.float32(0.68), at.q, 0.3), 0.3), black, "head", lift=0.2
    )
    body = Form(shapes.disc(at.p + np.float32(0.15), at.q * np.float32(1.15), 0.8), 0.8)
    on = easel.solid(number, at, body, shell, 0.25)
    wings = [
        easel.canvas.mark_part(number, at.window, (on >= 0.5) & (side * at.q > 0.035), "wing")
        for side in (-1, 1)
    ]
    easel.canvas.tint(
        at.window, on * shapes.coverage_of((np.abs(at.q) - np.float32(0.03)) * at.radius_px), black.base
    )
    spots = rng.uniform((-0.7, 0.2), (0.4, 0.5), (int(rng.integers(2, 4)), 2)).astype(np.float32)
    for side, wing in zip((-1, 1), wings, strict=True):
        for spot_p, spot_q in spots:
            form = Form(shapes.disc(at.p - spot_p, side * at.q - spot_q, 0.13), 2.0)
            easel.part(number, at, form, black, "spot", on=on, inside=wing)


def mushroom(easel: Easel, at: Frame) -> None:
    """A toadstool from the side: stem, cap, white dots."""
    rng = easel.rng
    colour = str(rng.choice(("red", "brown", "tan")))
    base = jittered(rng, colour, 0.03)
    cream = Finish("cream", jittered(rng, "cream", 0.02), jittered(rng, "tan", 0.02), "graded", 0.1)
    number = easel.canvas.begin(f"{colour} mushroom")
    stem = shapes.lathe(at.p, at.q, (-0.3, 0.5, 0.95), (0.15, 0.17, 0.25))
    easel.part(number, at, stem, cream, "stem", lift=0.25)
    brim = (at.q - np.float32(0.02) - np.float32(0.1) * (1 - at.p * at.p)) * np.float32(0.8)
    dome = np.maximum(shapes.disc(at.p / np.float32(0.92), at.q / np.float32(0.85)), brim)
    finish = Finish(colour, base, base * np.float32(0.75), "graded", 0.6)
    form = Form(dome, 0.9, shapes.disc(at.p / np.float32(0.92), at.q / np.float32(0.85)))
    cap = easel.part(number, at, form, finish, "cap", lift=0.1)
    on = shapes.coverage_of(shapes.distance_px(form, at.radius_px))
    for dot_p, dot_q in rng.uniform((-0.65, -0.65), (0.65, -0.1), (int(rng.integers(3, 8)), 2)).astype(
        np.float32
    ):
        dot = Form(shapes.disc(at.p - dot_p, at.q - dot_q, float(rng.uniform(0.06, 0.13))), 0.15)
        easel.part(number, at, dot, replace(cream, pattern="plain"), "dot", on=on, inside=cap)


def snail(easel: Easel, at: Frame) -> None:
    """A soft body with horns under a spiral shell."""
    rng = easel.rng
    skin = Finish("tan", jittered(rng, "tan", 0.03), jittered(rng, "brown", 0.03), "speckled", 0.5)
    number = easel.canvas.begin("snail")
    for tip in ((1.0, -0.22), (1.02, 0.06)):
        horn = shapes.bar(at.p, at.q, (0.72, 0.1), tip, 0.035)
        easel.part(number, at, Form(horn, 0.04), skin.toned(0.85), "horn")
    foot = np.minimum(
        shapes.bar(at.p, at.q, (-0.85, 0.35), (0.35, 0.32), 0.13),
        shapes.bar(at.p, at.q, (0.3, 0.3), (0.75, 0.14), 0.14),
    )
    easel.part(number, at, Form(foot, 0.14), skin, "body", lift=0.2)
    p, q = at.p + np.float32(0.15), at.q + np.float32(0.1)
    colour = str(rng.choice(("brown", "orange", "cream")))
    base = jittered(rng, colour, 0.03)
    form = Form(shapes.disc(p, q, 0.52), 0.52)
    radius = np.sqrt(p * p + q * q)
    whorl = np.sin(np.arctan2(q, p) - 20 * radius)
    height = shapes.height_of(form, at.radius_px) * (1 + np.float32(0.05) * whorl)
    albedo = mixed(base, base * np.float32(0.45), clamp(0.5 + 0.6 * whorl))
    distance = shapes.distance_px(form, at.radius_px)
    easel.shadow(at, distance, 0.15)
    rgb = shade(albedo, height, easel.light, 0.6)
    easel.canvas.paint_part(number, at.window, shapes.coverage_of(distance), rgb, "shell")


def butterfly(easel: Easel, at: Frame) -> None:
    """Four wings, each with an eye spot, and a dark body."""
    rng = easel.rng
    colour = str(rng.choice(PETALS))
    wing = Finish(colour, jittered(rng, colour, 0.03), jittered(rng, "charcoal", 0.03), "graded", 0.1)
    spot = jittered(rng, str(rng.choice(PETALS)), 0.03)
    number = easel.canvas.begin(f"{colour} butterfly")
    for name, p0, q0, tilt, long in (
        ("hind wing", -0.34, 0.42, 0.5, 0.42),
        ("fore wing", 0.24, 0.5, -0.45, 0.55),
    ):
        for side in (-1, 1):
            p, q = at.p - np.float32(p0), side * at.q - np.float32(q0)
            c, s = float(np.cos(tilt)), float(np.sin(tilt))
            a, b = c * p + s * q, c * q - s * p
            f = shapes.disc(a / np.float32(0.6 * long), b / np.float32(long)) * np.float32(0.6 * long)
            handle = easel.part(number, at, Form(f, 0.1), wing, name, lift=0.2)
            on = shapes.coverage_of(shapes.distance_px(Form(f), at.radius_px))
            eye = Form(shapes.disc(a, b - np.float32(0.4 * long), 0.09), 1.0)
            easel.part(
                number, at, eye, replace(wing, base=spot, other=spot), "eye spot", on=on, inside=handle
            )
    dark = Finish("charcoal", jittered(rng, "charcoal", 0.02), jittered(rng, "brown", 0.02), "plain", 0.3)
    easel.part(number, at, Form(shapes.bar(at.p, at.q, (-0.45, 0.0), (0.5, 0.0), 0.075), 0.08), dark, "body")
