"""The training loop, to be read in one sitting: plan, step, average, save, and the same again after a crash.

Everything random in step k is drawn from (seed, k), so a run that is killed and resumed ends with the same
bits (on one thread), and the saved state needs no generator. Several processes may share the work:
distributed.py says what they have in common; the loop reads the same.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.errors import BadInput
from engine.modeling.checkpoint import save_checkpoint
from engine.modeling.layers import set_drop_path
from engine.modeling.registry import build_sam, resolve_config
from engine.modeling.sam import Sam
from engine.training.dataset import Samples
from engine.training.distributed import ALONE, Ranks
from engine.training.grouping import GroupingHead
from engine.training.losses import LossWeights
from engine.training.optimizer import learning_rate, make_optimizer
from engine.training.pictures import Pixels, look
from engine.training.precision import has_bfloat16
from engine.training.prompts import PromptRules
from engine.training.state import load_state, pack, save_state, unpack
from engine.training.steps import StepReport, describe, draw_batch, take_step
from engine.training.views import ViewRules

MODEL_NAME = "model.safetensors"
PLANNING_STEPS = (4, 12)  # a time-boxed run plans after these: the first steps are slow, they fill caches


@dataclass(frozen=True)
class TrainConfig:
    """One recipe, whole: what is drawn, how it is prompted, how weights move. recipes.py has named ones."""

    recipe: str
    steps: int
    seed: int = 0
    n_images: int = 8
    n_masks: int = 8
    n_decoded: int = 64
    views: ViewRules = field(default_factory=ViewRules)
    whole_every: int = 0  # every so many steps the window is the whole frame; 0 is never
    prompts: PromptRules = field(default_factory=PromptRules)
    losses: LossWeights = field(default_factory=LossWeights)
    lr: float = 8e-4
    encoder_lr_scale: float = 1.0
    layer_decay: float = 1.0  # what the rate is multiplied by from one encoder layer to the one before
    warmup_steps: int = 250
    cooldown_share: float = 0.3
    lr_drops: tuple[float, ...] = ()  # instead of a cooldown: shares of the run after which a tenth is left
    drop_path: float = 0.0
    accumulate: int = 1  # batches whose gradients make one update, over all ranks
    bfloat16: bool = False  # where the machine computes in it; weights and losses stay float32
    decoder_depth: int | None = None  # layers of the mask decoder, for a run from random weights
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    freeze_norm: bool = False
    grouping: float = 0.0
    grouping_steps: int = 0
    max_seconds: float | None = None
    checkpoint_every: int = 100
    picture_every: int = 0  # steps between two pictures of what was learned; 0 is never


@dataclass(frozen=True)
class Progress:
    """Reported after every step: `step` of `steps` done, seconds spent in all segments, means of the step."""

    step: int
    steps: int
    elapsed_s: float
    report: StepReport
    recipe: str = ""


@dataclass
class Run:
    """A run in the making: the model, its average, the optimizer, and how far it has come."""

    sam: Sam
    head: GroupingHead
    ema: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    step: int = 0
    planned_steps: int = 0
    elapsed_s: float = 0.0

    @property
    def parts(self) -> nn.ModuleDict:
        """Model and helper head under one roof, as they are saved."""
        return nn.ModuleDict({"sam": self.sam, "head": self.head})


def train(
    config: TrainConfig,
    samples: Samples,
    start: Path | None,
    out_dir: Path,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    architecture: str | dict[str, Any] = "tiny",
    ranks: Ranks = ALONE,
    on_picture: Callable[[int, Pixels], None] | None = None,
) -> Path | None:
    """Trains until the plan is done and returns the written checkpoint of averaged weights.

    Starts from the weights at `start`, or from random ones of `architecture`; if `out_dir` holds the state of
    an unfinished run of the same recipe, goes on from there. Returns None when `should_stop` said so: the
    state is then saved, and calling again resumes. Raises BadInput if the samples cannot be used. `ranks`:
    every rank makes the same call, steps together and returns the same path.
    """
    if len(samples) == 0:
        raise BadInput("there is nothing to train on: the samples are empty")
    run = begin(config, start, out_dir, architecture, ranks.device)
    if ranks.decided(run.step >= run.planned_steps and (out_dir / MODEL_NAME).is_file()):
        return out_dir / MODEL_NAME
    began = time.monotonic() - run.elapsed_s
    while run.step < run.planned_steps:
        if ranks.decided(should_stop is not None and should_stop()):
            write_once(ranks, lambda: save_run(run, config, out_dir))
            return None
        report = advance(run, config, samples, ranks)
        run.elapsed_s = time.monotonic() - began
        replan(run, config)
        run.planned_steps = ranks.decided(run.planned_steps)
        if on_progress is not None and ranks.is_first:
            on_progress(Progress(run.step, run.planned_steps, run.elapsed_s, report, config.recipe))
        if on_picture is not None and ranks.is_first and is_every(run.step, config.picture_every):
            on_picture(run.step, look(run.sam, samples, config.views, config.prompts, config.seed))
        if is_every(run.step, config.checkpoint_every) or run.step == run.planned_steps:
            write_once(ranks, lambda: save_run(run, config, out_dir))
    write_once(ranks, lambda: write_model(run, config, out_dir))
    return out_dir / MODEL_NAME


def is_every(step: int, every: int) -> bool:
    """Whether the step is one of those that many apart; never for 0."""
    return every > 0 and step % every == 0


def write_once(ranks: Ranks, write: Callable[[], object]) -> None:
    """Rank 0 writes; nobody goes on before it has, so that all find the file."""
    if ranks.is_first:
        write()
    ranks.decided(0)


def begin(
    config: TrainConfig,
    start: Path | None,
    out_dir: Path,
    architecture: str | dict[str, Any] = "tiny",
    device: str = "cpu",
) -> Run:
    """A run at step 0, or where its saved state left it, on `device`."""
    torch.manual_seed(config.seed)
    wanted = None if start else sized(architecture, config.decoder_depth)
    sam = build_sam(wanted, checkpoint=start, seed=config.seed).to(device)
    if config.decoder_depth not in (None, sam.config.decoder_depth):
        raise BadInput(
            f"recipe {config.recipe} is for a decoder of {config.decoder_depth} layers, and {start} has"
            f" {sam.config.decoder_depth}: start from random weights or from such a model"
        )
    set_drop_path(sam.image_encoder, config.drop_path)
    head = GroupingHead(sam.config.embedding_channels).to(device)
    ema = {name: value.detach().clone() for name, value in sam.state_dict().items()}
    run = Run(sam, head, ema, make_optimizer(sam, head, config), planned_steps=config.steps)
    saved = load_state(out_dir)
    if saved is not None:
        tensors, progress = saved
        if progress["recipe"] != config.recipe:
            raise BadInput(f"{out_dir} holds a run of recipe {progress['recipe']!r}: give another folder")
        averaged = unpack(tensors, run.parts, run.optimizer)
        run.ema = {name: value.to(device) for name, value in averaged.items()}
        run.step, run.elapsed_s = int(progress["step"]), float(progress["elapsed_s"])
        run.planned_steps = int(progress["planned_steps"])
    return run


def sized(architecture: str | dict[str, Any], decoder_depth: int | None) -> str | dict[str, Any]:
    """The architecture with so many decoder layers, as the paper's generator has three."""
    if decoder_depth is None:
        return architecture
    return replace(resolve_config(architecture), decoder_depth=decoder_depth).to_dict()


def advance(run: Run, config: TrainConfig, samples: Samples, ranks: Ranks = ALONE) -> StepReport:
    """One optimizer step; all randomness comes from (seed, step, rank)."""
    rng = np.random.default_rng(ranks.seed_of(config.seed, run.step))
    torch.manual_seed(int(rng.integers(1 << 62)))
    set_mode(run.sam, config.freeze_norm)
    sam, rate = run.sam, learning_rate(run.step, run.planned_steps, config)
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
    n_batches = max(1, config.accumulate // ranks.count)
    reports = [accumulate(run, config, samples, rng) for _ in range(n_batches)]
    if n_batches > 1:
        for parameter in run.parts.parameters():
            if parameter.grad is not None:
                parameter.grad /= n_batches
    ranks.average_gradients(run.parts.parameters())
    nn.utils.clip_grad_norm_(run.parts.parameters(), config.clip_norm)
    run.optimizer.step()
    if not config.freeze_norm:
        ranks.average_statistics(sam)
    run.optimizer.zero_grad(set_to_none=True)
    run.step += 1
    update_average(run, config)
    means = np.mean([astuple(report) for report in reports], axis=0)
    return StepReport(*ranks.average(tuple(float(mean) for mean in means)))


def accumulate(run: Run, config: TrainConfig, samples: Samples, rng: np.random.Generator) -> StepReport:
    """Adds the gradients of one batch."""
    sam = run.sam
    views, n_images = step_views(config, run.step, sam.config.img_size)
    batch = draw_batch(samples, n_images, config.n_masks, sam.config.img_size, views, rng)
    # the helper's weight falls to nothing, so that the decoder alone shapes the end of training
    left = max(0.0, 1 - run.step / config.grouping_steps) if config.grouping_steps else 0.0
    return take_step(
        sam,
        run.head,
        batch,
        config.prompts,
        config.losses,
        config.grouping * left,
        config.n_decoded,
        rng,
        config.bfloat16 and has_bfloat16(sam.device),
    )


def step_views(config: TrainConfig, step: int, img_size: int) -> tuple[ViewRules, int]:
    """Windows and number of pictures of one step; whole frames cost more, so there are half as many."""
    if config.whole_every and step % config.whole_every == config.whole_every - 1:
        return replace(config.views, window_px=img_size), max(1, config.n_images // 2)
    return config.views, config.n_images


def set_mode(sam: Sam, freeze_norm: bool) -> None:
    """Training mode; with `freeze_norm` the BatchNorm layers keep their statistics, as small sets need."""
    sam.train()
    if freeze_norm:
        for module in sam.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


@torch.no_grad()
def update_average(run: Run, config: TrainConfig) -> None:
    """Exponential average of all floating-point state; its memory grows with the run's age."""
    decay = min(config.ema_decay, (1 + run.step) / (10 + run.step))
    for name, value in run.sam.state_dict().items():
        if value.is_floating_point():
            run.ema[name].lerp_(value, 1 - decay)
        else:
            run.ema[name].copy_(value)


def replan(run: Run, config: TrainConfig) -> None:
    """A time-boxed run plans its steps from its pace so far and writes the number down; if the machine then
    slows down, it stops soon after the limit all the same."""
    if config.max_seconds is None:
        return
    if run.step in PLANNING_STEPS:
        affordable = int(config.max_seconds / run.elapsed_s * run.step)
        run.planned_steps = max(PLANNING_STEPS[-1] + 1, min(config.steps, affordable))
    if run.elapsed_s > config.max_seconds * 1.15 and run.step >= PLANNING_STEPS[0]:
        run.planned_steps = run.step


def save_run(run: Run, config: TrainConfig, out_dir: Path) -> None:
    """Replaces the resumable state of `out_dir`."""
    progress = {
        "recipe": config.recipe,
        "step": run.step,
        "planned_steps": run.planned_steps,
        "elapsed_s": run.elapsed_s,
        "train_config": asdict(config),
    }
    save_state(out_dir, pack(run.parts, run.ema, run.optimizer), progress)


def write_model(run: Run, config: TrainConfig, out_dir: Path) -> Path:
    """Writes the averaged weights with the run's facts in the header; returns the file."""
    facts = {
        "recipe": config.recipe,
        "seed": str(config.seed),
        "steps": str(run.step),
        "wall_seconds": f"{run.elapsed_s:.0f}",
    }
    return save_checkpoint(out_dir / MODEL_NAME, run.ema, run.sam.config, facts)


__all__ = ["Progress", "TrainConfig", "begin", "describe", "train"]
