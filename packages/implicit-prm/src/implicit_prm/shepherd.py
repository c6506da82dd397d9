"""Math-Shepherd's labels of steps, to compare with: go on from each step many times, and see what is right.

Soft labels, the share of right completions, estimate the left side of the paper's Proposition 3.2; hard ones,
whether any is right, its right side. `counts` says what they cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from implicit_prm.encoding import Encoded, encode_rows
from implicit_prm.errors import ImplicitPRMError
from implicit_prm.flops import TokenCounts, writing_counts
from implicit_prm.sampling import Sample, Sampler, response_texts
from implicit_prm.steps import SplitBy, Step, token_steps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = Mapping[str, Any]
Grader = Callable[[Row, str], bool]
"""Whether a response's text, given with its row, has the right final answer."""


@dataclass(frozen=True, slots=True)
class AnnotatedResponse:
    """A response of S steps with a label for each.

    steps      the steps, as `token_steps` splits the response
    step_ends  inclusive index of each step's last token in `encoded.completion_ids`
    hard       1 where at least one completion from the step on is right, else 0
    soft       the share of right completions
    counts     the tokens that the completions took, to be priced by `measure_flops`
    """

    encoded: Encoded
    steps: tuple[Step, ...]
    step_ends: tuple[int, ...]
    hard: tuple[int, ...]
    soft: tuple[float, ...]
    counts: TokenCounts

    def to_row(self) -> dict[str, Any]:
        """A row for training on steps and for `json.dumps`: `step_labels` are the hard ones."""
        return {
            "id": self.encoded.id,
            "prompt_ids": list(self.encoded.prompt_ids),
            "completion_ids": list(self.encoded.completion_ids),
            "step_ends": list(self.step_ends),
            "step_labels": list(self.hard),
            "soft_labels": list(self.soft),
        }


def annotate_steps(
    rows: Iterable[Row],
    sampler: Sampler,
    grade: Grader,
    tokenizer: PreTrainedTokenizerBase,
    *,
    steps: SplitBy = "paragraph",
    completions: int = 8,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_tokens: int = 1024,
    seed: int | None = None,
    batch_size: int = 64,
) -> Iterator[AnnotatedResponse]:
    """Label every step of every response by `completions` samples that go on from it.

    rows        as `encode_rows` reads them; `grade` gets each with the whole text of a completed response
    sampler     the policy that completes; `tokenizer` is its own
    batch_size  responses whose steps are completed by one call of the sampler

    After the last step there is nothing to complete: its label is the grade of the response itself. Yields
    the responses in the rows' order, as batches are done; with a seed and one batch size always the same.
    Raises `ImplicitPRMError` for settings out of range and for what `encode_rows` and the sampler refuse.
    """
    for name, value in (("completions", completions), ("batch_size", batch_size)):
        if value < 1:
            raise ImplicitPRMError(f"{name} must be at least 1, not {value}")
    source = iter(rows)
    for number, batch in enumerate(iter(lambda: list(islice(source, batch_size)), [])):
        encoded = encode_rows(batch, tokenizer)
        responses = [_Response(row, one, steps) for row, one in zip(batch, encoded, strict=True)]
        prefixes = [prefix for response in responses for prefix in response.prefixes]
        batch_seed = (
            None if seed is None else int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        )
        written = iter(
            sampler.sample(
                prefixes,
                completions,
                temperature=temperature,
                top_p=top_p,
                max_tokens=max_tokens,
                seed=batch_seed,
            )
        )
        for response in responses:
            found = [next(written) for _ in response.prefixes]
            yield response.annotated(found, grade, tokenizer)


class _Response:
    """A response on its way: where its steps end, and what is to be completed."""

    def __init__(self, row: Row, encoded: Encoded, how: SplitBy) -> None:
        self.row = row
        self.encoded = encoded
        self.steps, self.ends = token_steps(
            encoded.completion, encoded.offsets, how, truncated=encoded.truncated
        )
        self.prefixes = [encoded.prompt_ids + encoded.completion_ids[: end + 1] for end in self.ends[:-1]]

    def annotated(
        self, written: Sequence[Sequence[Sample]], grade: Grader, tokenizer: PreTrainedTokenizerBase
    ) -> AnnotatedResponse:
        soft: list[float] = []
        counts = TokenCounts()
        for end, prefix, samples in zip(self.ends[:-1], self.prefixes, written, strict=True):
            begun = self.encoded.completion_ids[: end + 1]
            texts = response_texts([begun + sample.token_ids for sample in samples], tokenizer)
            soft.append(sum(bool(grade(self.row, text)) for text in texts) / len(texts))
            counts += writing_counts(len(prefix), [len(sample.token_ids) for sample in samples])
        soft.append(float(bool(grade(self.row, self.encoded.completion))))
        return AnnotatedResponse(
            self.encoded,
            tuple(self.steps),
            tuple(self.ends),
            tuple(int(share > 0) for share in soft),
            tuple(soft),
            counts,
        )
