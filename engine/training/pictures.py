"""What a run has learned so far, to be looked at: the truth on the left, answers on the right."""

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from engine.modeling.sam import Sam
from engine.training.dataset import Samples
from engine.training.prompts import PromptRules
from engine.training.state import replace_file
from engine.training.steps import PromptedDecoder, as_labelled_points, draw_batch, first_prompts
from engine.training.views import ViewRules

Pixels = NDArray[np.uint8]

# Colours that differ in lightness too, for eyes that do not tell hues apart (Okabe and Ito).
COLOURS = np.array([[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [213, 94, 0]], np.float32)
N_PICTURES, N_MASKS = 3, 5


@torch.no_grad()
def look(sam: Sam, samples: Samples, rules: ViewRules, prompts: PromptRules, seed: int) -> Pixels:
    """(n * S, 2 * S, 3): equal pictures for equal seeds, true masks beside those of one first prompt."""
    was_training = sam.training
    sam.eval()
    rng = np.random.default_rng((seed, 1))
    # A view has as many masks as are asked for, some of them twice.
    batch = draw_batch(samples, N_PICTURES, N_MASKS, sam.config.img_size, rules, rng)
    first = first_prompts(batch, prompts, rng)
    on_device = batch.on(sam.device)
    mean, sd = sam.pixel_mean.view(1, 3, 1, 1), sam.pixel_std.view(1, 3, 1, 1)
    embedding = sam.image_encoder((on_device.images - mean) / sd * on_device.valid)
    coords, labels = (drawn.to(sam.device) for drawn in as_labelled_points(first))
    logits, scores = PromptedDecoder(sam, embedding, on_device)(coords, labels, None, multimask=True)
    best = logits[torch.arange(len(logits)), scores.argmax(dim=1)]
    side = batch.images.shape[-1]
    answers = F.interpolate(best[:, None].float(), (side, side), mode="bilinear")[:, 0].cpu() > 0
    sam.train(was_training)
    both = torch.from_numpy(batch.masks), answers
    rows = []
    for number, image in enumerate(batch.images):
        of_image = slice(number * N_MASKS, (number + 1) * N_MASKS)
        rows.append(np.concatenate([_tinted(image, masks[of_image]) for masks in both], axis=1))
    return np.concatenate(rows, axis=0)


def _tinted(image: Tensor, masks: Tensor) -> Pixels:
    """(3, S, S) in 0..255 and (n, S, S) -> (S, S, 3) with each mask in a colour of its own."""
    canvas = image.permute(1, 2, 0).numpy().astype(np.float32)
    for mask, colour in zip(masks.numpy(), COLOURS, strict=True):
        canvas[mask] = 0.45 * canvas[mask] + 0.55 * colour
    return np.clip(canvas, 0, 255).astype(np.uint8)


def write_png(path: Path, pixels: Pixels) -> None:
    """(H, W, 3) as a PNG (ISO 15948), whole or not at all; the trainer runs where no imaging library is."""
    height, width, _ = pixels.shape
    # Each row begins with its filter, 0: none.
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    replace_file(path, b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
