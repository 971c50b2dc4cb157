"""The benchmark of the model: it runs, its plain form gives our numbers, and its table says what was met."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench import model, plain
from bench.pairs import Goal, Row, in_pairs
from engine.modeling.attention_tiles import attend_in_tiles, fold_bias
from engine.modeling.image_encoder import relative_terms
from engine.modeling.linear import is_cpu_inference, product


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["vit_b", "tiny"])
@pytest.mark.parametrize("inference", [True, False])
def test_plain_encoder_and_decoder_equal_ours_with_and_without_gradients(name: str, inference: bool) -> None:
    sam = model.seeded(model.SMALL[name])
    x = torch.randn(2, 3, 128, 128)
    coords, labels = torch.rand(3, 1, 2) * 128, torch.ones(3, 1)
    with torch.inference_mode(inference):
        assert (sam.image_encoder(x) - plain.encode(sam.image_encoder, x)).abs().max() < 1e-4
        image = torch.randn(1, sam.config.embedding_channels, 8, 8), sam.prompt_encoder.get_dense_pe()
        for n_points in (1, 20):
            points = coords.repeat(1, n_points, 1), labels.repeat(1, n_points)
            sparse, dense = sam.prompt_encoder(points, None, None)
            ours = sam.mask_decoder.predict_masks(*image, sparse, dense)
            theirs = plain.decode(sam.mask_decoder, *image, sparse, dense)
            assert max(float((a - b).detach().abs().max()) for a, b in zip(ours, theirs, strict=True)) < 1e-4


def test_attention_in_tiles_equals_all_scores_at_once() -> None:
    q, k, v = torch.randn(3, 2, 2, 36 * 36, 8).unbind(0)
    rows, columns = relative_terms(q, torch.randn(71, 8), torch.randn(71, 8))
    scores = q @ k.transpose(2, 3) * 8**-0.5 + (rows[..., None] + columns[..., None, :]).flatten(-2)
    with torch.inference_mode():
        assert torch.allclose(attend_in_tiles(q, k, v, rows, columns), scores.softmax(-1) @ v, atol=1e-5)
    folded_q, folded_k = fold_bias(q * 8**-0.5, k, rows, columns)
    assert torch.allclose(folded_q @ folded_k.transpose(2, 3), scores, atol=1e-4)


def test_products_of_inference_and_of_training_agree() -> None:
    x, weight, bias = torch.randn(2, 100, 48), torch.randn(32, 48), torch.randn(32)
    assert not is_cpu_inference(x)
    learned = product(x, weight, bias)
    with torch.no_grad():
        assert is_cpu_inference(x) and torch.allclose(product(x, weight, bias), learned, atol=1e-4)


def test_the_benchmark_prints_its_table_and_writes_every_pair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pairs.json"
    wanted = ("--model", "tiny", "--only", "encoder", "--only", "training")
    model.main(["--quick", "--busy", *wanted, "--json", str(file)])
    written = json.loads(file.read_text())
    assert "| ratio (spread)" in capsys.readouterr().out
    assert {row["what"].split(",")[0] for row in written["rows"]} == {"encoder", "training"}
    assert all(row["ratio"] > 0 and len(row["ratios"]) == len(row["ours_s"]) for row in written["rows"])


def test_a_ratio_is_the_median_of_the_pairs_and_is_held_against_the_goal() -> None:
    row = Row("x", "ms", [1.0, 1.0, 2.0], [1.5, 9.0, 3.0], Goal(1.3, 1.8))
    assert row.ratio == 1.5 and row.verdict == "floor"
    assert Goal(3).verdict(2.9) == "missed" and Goal(1.3, 1.8).verdict(1.8) == "ambition"


def test_two_ways_take_turns() -> None:
    calls: list[str] = []
    in_pairs(lambda: calls.append("ours"), lambda: calls.append("plain"), 2, lambda: 0.0)
    assert calls == ["ours", "plain", "ours", "plain", "plain", "ours"]
