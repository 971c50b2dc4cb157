"""Export of prompt encoder and mask decoder to ONNX, checked against torch before it leaves."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from engine.errors import Unavailable
from engine.modeling.onnx_predictor import DecoderSession
from engine.modeling.prompts import MAX_PROMPTS, Floats, labelled_points
from engine.modeling.sam import Sam
from engine.modeling.sam_config import SamConfig

OPSET = 20
TOLERANCE = 1e-3
INPUTS = ("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input")
OUTPUTS = ("low_res_logits", "iou_predictions")
SMALLER = ("fp16", "int8")
# What is large and multiplied. Positions are neither: an error of theirs would move the whole picture.
_FEWEST_WEIGHTS = 1024
_PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")


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

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder

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
        # Computed in the graph: written out it would be a fifth of an official decoder's file. onnxruntime
        # computes it once, when it loads.
        image_pe = self.prompt_encoder.get_dense_pe()
        return self.mask_decoder.predict_masks(image_embeddings, image_pe, sparse, dense)


def largest_difference(sam: Sam, onnx_model: bytes, n_points: int, seed: int = 0) -> float:
    """Largest absolute difference from torch, over prompts of 1 to `n_points` random points."""
    session = DecoderSession(onnx_model, sam.config)
    rng = np.random.default_rng(seed)
    embedding = rng.standard_normal(
        (sam.config.embedding_channels, *[sam.config.embedding_grid] * 2), dtype=np.float32
    )
    differences = []
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
        differences += _differences(ours, _torch_answer(sam, embedding, coords, labels, box, mask))
    # numpy's maximum keeps a NaN, Python's loses it.
    return float(np.max(differences))


def traced(
    graph: nn.Module,
    example: tuple[Tensor, ...],
    names: tuple[Sequence[str], Sequence[str]],
    dynamic_shapes: tuple[Any, ...],
    config: SamConfig,
) -> bytes:
    """`graph` as one ONNX file with the model's config in its metadata; `names` are those of its inputs and
    outputs. Nothing is compared here."""
    with warnings.catch_warnings(), _quiet_exporter():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.eval(),
            example,
            input_names=names[0],
            output_names=names[1],
            dynamic_shapes=dynamic_shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    serialized: bytes = _without_origin(program.model_proto, config).SerializeToString()
    return serialized


def _without_origin(proto: onnx.ModelProto, config: SamConfig) -> onnx.ModelProto:
    """The exporter notes at every node which line of which file on this machine it came from: a tenth of a
    small decoder, and nobody else's business."""
    for noted in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del noted.metadata_props[:]
        noted.doc_string = ""
    del proto.graph.metadata_props[:], proto.metadata_props[:]
    note = proto.metadata_props.add()
    note.key, note.value = "config", json.dumps(config.to_dict(), sort_keys=True)
    return proto


def with_smaller_weights(onnx_model: bytes, kind: str) -> bytes:
    """The same graph with its large weights stored as "fp16", or as "int8" with a scale per channel.

    Only the file is smaller: each weight is widened to float32 when the file is loaded, so no kernel for
    small types is needed and a click takes as long. Weights that were float16 before stay what they were.
    """
    proto = onnx.load_from_string(onnx_model)
    multiplied = {name for node in proto.graph.node if node.op_type in _PRODUCTS for name in node.input}
    widening: list[onnx.NodeProto] = []
    for weight in list(proto.graph.initializer):
        is_float = weight.data_type == onnx.TensorProto.FLOAT
        if is_float and weight.name in multiplied and math.prod(weight.dims) >= _FEWEST_WEIGHTS:
            stored, nodes = (_as_half if kind == "fp16" else _as_int8)(weight)
            proto.graph.initializer.remove(weight)
            proto.graph.initializer.extend(stored)
            widening += nodes
    nodes = [*widening, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    smaller: bytes = proto.SerializeToString()
    return smaller


def _as_half(weight: onnx.TensorProto) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    with np.errstate(over="ignore"):  # an infinite weight shows in the masks, which are compared
        half = onnx.numpy_helper.to_array(weight).astype(np.float16)
    name = f"{weight.name}.fp16"
    return [onnx.numpy_helper.from_array(half, name)], [_to_float(name, weight.name)]


def _as_int8(weight: onnx.TensorProto) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    values = onnx.numpy_helper.to_array(weight)
    integers, scale = min(_rounded(values), key=lambda found: np.square(found[0] * found[1] - values).sum())
    name, wide = f"{weight.name}.int8", f"{weight.name}.wide"
    widened = onnx.helper.make_node("Mul", [wide, f"{name}.scale"], [weight.name])
    stored = [
        onnx.numpy_helper.from_array(integers.astype(np.int8), name),
        onnx.numpy_helper.from_array(scale, f"{name}.scale"),
    ]
    return stored, [_to_float(name, wide), widened]


def _rounded(values: Floats) -> Iterator[tuple[Floats, Floats]]:
    """(integers, scale) with a scale for each place along the first axis, then along the second: which of
    them is the output differs by operator."""
    for axis in (0, 1):
        others = tuple(other for other in range(values.ndim) if other != axis)
        scale = np.maximum(np.abs(values).max(axis=others, keepdims=True), 1e-12) / np.float32(127)
        yield np.rint(values / scale), scale.astype(np.float32)


def _to_float(stored: str, wide: str) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [stored], [wide], to=onnx.TensorProto.FLOAT)


def _exported(sam: Sam) -> bytes:
    # 64 prompts, of which one may be a box of two corners, or padding.
    n_points = torch.export.Dim("n_points", min=1, max=MAX_PROMPTS + 2)
    shapes: tuple[dict[int, Any], ...] = ({}, {1: n_points}, {1: n_points}, {}, {})
    return traced(DecoderGraph(sam), _example(sam), (INPUTS, OUTPUTS), shapes, sam.config)


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
