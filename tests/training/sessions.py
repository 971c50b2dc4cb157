"""Prompted sessions of one training step, with what the decoder was asked and what it answered."""

import numpy as np
import torch

from engine.modeling.sam import Sam
from engine.training.losses import LossWeights
from engine.training.prompts import PromptRules
from engine.training.steps import Batch, PromptedDecoder, run_rounds


class Listener(PromptedDecoder):
    """The real decoder; remembers what it was asked."""

    def __init__(self, sam: Sam, embedding: torch.Tensor, batch: Batch) -> None:
        super().__init__(sam, embedding, batch)
        self.asked: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, bool]] = []
        self.answers: list[torch.Tensor] = []

    def __call__(self, coords, labels, mask_input, multimask):
        self.asked.append((coords, labels, mask_input, multimask))
        logits, scores = super().__call__(coords, labels, mask_input, multimask)
        self.answers.append(logits)
        return logits, scores


def rounds(sam: Sam, batch: Batch, rules: PromptRules, rng: np.random.Generator) -> Listener:
    embedding = sam.image_encoder(batch.images - 128).detach().requires_grad_()
    listener = Listener(sam, embedding, batch)
    run_rounds(listener, batch, rules, LossWeights(), rng, torch.Generator().manual_seed(0))
    return listener
