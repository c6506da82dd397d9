"""Counts of an edit that add up, over documents, shards and machines in any order, to the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import exp, inf, nan
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toedit.errors import ToEditError

if TYPE_CHECKING:
    from toedit.editing import EditedTokens

BINS = 10

# Sums of real numbers are kept as whole multiples of this: floats would depend on the order of adding.
_UNIT = 2.0**-32


@dataclass(frozen=True)
class EditStats:
    """What an edit did. Candidates were drawn anew; changed tokens are those that came out different.

    n_empty         documents without any text, passed through
    n_scored        tokens that the prior gave a probability (all but a document's first, without a BOS)
    n_dropped       tokens deleted by `low="drop"`
    n_skipped       changes taken back, because the text could not have held them (a broken character)
    n_retokenized   documents whose new text the tokenizer splits into other ids than the edit gave
    n_impossible    scored tokens of probability 0: the perplexity is then infinite
    histogram       scored tokens with P in [0, .1), [.1, .2), ..., [.9, 1]  (Table 6 of the paper)
    log_p_units     the sum of log P of the scored tokens, in units of 2**-32
    swap_units      the sum of the candidates' probabilities to change, in units of 2**-32
    """

    n_documents: int = 0
    n_empty: int = 0
    n_tokens: int = 0
    n_scored: int = 0
    n_candidates: int = 0
    n_changed: int = 0
    n_dropped: int = 0
    n_skipped: int = 0
    n_retokenized: int = 0
    n_impossible: int = 0
    histogram: tuple[int, ...] = (0,) * BINS
    log_p_units: int = 0
    swap_units: int = 0

    @classmethod
    def of_document(
        cls,
        log_p: NDArray[np.floating],
        edited: EditedTokens,
        swap: NDArray[np.floating],
        **counts: int,
    ) -> EditStats:
        """The statistics of one document of n tokens.

        `log_p` [n] are its scores (NaN where not scored), `edited` is what `edit_scores` returned and `swap`
        [n] what `swap_probabilities` did. `counts` are the fields that only the caller knows: `n_skipped`,
        `n_retokenized`.
        """
        scored = log_p[~np.isnan(log_p)].astype(np.float64)
        possible = scored[scored > -inf]
        bins = np.minimum(np.exp(scored) * BINS, BINS - 1).astype(np.int64)
        return cls(
            n_documents=1,
            n_tokens=len(log_p),
            n_scored=len(scored),
            n_candidates=int(edited.candidate_mask.sum()),
            n_changed=int(edited.changed_mask.sum()),
            n_dropped=int((edited.ids < 0).sum()),
            n_impossible=len(scored) - len(possible),
            histogram=tuple(np.bincount(bins, minlength=BINS).tolist()),
            log_p_units=round(float(possible.sum()) / _UNIT),
            swap_units=round(float(swap.sum()) / _UNIT),
            **counts,
        )

    def __add__(self, other: EditStats) -> EditStats:
        if not isinstance(other, EditStats):
            return NotImplemented
        sums = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in fields(self)
            if field.name != "histogram"
        }
        histogram = tuple(a + b for a, b in zip(self.histogram, other.histogram, strict=True))
        return EditStats(**sums, histogram=histogram)

    def merge(self, *others: EditStats) -> EditStats:
        """The sum of these statistics and others; the same in any order and grouping."""
        return sum(others, self)

    @property
    def sum_log_p(self) -> float:
        """The sum of log P over the scored tokens, in nats."""
        return -inf if self.n_impossible else self.log_p_units * _UNIT

    @property
    def perplexity(self) -> float:
        """exp(-mean log P) over the scored tokens; NaN without any."""
        if not self.n_scored:
            return nan
        mean = -self.sum_log_p / self.n_scored
        return exp(mean) if mean < 700 else inf

    @property
    def expected_changes(self) -> float:
        """How many tokens change on average over seeds: the sum of 1 - q(original) over the candidates."""
        return self.swap_units * _UNIT

    @property
    def mean_swap_probability(self) -> float:
        """The mean of 1 - q(original) over the candidates; NaN without any."""
        return self.expected_changes / self.n_candidates if self.n_candidates else nan

    @property
    def candidate_rate(self) -> float:
        """Candidates a token: what the paper calls the share of edited tokens. NaN without tokens."""
        return self.n_candidates / self.n_tokens if self.n_tokens else nan

    @property
    def change_rate(self) -> float:
        """Changed tokens a token. NaN without tokens."""
        return self.n_changed / self.n_tokens if self.n_tokens else nan

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "histogram": list(self.histogram)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EditStats:
        """The statistics that `to_dict` wrote. Raises `ToEditError` for other keys or another histogram."""
        known = {field.name for field in fields(cls)}
        if set(values) != known or len(values["histogram"]) != BINS:
            raise ToEditError(
                f"these are not the statistics of an edit: the keys are {', '.join(map(str, values))}; "
                f"needed are {', '.join(sorted(known))}, with {BINS} bins in histogram"
            )
        return cls(**{**values, "histogram": tuple(values["histogram"])})
