"""Parameters and FLOPs against closed forms; ratios of timings against known ones."""

from __future__ import annotations

import copy
import itertools
from math import comb

import pytest
import torch
from transformers import PreTrainedModel

from lmlab import accounting
from lmlab.accounting import (
    Ratio,
    count_parameters,
    forward_flops,
    interleaved_ratio,
    median_interval,
    step_time,
)
from lmlab.models import build_model

VOCABULARY, WIDTH, INNER, LAYERS, HEADS, KV_HEADS = 96, 32, 48, 3, 4, 2
KV_WIDTH = WIDTH // HEADS * KV_HEADS
# Of a Llama layer: q and o, k and v, three feed-forward matrices.
MATRICES = 2 * WIDTH * WIDTH + 2 * WIDTH * KV_WIDTH + 3 * WIDTH * INNER


def llama(tied: bool, attention: str = "sdpa") -> PreTrainedModel:
    settings = {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
        "attn_implementation": attention,
    }
    return build_model(settings, 0)


def test_parameters_of_a_llama() -> None:
    blocks = LAYERS * (MATRICES + 2 * WIDTH) + WIDTH  # two norms a layer, one at the end
    embedding = VOCABULARY * WIDTH
    assert count_parameters(llama(tied=True)) == blocks + embedding
    assert count_parameters(llama(tied=True), embedding=False) == blocks
    assert count_parameters(llama(tied=False)) == blocks + 2 * embedding
    assert count_parameters(llama(tied=False), embedding=False) == blocks + embedding


def test_frozen_parameters_are_left_out_on_demand() -> None:
    model = llama(tied=False)
    model.model.layers[0].requires_grad_(False)
    layer = MATRICES + 2 * WIDTH
    assert count_parameters(model) - count_parameters(model, trainable_only=True) == layer


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_flops_of_a_llama(attention: str) -> None:
    batch, length = 2, 24
    products = LAYERS * MATRICES + VOCABULARY * WIDTH
    scores_and_values = LAYERS * 2 * WIDTH * length  # each token attends to all, in two products
    assert forward_flops(llama(False, attention), batch, length) == 2 * batch * length * (
        products + scores_and_values
    )


def test_counting_flops_leaves_the_model_alone_and_takes_no_memory() -> None:
    model = llama(tied=True).train()
    before = copy.deepcopy(model.state_dict())
    forward_flops(model, 1, 16)
    assert model.training
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    with torch.device("meta"):
        large = torch.nn.ModuleList([torch.nn.Linear(100_000, 100_000) for _ in range(10)])
    assert count_parameters(large) == 10 * (10**10 + 10**5)


class Clock:
    """A clock that stands still but for `advance`."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(accounting, "time", clock)
    return clock


def test_step_time_leaves_the_warm_up_out(clock: Clock) -> None:
    durations = iter([100.0, 50.0, 1.0, 2.0, 3.0])
    assert step_time(lambda: clock.advance(next(durations)), repeats=3, warmup=2) == [1.0, 2.0, 3.0]


def test_a_ratio_holds_still_on_a_machine_that_slows_down(clock: Clock) -> None:
    calls = itertools.count()
    slowness = [1.0, 1.0, 1.0, 1.0] + [1.0, 1.0, 7.0, 7.0, 3.0, 3.0, 50.0, 50.0] * 3

    def step(seconds: float) -> None:
        clock.advance(seconds * slowness[next(calls)])

    ratio = interleaved_ratio(lambda: step(3.0), lambda: step(2.0), repeats=12)
    assert ratio.median == ratio.low == ratio.high == pytest.approx(1.5)


def test_which_half_comes_first_alternates(clock: Clock) -> None:
    order: list[str] = []

    def step(name: str) -> None:
        order.append(name)
        clock.advance(1.0)

    interleaved_ratio(lambda: step("a"), lambda: step("b"), repeats=6, warmup=0)
    assert "".join(order) == "abba" * 3


@pytest.mark.parametrize("n", [6, 7, 12, 20, 51])
def test_the_interval_of_a_median_covers_95_percent(n: int) -> None:
    found = median_interval([float(value) for value in range(1, n + 1)])
    k = int(found.low)
    assert found.high == n + 1 - k
    assert found.median == (n + 1) / 2

    def coverage(k: int) -> float:
        return 1 - 2 * sum(comb(n, below) for below in range(k)) / 2**n

    assert coverage(k) >= 0.95 > coverage(k + 1)


def test_too_few_values_for_an_interval() -> None:
    with pytest.raises(ValueError, match="at least 6 values, got 5"):
        median_interval([1.0] * 5)
    calls: list[int] = []
    with pytest.raises(ValueError, match="at least 6 values, got 5"):
        interleaved_ratio(lambda: calls.append(0), lambda: calls.append(1), repeats=5)
    assert calls == []  # known before minutes are spent
    assert str(Ratio(1.5, 1.25, 2)) == "1.500 [1.250, 2.000]"
