"""No prompt is lost or given twice, whatever passes the filter; a run goes on where it was."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from implicit_prime.errors import NoPromptPassesError, PrimeError, PrimeWarning
from implicit_prime.refill import PromptStream, refill


@dataclass(frozen=True)
class Answered:
    prompt: int
    accuracy: float


def middle(groups: Sequence[Answered]) -> list[bool]:
    return [0.2 <= group.accuracy <= 0.8 for group in groups]


def rolled(accuracy: dict[int, float], calls: list[list[int]] | None = None):
    def roll_out(prompts: list[int]) -> list[Answered]:
        if calls is not None:
            calls.append(prompts)
        return [Answered(prompt, accuracy[prompt]) for prompt in prompts]

    return roll_out


class Refilling(RuleBasedStateMachine):
    """A run of steps with any outcomes; everything drawn is accounted for (section 7, test 8)."""

    @initialize(size=st.integers(1, 12), epochs=st.integers(1, 3), seed=st.integers(0, 5))
    def start(self, size: int, epochs: int, seed: int) -> None:
        self.stream = PromptStream(size, seed, epochs)
        self.done: Counter[int] = Counter()  # trained on, filtered out, or in the partial batch at the end
        self.over = False

    @rule(data=st.data(), prompts=st.integers(1, 5), rounds=st.integers(1, 3), ranks=st.integers(1, 2))
    def step(self, data: st.DataObject, prompts: int, rounds: int, ranks: int) -> None:
        drawn: list[Answered] = []

        def roll_out(numbers: list[int]) -> list[Answered]:
            assert len(numbers) <= prompts * ranks
            accuracies = [data.draw(st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan])) for _ in numbers]
            drawn.extend(map(Answered, numbers, accuracies))
            return drawn[-len(numbers) :]

        before = self.stream.state_dict()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PrimeWarning)
                step = refill(self.stream, prompts * ranks, roll_out, middle, rounds, ranks)
        except PrimeError:
            assert sum(middle(drawn)) < ranks
            self.stream.load_state_dict(before)  # the run has ended; it goes on from the step before
            return
        if step is None:
            self.over = True
            self.done.update(group.prompt for group in drawn)
            return
        assert len(step.kept) <= prompts * ranks
        assert len(step.kept) % ranks == 0
        assert all(middle(step.kept))
        assert step.passed == sum(middle(drawn))
        assert sorted(map(id, [*step.kept, *step.others])) == sorted(map(id, drawn))
        surplus = [group.prompt for group in step.others if middle([group])[0]]
        assert self.stream.state_dict()["surplus"][: len(surplus)] == surplus
        self.done.update(group.prompt for group in drawn)
        self.done.subtract(surplus)

    @rule()
    def resume(self) -> None:
        fresh = PromptStream(self.stream.size, self.stream.seed, self.stream.epochs)
        fresh.load_state_dict(json.loads(json.dumps(self.stream.state_dict())))
        self.stream = fresh

    @invariant()
    def every_prompt_is_given_once_an_epoch(self) -> None:
        rest = PromptStream(self.stream.size, self.stream.seed, self.stream.epochs)
        rest.load_state_dict(self.stream.state_dict())
        to_come = rest.take(10**4)
        assert not (self.over and to_come)
        counts = Counter(self.done)
        counts.update(to_come)
        assert counts == Counter(dict.fromkeys(range(rest.size), rest.epochs))


Refilling.TestCase.settings = settings(max_examples=40, stateful_step_count=10, deadline=None)
TestRefillingLosesAndDuplicatesNoPrompt = Refilling.TestCase


def test_an_epoch_is_a_permutation_of_its_own_fixed_by_the_seed() -> None:
    first, second = (PromptStream(50, seed, epochs=2).take(200) for seed in (0, 1))
    assert sorted(first[:50]) == sorted(first[50:]) == list(range(50))
    assert first[:50] != first[50:]
    assert first != second
    assert PromptStream(50, 0, epochs=None).take(120)[:100] == first
    assert PromptStream(50, 0).take(60) == first[:50]


def test_later_rounds_draw_what_the_pass_rate_asks_for() -> None:
    """8 wanted, every fourth passes: 8 draw 2, the 6 missing ask for 6 / (2/8) = 24, of which 8 are drawn."""
    accuracy = {prompt: 0.5 if at % 4 == 0 else 1.0 for at, prompt in enumerate(PromptStream(100).take(100))}
    calls: list[list[int]] = []
    step = refill(PromptStream(100), 8, rolled(accuracy, calls), middle)
    assert step is not None
    assert [len(call) for call in calls] == [8, 8, 8, 8]
    assert (len(step.kept), step.passed, step.rounds, step.pass_rate) == (8, 8, 4, 8 / 32)
    calls.clear()
    half = {prompt: 0.5 if at % 2 == 0 else 0.0 for at, prompt in enumerate(PromptStream(100).take(100))}
    refill(PromptStream(100), 8, rolled(half, calls), middle)
    assert [len(call) for call in calls] == [8, 8]
    most = {prompt: 0.0 if at == 0 else 0.5 for at, prompt in enumerate(PromptStream(100).take(100))}
    calls.clear()
    refill(PromptStream(100), 8, rolled(most, calls), middle)
    assert [len(call) for call in calls] == [8, 2]  # 1 / (7/8), rounded up


def test_surplus_prompts_come_first_in_the_next_step_and_their_responses_are_still_there() -> None:
    most = {prompt: 0.0 if at == 0 else 0.5 for at, prompt in enumerate(PromptStream(100).take(100))}
    stream, calls = PromptStream(100), []
    step = refill(stream, 8, rolled(most, calls), middle)
    assert step is not None
    surplus = calls[1][1]
    assert [group.prompt for group in step.others] == [calls[0][0], surplus]
    refill(stream, 8, rolled(most, calls), middle)
    assert calls[2][0] == surplus


def test_the_partial_batch_at_the_end_of_the_data_is_dropped() -> None:
    stream = PromptStream(10)
    everything = dict.fromkeys(range(10), 0.5)
    assert refill(stream, 8, rolled(everything), middle) is not None
    with pytest.warns(PrimeWarning, match=r"last 2 prompts make no step: 2 of 2 .* 8 are wanted.*0\.5: 2"):
        assert refill(stream, 8, rolled(everything), middle) is None
    assert stream.take(1) == []


def test_data_that_ends_with_a_full_step_is_not_warned_of() -> None:
    stream, everything = PromptStream(8), dict.fromkeys(range(8), 0.5)
    assert refill(stream, 8, rolled(everything), middle) is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refill(stream, 8, rolled(everything), middle) is None


def test_data_that_ends_before_the_first_step_is_an_error_with_a_histogram() -> None:
    """Fewer rows than a step wants, and rows that are too hard in fewer rounds than are allowed."""
    with pytest.raises(NoPromptPassesError, match=r"before the first step .* 2 of 2 .* 1 round, and 8"):
        refill(PromptStream(2), 8, rolled({0: 0.5, 1: 0.5}), middle, first=True)
    hard = dict.fromkeys(range(10), 0.0)
    with pytest.raises(NoPromptPassesError, match=r"0 of 10 .* 2 rounds, and 8 .*0: 10.*too hard"):
        refill(PromptStream(10), 8, rolled(hard), middle, first=True)


def test_rounds_without_one_good_prompt_are_an_error_with_a_histogram() -> None:
    accuracy = {0: 0.0, 1: 0.0, 2: 1.0, 3: math.nan}
    with pytest.raises(PrimeError, match=r"0 of 12 prompts .* 3 rounds.*0: 6, 1: 3, no verdict: 3.*too hard"):
        refill(PromptStream(4, epochs=None), 4, rolled(accuracy), middle, max_rounds=3)


def test_a_step_cut_short_by_the_rounds_warns_and_keeps_a_multiple_of_the_processes() -> None:
    accuracy = {prompt: 0.5 if at < 3 else 1.0 for at, prompt in enumerate(PromptStream(40).take(40))}
    stream = PromptStream(40)
    with pytest.warns(
        PrimeWarning, match=r"3 of 24 prompts passed the filter in 3 rounds, and 8 are wanted: the"
    ):
        step = refill(stream, 8, rolled(accuracy), middle, max_rounds=3, multiple_of=2)
    assert step is not None
    assert len(step.kept) == 2
    assert stream.take(1) == PromptStream(40).take(3)[2:]


def test_a_state_of_other_data_is_refused() -> None:
    stream = PromptStream(5)
    with pytest.raises(PrimeError, match=r"size 6, this run's 5"):
        stream.load_state_dict(PromptStream(6).state_dict())
    with pytest.raises(PrimeError, match=r"seed 1, this run's 0"):
        stream.load_state_dict(PromptStream(5, seed=1).state_dict())
    with pytest.raises(PrimeError, match="no prompts"):
        PromptStream(0)
    with pytest.raises(PrimeError, match="epochs must be at least 1"):
        PromptStream(1, epochs=0)
