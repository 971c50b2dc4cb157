"""The exported decoder in numpy and onnxruntime: prediction for the page. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from engine.errors import BadInput, Unavailable
from engine.geometry.quality import stability_score
from engine.modeling.prompts import (
    Candidates,
    Floats,
    Prompt,
    check_prompts,
    labelled_points,
    to_model_frame,
)
from engine.modeling.prompts import fold as fold_prompts
from engine.modeling.sam_config import SamConfig
from engine.modeling.upscale import upscale_logits

__all__ = ["Candidates", "DecoderSession", "ImagePrompts", "fold", "stability_score", "upscale_logits"]

# onnxruntime's fused Add + LayerNormalization takes five times as long as the two apart, a sixth of a click
# (docs/onnx.md).
SESSION_ENTRIES = {"optimization.disable_specified_optimizers": "SkipLayerNormFusion"}


def loaded(onnx_model: bytes, n_threads: int, what: str) -> onnxruntime.InferenceSession:
    """A session on the CPU; Unavailable, naming `what` it should have been, if the bytes are no model."""
    options = onnxruntime.SessionOptions()
    # One thread: a second one stalls whenever a trainer holds the other core (PERFORMANCE section 9).
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for key, entry in SESSION_ENTRIES.items():
        options.add_session_config_entry(key, entry)
    try:
        return onnxruntime.InferenceSession(onnx_model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Unavailable(f"the exported {what} cannot be loaded: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph; a side that may vary has its name in the shape."""

    name: str
    type: str
    shape: tuple[int | str, ...]


def tensors_of(session: onnxruntime.InferenceSession) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs."""
    inputs, outputs = (
        [TensorSpec(one.name, one.type.removeprefix("tensor(").rstrip(")"), tuple(one.shape)) for one in some]
        for some in (session.get_inputs(), session.get_outputs())
    )
    return inputs, outputs


class DecoderSession:
    """One exported decoder, loaded. Safe to share between threads; each call runs on `n_threads` cores."""

    def __init__(self, onnx_model: bytes, config: SamConfig | Mapping[str, Any], n_threads: int = 1) -> None:
        self.config = config if isinstance(config, SamConfig) else SamConfig.from_dict(config)
        self._session = loaded(onnx_model, n_threads, "decoder")

    def run(
        self,
        embedding: Floats,
        original_hw: tuple[int, int],
        point_coords: Floats | None = None,
        point_labels: Floats | None = None,
        box: Floats | None = None,
        mask_input: Floats | None = None,
    ) -> tuple[Floats, Floats]:
        """All four tokens, the single mask first: logits (4, 4g, 4g) and IoU (4,).

        embedding (C, g, g) float32; point_coords (N, 2) and box (4,) in original pixels; mask_input (4g, 4g).
        """
        coords, labels = labelled_points(point_coords, point_labels, box)
        # Padding is scaled too; it is at 0, 0 and has no place anyway.
        coords = to_model_frame(coords, original_hw, self.config.input_hw(original_hw))
        return self.run_in_model_frame(embedding, coords, labels, mask_input)

    def run_in_model_frame(
        self, embedding: Floats, coords: Floats, labels: Floats, mask_input: Floats | None
    ) -> tuple[Floats, Floats]:
        """As `run`, with points (1, N, 2) already in the model frame and padded: the graph's own inputs."""
        side = self.config.logits_size
        # The graph wants a mask in any case; has_mask_input says whether it counts.
        mask = np.zeros((side, side), np.float32) if mask_input is None else mask_input
        logits, iou_predictions = self._session.run(
            ["low_res_logits", "iou_predictions"],
            {
                "image_embeddings": self._checked(embedding)[None],
                "point_coords": coords,
                "point_labels": labels,
                "mask_input": np.ascontiguousarray(mask, np.float32).reshape(1, 1, side, side),
                "has_mask_input": np.array([mask_input is not None], np.float32),
            },
        )
        return logits[0], iou_predictions[0]

    def _checked(self, embedding: Floats) -> Floats:
        wanted = (self.config.embedding_channels, self.config.embedding_grid, self.config.embedding_grid)
        if embedding.shape != wanted:
            raise BadInput(
                f"this model's image embedding has shape {wanted}, not {embedding.shape}; embed again"
            )
        return np.ascontiguousarray(embedding, np.float32)


class ImagePrompts:
    """One embedded image on a session: the PromptDecoder of the web process."""

    def __init__(self, session: DecoderSession, embedding: Floats, original_hw: tuple[int, int]) -> None:
        self.session, self.embedding, self.original_hw = session, embedding, original_hw

    def decode(
        self,
        point_coords: Floats | None,
        point_labels: Floats | None,
        box: Floats | None,
        mask_input: Floats | None,
        multimask_output: bool,
    ) -> tuple[Floats, Floats]:
        """See PromptDecoder."""
        logits, iou_predictions = self.session.run(
            self.embedding, self.original_hw, point_coords, point_labels, box, mask_input
        )
        kept = slice(1, None) if multimask_output else slice(0, 1)
        return logits[kept], iou_predictions[kept]


def fold(
    session: DecoderSession,
    embedding: Floats,
    original_hw: tuple[int, int],
    prompts: Sequence[Prompt],
    chosen: Sequence[int],
    previous: MutableMapping[str, Candidates] | None = None,
    answer: Floats | None = None,
) -> Candidates:
    """Checks `prompts` and folds them (engine/modeling/prompts.py) over one embedded image of (H, W)."""
    checked = check_prompts(list(prompts), original_hw)
    return fold_prompts(ImagePrompts(session, embedding, original_hw), checked, chosen, previous, answer)
