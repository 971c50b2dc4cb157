"""What the model costs beside its plain form: encoder, decoder, a click in onnxruntime, a training step.

python -m bench.model            the table of docs/performance.md, about ten minutes on two cores
python -m bench.model --quick    the same on sizes that say nothing, in seconds
"""

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import plain
from bench.pairs import MOST_DRIFT, Goal, Row, as_json, as_table, gemm_gflops, in_pairs, machine
from engine.geometry.rle import Rle, decode
from engine.geometry.runs import format_runs
from engine.modeling import Sam, SamConfig, build_sam
from engine.modeling.onnx import export_decoder
from engine.modeling.onnx_predictor import DecoderSession
from engine.modeling.prompts import labelled_points, to_model_frame
from engine.modeling.sam_config import CONFIGS, TinyVitConfig, VitConfig
from engine.modeling.upscale_region import RegionUpscaler
from engine.training.losses import LossWeights
from engine.training.prompts import PromptRules
from engine.training.recipes import RECIPES
from engine.training.steps import Batch, take_step

# PERFORMANCE section 8: P3 and P10; the last is the issue's own.
ENCODER, CLICK, TRAINING = Goal(1.3, 1.8), Goal(3, 4), Goal(10)
EQUAL = 1e-4
PICTURE_HW = (1500, 2250)
N_MASKS = 32
CONFIGS_MEASURED = ("vit_b", "tiny")
# As the generator takes its points on a CPU, and as the official one takes them.
OURS_AT_A_TIME, PLAIN_AT_A_TIME = 4, 64
SMALL = {
    "vit_b": SamConfig(
        "vit_b", 128, VitConfig(48, 4, 3, (1, 3), 5), prompt_dim=32, mlp_dim=64, iou_hidden=32
    ),
    "tiny": SamConfig(
        "tiny",
        128,
        TinyVitConfig((16, 16, 32, 32), (1, 1, 2, 1), (1, 1, 2, 2), (4, 4, 5, 4)),
        prompt_dim=32,
        mlp_dim=64,
        iou_hidden=32,
        detail_channels=4,
    ),
}


@dataclass(frozen=True)
class Plan:
    """Sizes of one run of the benchmark; `train_px` is the side of the picture that ViT-B is trained on."""

    configs: dict[str, SamConfig]
    n_pairs: int
    n_clicks: int
    n_masks: int
    n_prompts: int
    picture_hw: tuple[int, int]
    train_px: int
    clock: Callable[[], float]


def planned(asked: argparse.Namespace) -> Plan:
    """The plan of a run; a quick one ends in seconds and its ratios mean nothing."""
    clock = time.process_time if asked.busy else time.perf_counter
    if asked.quick:
        sizes = {name: SMALL[name] for name in asked.model or SMALL}
        return Plan(sizes, 1, 1, 3, 5, (60, 90), 128, clock)
    sizes = {name: CONFIGS[name] for name in asked.model or CONFIGS_MEASURED}
    n_pairs = asked.pairs
    return Plan(sizes, n_pairs, 4 * n_pairs, N_MASKS, PLAIN_AT_A_TIME, PICTURE_HW, asked.train_px, clock)


def seeded(config: SamConfig) -> Sam:
    """Random weights; what is built as zeros is drawn too, since a bias of zeros compares nothing."""
    sam, generator = build_sam(config, seed=0), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in sam.named_parameters():
            if any(part in name for part in ("rel_pos", "pos_embed", "attention_biases", "bias")):
                weight.normal_(0, 0.1, generator=generator)
    return sam


def worst(ours: Sequence[Tensor], theirs: Sequence[Tensor], what: str) -> float:
    """Largest difference; a way that answers otherwise is not measured."""
    largest = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    if not largest <= EQUAL:
        sys.exit(f"{what}: the two ways differ by {largest:.1e}, more than {EQUAL:g}; nothing was measured")
    return largest


def encoder_rows(plan: Plan) -> Iterator[Row]:
    """One picture through the image encoder."""
    for name, config in plan.configs.items():
        yield encoder_row(config, plan, ENCODER if name == "vit_b" else None)


@torch.inference_mode()
def encoder_row(config: SamConfig, plan: Plan, goal: Goal | None) -> Row:
    """Noise of the model's own size, torch on all cores."""
    encoder, side = seeded(config).image_encoder, config.img_size
    what, x = f"encoder, {config.name} {side} px", torch.randn(1, 3, side, side)
    differ = worst([encoder(x)], [plain.encode(encoder, x)], what)
    times = in_pairs(lambda: encoder(x), lambda: plain.encode(encoder, x), plan.n_pairs, plan.clock)
    return Row(what, "ms", *times, goal, differ)


def decoder_rows(plan: Plan) -> Iterator[Row]:
    """One prompt, and as many as the official generator takes at once, which ours takes four by four."""
    for config in plan.configs.values():
        yield decoder_row(config, 1, plan)
        yield decoder_row(config, plan.n_prompts, plan)


@torch.inference_mode()
def decoder_row(config: SamConfig, n_prompts: int, plan: Plan) -> Row:
    """Four masks for each prompt, torch on all cores; milliseconds per prompt."""
    sam, grid = seeded(config), config.embedding_grid
    image = torch.randn(1, config.embedding_channels, grid, grid), sam.prompt_encoder.get_dense_pe()
    coords = torch.rand(n_prompts, 1, 2) * config.img_size
    sparse, dense = sam.prompt_encoder((coords, torch.ones(n_prompts, 1)), None, None)

    def ours() -> list[Tensor]:
        few = zip(sparse.split(OURS_AT_A_TIME), dense.split(OURS_AT_A_TIME), strict=True)
        answers = [sam.mask_decoder.predict_masks(*image, *prompts) for prompts in few]
        return [torch.cat(part) for part in zip(*answers, strict=True)]

    def theirs() -> tuple[Tensor, Tensor]:
        return plain.decode(sam.mask_decoder, *image, sparse, dense)

    what = f"decoder, {config.name}, of {n_prompts} prompt" + "s" * (n_prompts > 1)
    differ = worst(ours(), theirs(), what)
    times = in_pairs(ours, theirs, plan.n_pairs, plan.clock, (n_prompts, n_prompts))
    return Row(what, "ms", *times, None, differ)


def click_rows(plan: Plan) -> Iterator[Row]:
    """One click on one thread of onnxruntime. The plain graph scales four masks to the picture; ours is
    measured to its answer, and to the runs of the three masks that a click offers at the picture's size."""
    for name, config in plan.configs.items():
        yield from clicks_of(config, plan, CLICK if name == "vit_b" else None)


def clicks_of(config: SamConfig, plan: Plan, goal: Goal | None) -> list[Row]:
    """The two rows of one model."""
    sam, picture_hw = seeded(config), plan.picture_hw
    session = DecoderSession(export_decoder(sam, n_checked_points=2), config)
    answer = plain_click(sam, picture_hw)
    shape = (config.embedding_channels, config.embedding_grid, config.embedding_grid)
    embedding = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    points = np.array([[picture_hw[1] * 0.4, picture_hw[0] * 0.6]], np.float32)
    labels = np.ones(1, np.float32)

    def low() -> tuple[np.ndarray, np.ndarray]:
        return session.run(embedding, picture_hw, points, labels)

    upscaler = RegionUpscaler(config, picture_hw)

    def full() -> list[np.ndarray]:
        return [upscaler.mask_of(logits)[0] for logits in low()[0][1:]]

    def theirs() -> list[np.ndarray]:
        return answer(embedding, points, labels)

    masks, scores, logits = (torch.from_numpy(part[0]) for part in theirs())
    what = f"click, {config.name}, 1 thread"
    differ = worst([torch.from_numpy(part) for part in low()], [logits, scores], what)
    for runs, wanted in zip(full(), masks[1:], strict=True):
        mask = torch.from_numpy(decode(Rle(size=list(picture_hw), counts=format_runs(runs))))
        if (mask != (wanted > 0))[wanted.abs() > EQUAL].any():
            sys.exit(f"{what}: the two ways give different masks; nothing was measured")
    size = f"three masks of {picture_hw[1]} x {picture_hw[0]}"
    return [
        Row(f"{what}, to logits", "ms", *in_pairs(low, theirs, plan.n_clicks, plan.clock), goal, differ),
        Row(f"{what}, to {size}", "ms", *in_pairs(full, theirs, plan.n_clicks, plan.clock), goal, differ),
    ]


def plain_click(sam: Sam, picture_hw: tuple[int, int]) -> Callable[..., list[np.ndarray]]:
    """The plain decoder in onnxruntime: embedding, point and label -> full-size masks, scores, logits."""
    config = sam.config
    grid, side = config.embedding_grid, config.logits_size
    example = (
        torch.randn(1, config.embedding_channels, grid, grid),
        torch.rand(1, 2, 2) * config.img_size,
        torch.tensor([[1.0, -1.0]]),
        torch.zeros(1, 1, side, side),
        torch.zeros(1),
    )
    session = one_thread_session(plain.ClickGraph(sam, picture_hw).eval(), example)
    names = [put.name for put in session.get_inputs()]
    no_mask = [np.zeros((1, 1, side, side), np.float32), np.zeros(1, np.float32)]

    def click(embedding: np.ndarray, points: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        coords, padded = labelled_points(points, labels, None)
        coords = to_model_frame(coords, picture_hw, config.input_hw(picture_hw))
        return session.run(None, dict(zip(names, [embedding[None], coords, padded, *no_mask], strict=True)))

    return click


def one_thread_session(graph: nn.Module, example: tuple[Tensor, ...]) -> onnxruntime.InferenceSession:
    """`graph` exported with the sizes of `example` and loaded as DecoderSession loads its own."""
    written = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        program = torch.onnx.export(graph, example, opset_version=20, dynamo=True, verbose=False)
        logging.disable(logging.NOTSET)
    program.save(written)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(written.getvalue(), options, providers=["CPUExecutionProvider"])


def training_rows(plan: Plan) -> Iterator[Row]:
    """Forward and backward of one picture with all its masks, against encoding it for every mask."""
    finetune = replace(RECIPES["finetune"][0].prompts, spoilt_share=0.0)
    for name, config in plan.configs.items():
        sized = replace(config, img_size=plan.train_px) if name == "vit_b" else config
        for rules in (replace(finetune, rounds=1), finetune, PromptRules()):
            yield training_row(sized, rules, plan)


def training_row(config: SamConfig, rules: PromptRules, plan: Plan) -> Row:
    """Masks per second of the trainer's step, the optimizer's own part left out on both sides."""
    sam = seeded(config).train()
    ours, theirs = (step_on(sam, drawn(config, n), rules) for n in (plan.n_masks, 1))
    times = in_pairs(ours, theirs, plan.n_pairs, plan.clock, (plan.n_masks, 1))
    rounds = f"{rules.rounds} round" + "s" * (rules.rounds > 1)
    what = f"training, {config.name} {config.img_size} px, {plan.n_masks} masks a picture, {rounds}"
    return Row(what, "masks/s", *times, TRAINING)


def drawn(config: SamConfig, n_masks: int) -> Batch:
    """One picture of noise and so many discs on it."""
    rng, side = np.random.default_rng(0), config.img_size
    y, x = np.mgrid[:side, :side]
    centres, radii = rng.uniform(0.2, 0.8, (n_masks, 2)) * side, rng.uniform(0.05, 0.2, n_masks) * side
    discs = np.stack(
        [(x - cx) ** 2 + (y - cy) ** 2 < r**2 for (cx, cy), r in zip(centres, radii, strict=True)]
    )
    images = torch.from_numpy(rng.uniform(0, 255, (1, 3, side, side)).astype(np.float32))
    targets = F.avg_pool2d(torch.from_numpy(discs).float()[None], 4)[0]
    return Batch(images, torch.ones(1, 1, side, side), discs, targets, (0, 0))


def step_on(sam: Sam, batch: Batch, rules: PromptRules) -> Callable[[], None]:
    """The trainer's own step, gradients thrown away; the same prompts at every call."""

    def step() -> None:
        take_step(sam, None, batch, rules, LossWeights(), 0.0, len(batch.masks), np.random.default_rng(0))
        sam.zero_grad(set_to_none=True)

    return step


PARTS = {"encoder": encoder_rows, "decoder": decoder_rows, "click": click_rows, "training": training_rows}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints a line per row on stderr as it comes, then the table."""
    asked = _parser().parse_args(arguments)
    plan = planned(asked)
    if asked.busy:
        torch.set_num_threads(1)
    before, ran_on, rows = gemm_gflops(plan.clock), machine(), []
    for part in asked.only or PARTS:
        for row in PARTS[part](plan):
            rows.append(row)
            print(" ".join(row.cells()), file=sys.stderr, flush=True)
    after = gemm_gflops(plan.clock)
    if asked.json:
        notes = {"machine": ran_on, "gemm_gflops_before": before, "gemm_gflops_after": after}
        asked.json.write_text(as_json(rows, notes) + "\n")
    seconds = "of the processor" if asked.busy else "by the clock"
    print(f"{as_table(rows)}\n\n{ran_on}; seconds {seconds}.")
    print(f"GEMM {before:.0f} GFLOP/s before, {after:.0f} after.")
    if abs(after / before - 1) > MOST_DRIFT:
        print("The machine's own speed moved by more than 30 % meanwhile: repeat the run.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.model", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="very small sizes: whether it runs, not how fast")
    add("--busy", action="store_true", help="one thread, and seconds of the processor")
    add("--only", action="append", choices=PARTS, help="one part; may be given again")
    add("--model", action="append", choices=CONFIGS_MEASURED, help="one model; may be given again")
    add("--pairs", type=int, default=5, metavar="N", help="pairs a row; clicks take four times as many")
    add("--train-px", type=int, default=512, metavar="PX", help="picture side of ViT-B's training rows")
    add("--json", type=Path, metavar="FILE", help="every pair, for other programs")
    return parser


if __name__ == "__main__":
    main()
