"""The sizes of a SAM, as plain numbers. Imports no torch: the web process reads model cards with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from engine.errors import BadInput

# Both encoders end at a sixteenth of the input side; the decoder goes back up by four.
STRIDE_PX = 16
UPSCALING = 4
# Beyond these no SAM was ever built: a file that asks for more is damaged, or means to fill the memory.
_LARGEST, _DEEPEST = 65_536, 256


def long_side_hw(original_hw: tuple[int, ...], long_side: int) -> tuple[int, int]:
    """Size (h, w) of an image of (H, W) once its long side is `long_side` pixels."""
    # int(x + 0.5), not round(): Python rounds halves to even, the official code rounds them up.
    scale = long_side * 1.0 / max(original_hw)
    # A sliver of one pixel in a million must still be a picture.
    height, width = (max(int(side * scale + 0.5), 1) for side in original_hw[:2])
    return height, width


@dataclass(frozen=True)
class VitConfig:
    """The official ViT image encoder: windows of `window_size`, global attention at the listed blocks."""

    embed_dim: int
    depth: int
    num_heads: int
    global_attn_indexes: tuple[int, ...]
    window_size: int = 14


@dataclass(frozen=True)
class TinyVitConfig:
    """MobileSAM's TinyViT: one entry per layer; layer 0 is convolutional, its window and heads are unused."""

    embed_dims: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    num_heads: tuple[int, int, int, int]
    window_sizes: tuple[int, int, int, int]
    # The classifier of TinyViT's pre-training; dead weight that MobileSAM's checkpoint still carries.
    n_classes: int = 0


@dataclass(frozen=True)
class SamConfig:
    """Every size of one model; `name` is the card's architecture. Nobody may assume 1024, 64 or 256."""

    name: str
    img_size: int
    encoder: VitConfig | TinyVitConfig
    prompt_dim: int = 256
    mlp_dim: int = 2048
    iou_hidden: int = 256
    decoder_depth: int = 2
    decoder_heads: int = 8
    num_multimask_outputs: int = 3
    mask_in_chans: int = 16
    # Channels at stride 4 that go past the transformer to the mask's last step; 0 in the official models.
    detail_channels: int = 0
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        if self.img_size <= 0 or self.img_size % STRIDE_PX:
            raise BadInput(f"img_size must be a positive multiple of {STRIDE_PX}, not {self.img_size}")
        if self.prompt_dim % (2 * self.decoder_heads):
            raise BadInput(f"prompt_dim {self.prompt_dim} must divide by {2 * self.decoder_heads}")
        if self.detail_channels and isinstance(self.encoder, VitConfig):
            raise BadInput("a ViT has no features at stride 4: set detail_channels to 0")

    @property
    def embedding_grid(self) -> int:
        """Side of the image embedding: it has shape (embedding_channels, grid, grid)."""
        return self.img_size // STRIDE_PX

    @property
    def embedding_channels(self) -> int:
        """What the transformer reads, then the detail of each cell's 4 x 4 logits, folded into channels."""
        return self.prompt_dim + UPSCALING**2 * self.detail_channels

    @property
    def logits_size(self) -> int:
        """Side of the low resolution logits, four times the grid."""
        return UPSCALING * self.embedding_grid

    @property
    def num_mask_tokens(self) -> int:
        """The ambiguity masks and the single one, which is token 0."""
        return self.num_multimask_outputs + 1

    def input_hw(self, original_hw: tuple[int, int]) -> tuple[int, int]:
        """Size of an image of `original_hw` once its long side is `img_size` (official ResizeLongestSide)."""
        return long_side_hw(original_hw, self.img_size)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` takes it back. Derived sizes are written for readers in other languages."""
        kind = "vit" if isinstance(self.encoder, VitConfig) else "tiny_vit"
        return asdict(self) | {
            "encoder": {"kind": kind} | asdict(self.encoder),
            # The page reads these two and never derives them.
            "embedding_channels": self.embedding_channels,
            "embedding_grid": self.embedding_grid,
            "logits_size": self.logits_size,
        }

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> SamConfig:
        """Reads what `to_dict` wrote, through JSON or not. Raises BadInput on unknown or missing names."""
        sizes = {key: _frozen(value) for key, value in written.items() if key not in _DERIVED}
        encoder = sizes.pop("encoder", None)
        if not isinstance(encoder, Mapping) or encoder.get("kind") not in _ENCODERS:
            raise BadInput(f"the model config needs an encoder of kind {' or '.join(_ENCODERS)}")
        encoder_sizes = {key: _frozen(value) for key, value in encoder.items() if key != "kind"}
        made = _construct(_ENCODERS[encoder["kind"]], encoder_sizes)
        config: SamConfig = _construct(cls, sizes | {"encoder": made})
        return config


_DERIVED = ("embedding_channels", "embedding_grid", "logits_size")
_ENCODERS: dict[str, type] = {"vit": VitConfig, "tiny_vit": TinyVitConfig}


def _frozen(value: Any) -> Any:
    # JSON knows no tuples, and a frozen config must hash.
    return tuple(value) if isinstance(value, list) else value


def _construct(kind: Any, sizes: Mapping[str, Any]) -> Any:
    unknown = sorted(set(sizes) - {field.name for field in fields(kind)})
    if unknown:
        raise BadInput(f"unknown names in the model config: {', '.join(unknown)}")
    for name, value in sizes.items():
        if not _is_plausible(name, value):
            raise BadInput(f"{name} in the model config cannot be {str(value)[:60]!r}")
    try:
        return kind(**sizes)
    except TypeError as error:
        raise BadInput(f"the model config is incomplete: {error}") from error


def _is_plausible(name: str, value: Any) -> bool:
    """Whether a size read from a file is a whole number, or several, that a model can be built with."""
    if name in ("name", "encoder", "pixel_mean", "pixel_std"):
        return name != "name" or isinstance(value, str)
    several = value if isinstance(value, tuple) else (value,)
    least = 0 if name in ("n_classes", "detail_channels", "global_attn_indexes") else 1
    most = _DEEPEST if "depth" in name or name == "global_attn_indexes" else _LARGEST
    return len(several) <= _DEEPEST and all(type(one) is int and least <= one <= most for one in several)


def _vit(name: str, embed_dim: int, depth: int, num_heads: int, every: int) -> SamConfig:
    global_attn_indexes = tuple(range(every - 1, depth, every))
    return SamConfig(name, 1024, VitConfig(embed_dim, depth, num_heads, global_attn_indexes))


# The paper's ViT-B, L and H (appendix A), MobileSAM, and ours: small enough to train and click on two cores.
CONFIGS: dict[str, SamConfig] = {
    "vit_b": _vit("vit_b", 768, 12, 12, every=3),
    "vit_l": _vit("vit_l", 1024, 24, 16, every=6),
    "vit_h": _vit("vit_h", 1280, 32, 16, every=8),
    "mobile": SamConfig(
        "mobile", 1024, TinyVitConfig((64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7), 1000)
    ),
    "tiny": SamConfig(
        "tiny",
        512,
        TinyVitConfig((32, 64, 128, 192), (1, 2, 4, 2), (1, 2, 4, 6), (8, 8, 16, 8)),
        prompt_dim=128,
        mlp_dim=512,
        iou_hidden=128,
        detail_channels=8,
    ),
}
