from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import implicit_prime
from implicit_prime import PrimeError
from implicit_prime.core import calibration_error, pair_accuracy, step_auc
from implicit_prm.reward_metrics import auc_within_prompts


def test_pairs_of_one_prompt_by_hand() -> None:
    # Prompt 3: 0.9 beats 0.1 and 0.5: right twice. Prompt 8: one pair, the wrong way; the ids alternate.
    scores = torch.tensor([0.9, 2.0, 0.1, 3.0, 0.5])
    outcomes = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    assert pair_accuracy(scores, outcomes, [3, 8, 3, 8, 3]) == pytest.approx(2 / 3)
    assert pair_accuracy(-scores, outcomes, [3, 8, 3, 8, 3]) == pytest.approx(1 / 3)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31))
def test_with_right_and_wrong_alone_it_is_the_auc_within_prompts(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    scores = torch.randint(4, (12,), generator=random).double()  # with ties
    outcomes = torch.randint(2, (12,), generator=random).double()
    ids = torch.randint(3, (12,), generator=random)
    found = pair_accuracy(scores, outcomes, ids)
    assert found == pytest.approx(auc_within_prompts(scores, outcomes, ids), nan_ok=True)


def test_fractional_outcomes_are_compared_by_size() -> None:
    outcomes = torch.tensor([0.1, 0.3, 0.4])
    assert pair_accuracy(torch.tensor([1.0, 2.0, 3.0]), outcomes, [0, 0, 0]) == 1
    assert pair_accuracy(torch.tensor([2.0, 2.0, 2.0]), outcomes, [0, 0, 0]) == 0.5


def test_without_a_pair_there_is_no_accuracy() -> None:
    assert math.isnan(pair_accuracy(torch.rand(4), torch.ones(4), [0, 0, 1, 1]))
    assert math.isnan(pair_accuracy(torch.rand(2), torch.tensor([0.0, 1.0]), [0, 1]))


def test_a_step_is_scored_by_the_sum_of_its_tokens() -> None:
    # Steps 1 + 2 = 3 (right), -1 (wrong), padding; and 5 - 4 = 1 (right), 2 (wrong): pairs won 3 of 4.
    process = torch.tensor([[1.0, 2.0, -1.0, math.nan], [5.0, -4.0, 1.0, 1.0]])
    assert step_auc(process, [[1, 2], [1, 3]], [[1, 0], [1, 0]]) == 0.75
    assert math.isnan(step_auc(process, [[1], [3]], [[1], [1]]))
    assert math.isnan(step_auc(process[:0], [], []))


def test_the_calibration_error_is_that_of_the_sigmoid() -> None:
    # P = 0.8 where 3 of 4 are right, and P = 0.3 where none of 4 is: (0.05 + 0.3) / 2.
    scores = torch.tensor([0.8] * 4 + [0.3] * 4).logit()
    outcomes = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert calibration_error(scores, outcomes) == pytest.approx(0.175, abs=1e-6)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(PrimeError, match="scores must be finite; number 1 is not"):
        pair_accuracy(torch.tensor([0.0, math.nan]), torch.ones(2), [0, 0])
    with pytest.raises(PrimeError, match="outcomes must be finite; number 0 is not"):
        calibration_error(torch.zeros(2), torch.tensor([math.nan, 1.0]))
    with pytest.raises(PrimeError, match=r"scores \[2\] and outcomes \[3\]"):
        pair_accuracy(torch.zeros(2), torch.ones(3), [0, 0])
    with pytest.raises(PrimeError, match="an entry for every step of every response"):
        step_auc(torch.zeros(1, 4), [[1, 3]], [[1]])
    with pytest.raises(PrimeError, match="step_ends of 1 responses do not fit 2 rows"):
        step_auc(torch.zeros(2, 4), [[1, 3]], [[1, 0]])


def test_every_public_name_is_there_and_the_import_is_light() -> None:
    code = "import sys, implicit_prime; print({'torch', 'numpy', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    for name in ("rloo_advantage", "grpo_advantage", "ppo_clip_loss", "accuracy_filter", "pair_accuracy"):
        assert getattr(implicit_prime, name) is getattr(implicit_prime.core, name)
    with pytest.raises(AttributeError, match="no attribute 'prime'"):
        _ = implicit_prime.prime
