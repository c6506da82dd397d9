"""Calibration: the rates of a threshold are those that an edit with it has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from toedit import EditConfig, Editor, ToEditError
from toedit.calibration import Sample, calibrate

TEXTS = [f"{n * n} the cat sat on mat {n}, hello world: {'the hat ' * (n % 5)}{n * 37}" for n in range(40)]
CONFIG = EditConfig(threshold=0.5, temperature=1.5, top_k=320, avoid_specials=True, protect=("numbers",))


@pytest.fixture(scope="module")
def editor(tiny_llama: Any, tokenizer: Any) -> Editor:
    return Editor(tiny_llama(initializer_range=0.6), tokenizer, CONFIG)


@pytest.fixture(scope="module")
def sample(editor: Editor) -> Sample:
    return Sample(editor, TEXTS)


@pytest.mark.parametrize("threshold", [1e-3, 0.03, 0.5])
def test_rates_are_the_counts_of_an_edit_with_that_threshold(
    tiny_llama: Any, tokenizer: Any, sample: Sample, threshold: float
) -> None:
    editor = Editor(tiny_llama(initializer_range=0.6), tokenizer, CONFIG.replace(threshold=threshold))
    results = editor.edit_batch(TEXTS, range(len(TEXTS)))
    n_tokens = sum(result.n_tokens for result in results)
    rates = sample.rates(threshold)
    assert sample.n_tokens == n_tokens
    assert rates.candidate_rate == sum(result.n_candidates for result in results) / n_tokens
    assert rates.change_rate == pytest.approx(sum(editor.expected_changes(TEXTS)) / n_tokens, rel=1e-4)


@pytest.mark.parametrize("target", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("condition", ["ge", "le"])
def test_the_rate_of_candidates_is_met_to_one_token(editor: Editor, target: float, condition: Any) -> None:
    sample = Sample(editor, TEXTS, CONFIG.replace(condition=condition))
    found = sample.calibrate(target, of="candidates")
    assert abs(found.rates.candidate_rate - target) <= 1 / found.n_tokens
    assert found.config == sample.config.replace(threshold=found.rates.threshold)


def test_no_other_threshold_is_nearer_to_the_target_of_changes(editor: Editor, sample: Sample) -> None:
    found = calibrate(editor, TEXTS, 0.05)
    missed = abs(found.rates.change_rate - 0.05)
    others = np.abs([sample.rates(p).change_rate - 0.05 for p in np.geomspace(1e-4, 1, 300)])
    assert missed <= others.min() + 1e-12
    assert missed < 0.005


def test_a_rate_that_cannot_be_is_refused(sample: Sample, editor: Editor) -> None:
    with pytest.raises(ToEditError, match=r"a candidate the rate of changes is 0\.\d+, below"):
        sample.calibrate(0.999)
    for target in (0, 1, -0.1):
        with pytest.raises(ToEditError, match="target_rate is"):
            sample.calibrate(target)
    with pytest.raises(ToEditError, match="no token that may be edited"):
        Sample(editor, ["", "12345"])


def test_what_the_config_of_a_sample_protects_is_protected(
    tiny_llama: Any, tokenizer: Any, sample: Sample
) -> None:
    without = Editor(tiny_llama(initializer_range=0.6), tokenizer, CONFIG.replace(protect=()))
    found = Sample(without, TEXTS, CONFIG)
    for threshold in (1e-3, 0.03, 0.5):
        assert found.rates(threshold) == sample.rates(threshold)
    assert found.rates(1e-3) != Sample(without, TEXTS).rates(1e-3)
