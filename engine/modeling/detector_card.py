"""What a detector's weights file says of itself. Imports no torch: pages and reports read it too."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from engine.errors import BadInput
from engine.modeling.sam_config import STRIDE_PX, SamConfig

FORMAT = "maskloop-detector-1"
CARD_KEY = "detector"  # one entry only: safetensors orders several differently in every process
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class DetectorConfig:
    """Every size of one detector; the first three are those of the image embedding that it reads."""

    embedding_channels: int
    embedding_grid: int
    detail_channels: int  # of those, folded 4 x 4 at stride 4 behind the others; 0 in the official models
    width: int = 64
    fine_width: int = 32  # at stride 8 a channel costs four times as much
    coarse_blocks: int = 4
    fine_blocks: int = 2

    def __post_init__(self) -> None:
        sizes = [getattr(self, field.name) for field in fields(self) if field.name != "detail_channels"]
        if any(type(size) is not int or size < 1 for size in sizes) or self.detail_channels < 0:
            raise BadInput("a detector's sizes are whole numbers of at least 1: take DetectorConfig.of_model")
        if self.width % 8 or self.fine_width % 8:
            raise BadInput("a detector's widths must divide by 8: its norms have 8 groups")

    @classmethod
    def of_model(cls, config: SamConfig, **sizes: int) -> DetectorConfig:
        """The detector for embeddings of that model; `sizes` change width or blocks."""
        return cls(config.embedding_channels, config.embedding_grid, config.detail_channels, **sizes)

    @property
    def frame_px(self) -> int:
        """Side of the model frame, in which boxes are predicted."""
        return self.embedding_grid * STRIDE_PX

    def check_embedding(self, shape: tuple[int, ...]) -> None:
        """Raises BadInput unless (C, g, g) is what this detector reads."""
        expected = (self.embedding_channels, self.embedding_grid, self.embedding_grid)
        if tuple(shape) != expected:
            raise BadInput(
                f"this detector reads embeddings {expected}, not {tuple(shape)}: train one for this model"
            )


@dataclass(frozen=True)
class DetectorCard:
    """Config, and where the weights come from. `encoder_sha256`: digest of the model's weights file whose
    embeddings it reads. `threshold`: lowest score that is prefilled, None where none keeps the promise."""

    config: DetectorConfig
    encoder_sha256: str
    threshold: float | None
    recipe: str
    seed: int
    steps: int

    def to_json(self) -> str:
        """One line with sorted keys: equal cards are equal bytes."""
        return json.dumps({"format": FORMAT} | asdict(self), sort_keys=True)

    def check_encoder(self, encoder_sha256: str) -> None:
        """Raises BadInput unless the embeddings come from the weights that this detector learned on."""
        if encoder_sha256 != self.encoder_sha256:
            raise BadInput(
                f"this detector reads embeddings of model {self.encoder_sha256[:12]}, not of "
                f"{encoder_sha256[:12]}: train a detector for the new model"
            )


def read_detector_card(content: bytes) -> DetectorCard:
    """The card in a file that `save_detector` wrote, from its bytes or their beginning; raises BadInput."""
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if not 2 <= length <= len(content) - _LENGTH_BYTES:
        raise BadInput("the detector is not a whole safetensors file: copy it again")
    try:
        header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
        written = json.loads(header["__metadata__"][CARD_KEY])
        if written.pop("format") != FORMAT:
            raise ValueError("another format")
        return _card(written)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadInput("the weights carry no detector card: give a detector that Maskloop trained") from None


def _card(written: dict[str, Any]) -> DetectorCard:
    return DetectorCard(**written | {"config": DetectorConfig(**written["config"])})
