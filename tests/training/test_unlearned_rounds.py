"""Rounds that are answered and corrected but not learned from: long sessions at the price of short ones."""

import numpy as np
import torch

from engine.training.prompts import PromptRules
from tests.training.sessions import rounds


def test_they_lie_between_the_first_and_the_second_round_and_their_number_is_drawn(sam, batch) -> None:
    rng, rules = np.random.default_rng(0), PromptRules(rounds=2, unlearned_rounds=3)
    sessions = [rounds(sam, batch, rules, rng).asked for _ in range(40)]
    assert {len(asked) for asked in sessions} == {2, 3, 4, 5}
    for asked in sessions:
        # Each round sees one point more than the one before it, and only the first offers three masks.
        assert [coords.shape[1] for coords, *_ in asked] == list(range(2, 2 + len(asked)))
        assert [multimask for *_, multimask in asked] == [True] + [False] * (len(asked) - 1)
        assert all(mask_input is not None for *_, mask_input, _ in asked[1:])


def test_they_leave_no_gradient(sam, batch) -> None:
    def recorded(rules: PromptRules) -> list[bool]:
        return [made.requires_grad for made in rounds(sam, batch, rules, np.random.default_rng(3)).answers]

    assert recorded(PromptRules(rounds=2)) == [True, True]
    long = recorded(PromptRules(rounds=2, unlearned_rounds=9))
    assert len(long) > 3 and [long[0], long[-1]] == [True, True] and not any(long[1:-1])


def test_one_round_alone_has_none(sam, batch) -> None:
    rules = PromptRules(rounds=1, unlearned_rounds=5)
    assert all(len(rounds(sam, batch, rules, np.random.default_rng(n)).asked) == 1 for n in range(10))
    assert torch.is_grad_enabled()
