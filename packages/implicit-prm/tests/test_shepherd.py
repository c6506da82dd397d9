"""Labels of steps are what completions from each step on say, and their tokens are counted."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from implicit_prm.config import ImplicitPRMConfig
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.flops import TokenCounts, measure_flops, writing_counts
from implicit_prm.sampling import HFSampler, Sample
from implicit_prm.shepherd import annotate_steps
from implicit_prm.training_data import reward_dataset


class Adder:
    """A policy that knows sums: it goes on from "1\\n\\n3\\n\\n" with what is left, right with a probability.

    A wrong number before makes a wrong sum; each of its continuations is "<answer>" and the end token.
    """

    def __init__(self, tokenizer, right: float) -> None:
        self.tokenizer = tokenizer
        self.right = right
        self.calls: list[tuple[list[str], int | None]] = []

    def sample(self, prompts, n=1, *, temperature=1.0, top_p=1.0, max_tokens=1024, seed=None):
        texts = [self.tokenizer.decode(prompt) for prompt in prompts]
        self.calls.append((texts, seed))
        luck = np.random.default_rng(seed)
        return [[self.written(text, luck.random() < self.right) for _ in range(n)] for text in texts]

    def written(self, text: str, right: bool) -> Sample:
        numbers = [int(number) for number in re.findall(r"\d+", text)]
        answer = f"{numbers[-1] + numbers[1] if right else 0}"
        ids = (*self.tokenizer(answer).input_ids, self.tokenizer.eos_token_id)
        return Sample(answer, ids, None, truncated=False)


# "2+3:" asks for the partial sums of twos: after 2 comes 5. The second response errs at its first step.
ROWS = [
    {"id": "a", "prompt": "2+3:", "completion": "2\n\n5", "answer": "5"},
    {"id": "b", "prompt": "2+3:", "completion": "4\n\n5", "answer": "5"},
    {"id": "c", "prompt": "2+3:", "completion": "2\n\n6", "answer": "5"},
]


def right(row, text: str) -> bool:
    return text.split()[-1] == row["answer"]


def test_labels_are_shares_of_right_completions_and_the_last_is_the_responses_own(tokenizer) -> None:
    policy = Adder(tokenizer, right=1.0)
    a, b, c = annotate_steps(ROWS, policy, right, tokenizer, completions=4, seed=0)
    assert policy.calls[0][0] == ["2+3:2\n\n", "2+3:4\n\n", "2+3:2\n\n"]
    assert (a.soft, b.soft, c.soft) == ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0))
    assert (a.hard, b.hard, c.hard) == ((1, 1), (0, 1), (1, 0))
    assert [step.text for step in a.steps] == ["2\n\n", "5"]
    assert a.encoded.id == "a"


def test_soft_labels_estimate_the_probability_and_hard_ones_say_whether_any_is_right(tokenizer) -> None:
    """With 400 completions of probability 0.3 the standard error is 0.023; 0.1 is more than 4 of them."""
    (many,) = annotate_steps(ROWS[:1], Adder(tokenizer, 0.3), right, tokenizer, completions=400, seed=0)
    assert many.soft[0] == pytest.approx(0.3, abs=0.1)
    few = list(annotate_steps(ROWS[:1] * 60, Adder(tokenizer, 0.3), right, tokenizer, completions=2, seed=0))
    assert {one.soft[0] for one in few} == {0.0, 0.5, 1.0}
    assert all(one.hard[0] == (one.soft[0] > 0) for one in few)


def test_batches_follow_one_another_with_other_random_numbers_and_the_same_rows(tokenizer) -> None:
    policy = Adder(tokenizer, 0.5)
    found = list(annotate_steps(iter(ROWS), policy, right, tokenizer, seed=0, batch_size=2))
    assert [one.encoded.id for one in found] == ["a", "b", "c"]
    assert [len(texts) for texts, _ in policy.calls] == [2, 1]
    assert policy.calls[0][1] != policy.calls[1][1]
    again = list(annotate_steps(ROWS, Adder(tokenizer, 0.5), right, tokenizer, seed=0, batch_size=2))
    assert [one.soft for one in again] == [one.soft for one in found]


def test_completions_are_counted_as_the_model_computes_them(tiny_llama, tokenizer) -> None:
    model = tiny_llama(vocab_size=len(tokenizer), attn_implementation="eager")
    sampler = HFSampler(model, tokenizer)
    row = {"prompt": "so", "completion": "4\n\n42\n\n444"}
    with FlopCounterMode(display=False) as counter:
        (found,) = annotate_steps(
            [row], sampler, lambda *_: True, tokenizer, completions=3, max_tokens=6, seed=1
        )
    assert len(found.steps) == 3
    # The two prefixes go through in one batch, so that the shorter one is padded to the longer one.
    first, second = (len(found.encoded.prompt_ids) + end + 1 for end in found.step_ends[:2])
    assert first < second
    assert measure_flops(model, found.counts) <= counter.get_total_flops()
    samples = sampler.sample(
        [found.encoded.input_ids[:first], found.encoded.input_ids[:second]],
        3,
        max_tokens=6,
        seed=int(np.random.SeedSequence([1, 0]).generate_state(1)[0]),
    )
    lengths = [[len(sample.token_ids) for sample in row] for row in samples]
    assert found.counts == writing_counts(first, lengths[0]) + writing_counts(second, lengths[1])


def test_a_response_of_one_step_costs_nothing(tokenizer) -> None:
    row = {"prompt": "2+3:", "completion": "5", "answer": "5"}
    (found,) = annotate_steps([row], Adder(tokenizer, 1.0), right, tokenizer, steps=[(0, 1)])
    assert (found.hard, found.soft, found.counts) == ((1,), (1.0,), TokenCounts())


def test_annotated_rows_are_what_training_on_steps_reads(tokenizer) -> None:
    found = annotate_steps(ROWS, Adder(tokenizer, 1.0), right, tokenizer, seed=0)
    rows = [json.loads(json.dumps(one.to_row())) for one in found]
    config = ImplicitPRMConfig(output_dir="unused", loss="step", report_to=[], use_cpu=True)
    data = reward_dataset(rows, tokenizer, config)
    assert len(data) == 3
    assert [labels.tolist() for labels in data.step_labels.labels] == [[1, 1], [-1, 1], [1, -1]]


@pytest.mark.parametrize("settings", [{"completions": 0}, {"batch_size": 0}])
def test_settings_out_of_range_are_named(tokenizer, settings) -> None:
    with pytest.raises(ImplicitPRMError, match=f"{next(iter(settings))} must be at least 1"):
        list(annotate_steps(ROWS, Adder(tokenizer, 1.0), right, tokenizer, **settings))
