"""Export of prompt encoder and mask decoder to ONNX, checked against torch before it leaves."""

from __future__ import annotations

import json
import logging
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from engine.errors import Unavailable
from engine.modeling.onnx_predictor import DecoderSession
from engine.modeling.prompts import MAX_PROMPTS, Floats, labelled_points
from engine.modeling.sam import Sam

OPSET = 20
TOLERANCE = 1e-3
INPUTS = ("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input")
OUTPUTS = ("low_res_logits", "iou_predictions")


def export_decoder(sam: Sam, n_checked_points: int = 20) -> bytes:
    """One self-contained ONNX file: the inputs and outputs of `DecoderGraph`, N from 1 to 66 points.

    Its metadata holds the model's config. Raises Unavailable if onnxruntime's answer differs from torch's by
    more than 1e-3 for any number of points from 1 to `n_checked_points`, with and without a mask.
    """
    # A trainer may call this in the middle of its run: leave the model as it was.
    device, training = sam.device, sam.training
    sam.to("cpu").eval()
    try:
        onnx_model = _exported(sam)
        worst = largest_difference(sam, onnx_model, n_checked_points)
    finally:
        sam.to(device).train(training)
    # Written so that NaN fails too.
    if not worst <= TOLERANCE:
        raise Unavailable(f"the exported decoder differs from torch by {worst:.2g}; it was not written")
    return onnx_model


class DecoderGraph(nn.Module):
    """What is exported. All four tokens come out, at low resolution: the caller chooses and scales."""

    image_pe: Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder
        self.register_buffer("image_pe", sam.prompt_encoder.get_dense_pe().detach(), persistent=False)

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """(1, C, g, g), (1, N, 2) model-frame px, (1, N), (1, 1, 4g, 4g), (1,) -> (1, 4, 4g, 4g), (1, 4)."""
        sparse = self.prompt_encoder.embed_points(point_coords, point_labels)
        no_mask = self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        # `where`, not a product: a NaN in an unused mask must not spread.
        given = has_mask_input.reshape(1, 1, 1, 1) > 0
        dense = torch.where(given, self.prompt_encoder.embed_mask(mask_input), no_mask)
        return self.mask_decoder.predict_masks(image_embeddings, self.image_pe, sparse, dense)


def largest_difference(sam: Sam, onnx_model: bytes, n_points: int, seed: int = 0) -> float:
    """Largest absolute difference from torch, over prompts of 1 to `n_points` random points."""
    session = DecoderSession(onnx_model, sam.config)
    rng = np.random.default_rng(seed)
    embedding = rng.standard_normal(
        (sam.config.embedding_channels, *[sam.config.embedding_grid] * 2), dtype=np.float32
    )
    worst = 0.0
    for n in range(1, n_points + 1):
        coords = rng.uniform(0, sam.config.img_size, (n, 2)).astype(np.float32)
        labels = rng.integers(0, 2, n).astype(np.float32)
        box = (
            np.sort(rng.uniform(0, sam.config.img_size, (2, 2)), axis=0).astype(np.float32)
            if n % 3 == 0
            else None
        )
        mask = rng.standard_normal([sam.config.logits_size] * 2, dtype=np.float32) if n % 2 == 0 else None
        ours = session.run_in_model_frame(embedding, *labelled_points(coords, labels, box), mask)
        worst = max(worst, *_differences(ours, _torch_answer(sam, embedding, coords, labels, box, mask)))
    return worst


def _exported(sam: Sam) -> bytes:
    # 64 prompts, of which one may be a box of two corners, or padding.
    n_points = torch.export.Dim("n_points", min=1, max=MAX_PROMPTS + 2)
    with warnings.catch_warnings(), _quiet_exporter():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            DecoderGraph(sam).eval(),
            _example(sam),
            input_names=INPUTS,
            output_names=OUTPUTS,
            dynamic_shapes=({}, {1: n_points}, {1: n_points}, {}, {}),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    note = proto.metadata_props.add()
    note.key, note.value = "config", json.dumps(sam.config.to_dict(), sort_keys=True)
    serialized: bytes = proto.SerializeToString()
    return serialized


def _example(sam: Sam) -> tuple[Tensor, ...]:
    grid, side = sam.config.embedding_grid, sam.config.logits_size
    return (
        torch.randn(1, sam.config.embedding_channels, grid, grid),
        torch.rand(1, 5, 2) * sam.config.img_size,
        torch.tensor([[1.0, 0.0, 2.0, 3.0, -1.0]]),
        torch.randn(1, 1, side, side),
        torch.ones(1),
    )


@torch.inference_mode()
def _torch_answer(
    sam: Sam, embedding: Floats, coords: Floats, labels: Floats, box: Floats | None, mask: Floats | None
) -> tuple[Floats, Floats]:
    points = torch.as_tensor(coords)[None], torch.as_tensor(labels)[None]
    sparse, dense = sam.prompt_encoder(
        points,
        None if box is None else torch.as_tensor(box).reshape(1, 4),
        None if mask is None else torch.as_tensor(mask)[None, None],
    )
    image_pe = sam.prompt_encoder.get_dense_pe()
    logits, iou = sam.mask_decoder.predict_masks(torch.as_tensor(embedding)[None], image_pe, sparse, dense)
    return logits[0].numpy(), iou[0].numpy()


def _differences(ours: tuple[Floats, Floats], theirs: tuple[Floats, Floats]) -> list[float]:
    return [float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)]


class _quiet_exporter:
    """The exporter logs every step at INFO and WARNING; a training job's log is no place for it."""

    def __enter__(self) -> None:
        self.loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
        self.levels = [logger.level for logger in self.loggers]
        for logger in self.loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)
