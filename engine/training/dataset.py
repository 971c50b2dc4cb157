"""Where training pictures come from: anything with a length that gives a `Sample` for a number.

Two sources are built in: generated scenes, drawn when asked for, and the frozen folder of a TrainingSnapshot.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInput, NotFound
from engine.geometry.rle import Rle, decode, encode, validate

Mask = Rle | NDArray[np.bool_]


@dataclass(frozen=True)
class Sample:
    """One picture (H, W, 3) uint8 with its masks, as RLE or boolean arrays (H, W).

    `weight` scales how often it is drawn; `human` tells masks a person accepted from the model's own;
    `group` keeps near-duplicates on one side of a split; `beside` are masks of the picture that are not to be
    learned or measured, but are there.
    """

    image: NDArray[np.uint8]
    masks: Sequence[Mask]
    weight: float = 1.0
    human: bool = True
    group: str = ""
    beside: Sequence[Mask] = ()

    def mask(self, index: int) -> NDArray[np.bool_]:
        """The mask of that number, decoded, (H, W)."""
        return _decoded(self.masks[index])

    def every_mask(self) -> list[NDArray[np.bool_]]:
        """All masks, decoded, those beside last."""
        return [_decoded(mask) for mask in (*self.masks, *self.beside)]


def _decoded(mask: Mask) -> NDArray[np.bool_]:
    return mask if isinstance(mask, np.ndarray) else decode(mask)


class Samples(Protocol):
    """A source of samples; the same number must always give the same sample, or resuming changes the run."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class SceneSamples:
    """Generated scenes, drawn on demand: scene i has seed `seed + i` and takes the themes in turn."""

    seed: int
    n_scenes: int
    themes: tuple[str, ...] = ("still_life", "microscope", "mosaic")
    size_hw: tuple[int, int] = (512, 512)
    # Of the parts of objects this share is kept, drawn by the scene's seed; objects always are.
    part_share: float = 1.0

    def __len__(self) -> int:
        return self.n_scenes

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.n_scenes:
            raise IndexError(index)
        from engine.synthetic.scene import draw_scene  # pays for its textures only when scenes are drawn

        theme = self.themes[index % len(self.themes)]
        scene = draw_scene(self.seed + index, size_hw=self.size_hw, theme=theme)
        rng = np.random.default_rng(self.seed + index)
        kept = [one for one in scene.masks if one.kind == "object" or rng.random() < self.part_share]
        return Sample(scene.image, [one.mask for one in kept], human=False, group=theme)


@dataclass(frozen=True)
class FolderSamples:
    """A frozen folder: `samples.jsonl`, one picture per line, pictures as `.npy` beside it.

    A line is {"image": relative path, "rles": [{"size", "counts"}], "human": bool, "group": str}; `weight`
    may be added. Raises NotFound without the file, BadInput for a line that does not hold.
    """

    folder: Path
    lines: tuple[bytes, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        path = self.folder / "samples.jsonl"
        if not path.is_file():
            raise NotFound(f"{path} does not exist: give the folder of a training snapshot")
        object.__setattr__(self, "lines", tuple(path.read_bytes().splitlines()))

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> Sample:
        try:
            row = json.loads(self.lines[index])
            image = np.load(self.folder / row["image"], allow_pickle=False)
            hw = (int(image.shape[0]), int(image.shape[1]))
            masks = [validate(rle, hw) for rle in row["rles"]]
        except (BadInput, ValueError, KeyError, TypeError, OSError) as error:
            raise BadInput(
                f"line {index + 1} of {self.folder}/samples.jsonl cannot be read: {error}"
            ) from error
        return Sample(
            image,
            masks,
            float(row.get("weight", 1.0)),
            bool(row.get("human", True)),
            str(row.get("group", "")),
        )


@dataclass(frozen=True)
class Mixture:
    """Draws from several sources in the given shares: number i picks its source and sample from seed i.

    Used to keep some generated scenes among a user's own pictures, so that fine-tuning does not forget.
    """

    parts: tuple[Samples, ...]
    shares: tuple[float, ...]

    def __len__(self) -> int:
        return 1 << 31

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        part = self.parts[int(rng.choice(len(self.parts), p=np.array(self.shares) / sum(self.shares)))]
        return part[int(rng.integers(len(part)))]


def write_folder(samples: Iterable[Sample], folder: Path) -> int:
    """Writes the folder that `FolderSamples` reads; returns the number of pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, sample in enumerate(samples):
        np.save(folder / f"{number:06d}.npy", sample.image)
        rles = [encode(mask) if isinstance(mask, np.ndarray) else mask for mask in sample.masks]
        row = {"image": f"{number:06d}.npy", "rles": rles, "human": sample.human, "group": sample.group}
        lines.append(json.dumps(row | {"weight": sample.weight}))
    (folder / "samples.jsonl").write_text("".join(line + "\n" for line in lines))
    return len(lines)
