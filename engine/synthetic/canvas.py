"""The canvas: colour, who owns each pixel, and the parts, painted back to front.

Exactness comes from one rule. A layer arrives with its coverage (the share of each pixel it covers, 0 to 1);
colour is blended by coverage, and a pixel belongs to the layer where coverage is at least one half.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.synthetic.fields import Plane

Bits = NDArray[np.bool_]

MIN_VISIBLE_PX = 12
# A part that leaves almost nothing of its whole is the whole again, seen through an occluder.
MAX_PART_SHARE = 0.97


class Window(NamedTuple):
    """A half-open rectangle of pixels, inside the canvas."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def cut(self) -> tuple[slice, slice]:
        """The slices that select this window in an (H, W) array."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels; either may be zero or less when the window is empty."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def empty(self) -> bool:
        """True when no pixel lies inside."""
        return self.y1 <= self.y0 or self.x1 <= self.x0

    def meet(self, other: "Window") -> "Window":
        """The rectangle common to both; perhaps empty."""
        return Window(
            max(self.y0, other.y0), min(self.y1, other.y1), max(self.x0, other.x0), min(self.x1, other.x1)
        )

    def within(self, outer: "Window") -> tuple[slice, slice]:
        """The slices that select this window in an array that starts at `outer`."""
        return slice(self.y0 - outer.y0, self.y1 - outer.y0), slice(self.x0 - outer.x0, self.x1 - outer.x0)


@dataclass(frozen=True)
class SceneMask:
    """One visible region. `mask` is (H, W) bool at pixel centres; a part's mask is a subset of its whole's.

    `kind` is "object" or "part"; `parent` is the index, in the scene's masks, of the whole (or of the part
    that holds a nested part); `depth` is the painting order, 0 farthest, shared by a whole and its parts.
    """

    mask: Bits
    name: str
    kind: str
    parent: int | None
    depth: int


@dataclass
class _Part:
    number: int
    name: str
    window: Window
    bits: Bits
    inside: int | None


@dataclass
class Canvas:
    """A picture in the making: `rgb` (H, W, 3) float32 near 0..1; `owner` (H, W) int32, -1: no object."""

    hw: tuple[int, int]
    rgb: Plane = field(init=False)
    owner: NDArray[np.int32] = field(init=False)
    names: list[str] = field(default_factory=list)
    _parts: list[_Part] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start with an empty grey picture that nobody owns."""
        self.rgb = np.full((*self.hw, 3), 0.5, np.float32)
        self.owner = np.full(self.hw, -1, np.int32)

    @property
    def bounds(self) -> Window:
        """The whole canvas as a window."""
        return Window(0, self.hw[0], 0, self.hw[1])

    def begin(self, name: str) -> int:
        """Open a new object, in front of all before; return its number."""
        self.names.append(name)
        return len(self.names) - 1

    def darken(self, window: Window, darkness: Plane) -> None:
        """Multiply the picture under `window` by 1 - darkness; `darkness` (h, w) may hang over the edge."""
        seen = window.meet(self.bounds)
        if not seen.empty:
            self.rgb[seen.cut] *= (1.0 - darkness[seen.within(window)])[..., None]

    def tint(self, window: Window, coverage: Plane, rgb: Plane) -> None:
        """Blend `rgb` (h, w, 3) or (3,) by `coverage` (h, w); nobody comes to own a pixel by it."""
        self._blend(window, coverage, rgb)

    def paint(self, number: int, window: Window, coverage: Plane, rgb: Plane) -> None:
        """Blend `rgb` (h, w, 3) by `coverage` (h, w) and own the pixels covered by half or more."""
        self._blend(window, coverage, rgb)
        bits = coverage >= 0.5
        self.owner[window.cut][bits] = number
        self._cover(number, window, bits, None)

    def paint_part(
        self, number: int, window: Window, coverage: Plane, rgb: Plane, name: str, inside: int | None = None
    ) -> int:
        """Paint a named part of object `number`; `inside` is the part it lies in, if any. Returns its handle.

        Pixels not yet the object's become so: a handle enlarges its cup. A part inside another must be given
        a coverage that is at most the other's.
        """
        self._blend(window, coverage, rgb)
        return self.mark_part(number, window, coverage >= 0.5, name, inside)

    def mark_part(self, number: int, window: Window, bits: Bits, name: str, inside: int | None = None) -> int:
        """Record a part whose colour is already on the canvas; `bits` (h, w) bool. Returns its handle."""
        if inside is not None:
            bits = bits & self._bits_of(inside, window)
        self.owner[window.cut][bits] = number
        self._cover(number, window, bits, inside)
        self._parts.append(_Part(number, name, window, bits, inside))
        return len(self._parts) - 1

    def masks(self) -> list[SceneMask]:
        """Every visible region of at least MIN_VISIBLE_PX, each whole followed by its parts."""
        found: list[SceneMask] = []
        boxes = ndimage.find_objects(self.owner + 1, max_label=max(len(self.names), 1))
        parts_of: dict[int, list[int]] = {}
        for handle, part in enumerate(self._parts):
            parts_of.setdefault(part.number, []).append(handle)
        for number, box in enumerate(boxes[: len(self.names)]):
            if box is None:
                continue
            mask = np.zeros(self.hw, np.bool_)
            np.equal(self.owner[box], number, out=mask[box])
            if np.count_nonzero(mask[box]) >= MIN_VISIBLE_PX:
                found.append(SceneMask(mask, self.names[number], "object", None, number))
                self._collect_parts(parts_of.get(number, []), found)
        return found

    def _collect_parts(self, handles: list[int], found: list[SceneMask]) -> None:
        whole_index = len(found) - 1
        index_of: dict[int, int] = {}
        for handle in handles:
            part = self._parts[handle]
            visible = part.bits & (self.owner[part.window.cut] == part.number)
            parent = whole_index if part.inside is None else index_of.get(part.inside, whole_index)
            n_visible = np.count_nonzero(visible)
            if not MIN_VISIBLE_PX <= n_visible <= MAX_PART_SHARE * np.count_nonzero(found[parent].mask):
                continue
            mask = np.zeros(self.hw, np.bool_)
            mask[part.window.cut] = visible
            index_of[handle] = len(found)
            found.append(SceneMask(mask, part.name, "part", parent, part.number))

    def _blend(self, window: Window, coverage: Plane, rgb: Plane) -> None:
        under = self.rgb[window.cut]
        for channel in range(3):
            under[..., channel] += coverage * (rgb[..., channel] - under[..., channel])

    def _bits_of(self, handle: int, window: Window) -> Bits:
        part = self._parts[handle]
        bits = np.zeros(window.hw, np.bool_)
        shared = window.meet(part.window)
        if not shared.empty:
            bits[shared.within(window)] = part.bits[shared.within(part.window)]
        return bits

    def _cover(self, number: int, window: Window, bits: Bits, inside: int | None) -> None:
        """Take `bits` away from the object's earlier parts, except those that hold the new layer."""
        holders: set[int] = set()
        while inside is not None:
            holders.add(inside)
            inside = self._parts[inside].inside
        for handle in range(len(self._parts) - 1, -1, -1):
            part = self._parts[handle]
            if part.number != number:
                break
            shared = window.meet(part.window)
            if handle not in holders and not shared.empty:
                part.bits[shared.within(part.window)] &= ~bits[shared.within(window)]
