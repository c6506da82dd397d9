"""The threshold that gives a wanted rate of edits, found from one scoring of a sample; nothing is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from toedit.agreement import decisive
from toedit.config import EditConfig
from toedit.editing import fulfils, swap_probabilities
from toedit.errors import ToEditError

if TYPE_CHECKING:
    from toedit.documents import Document, ScoredText
    from toedit.editor import Editor

THRESHOLDS = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)

# Below every probability that float32 logits give to a token.
_EVERY = 1e-300

# Log probabilities that differ by less, as a share of the larger of 1 and themselves, are the same (float32).
_SAME = 2e-6


@dataclass(frozen=True)
class Rates:
    """What a threshold does to a text: candidates a token, and expected changes a token over seeds."""

    threshold: float
    candidate_rate: float
    change_rate: float


@dataclass(frozen=True)
class Calibration:
    """`config` has the threshold that was found; `rates` are its own on the sample of `n_tokens`."""

    config: EditConfig
    rates: Rates
    n_tokens: int


class Sample:
    """Texts with the prior's scores at every token, from which the rates of any threshold follow.

    The scores hold `top_k` candidates of every token, 12 top_k bytes each: a sample, not a corpus.
    `config`, by default the editor's, says how tokens are drawn and what is protected; windows are the
    editor's.

    Raises `ToEditError` for a sample without a token that may be edited.
    """

    def __init__(
        self, editor: Editor, texts: Sequence[str | Document], config: EditConfig | None = None
    ) -> None:
        self.config = config or editor.config
        # Up to 1 from above takes in all tokens for "le"; down to 0 from below for "ge".
        every = self.config.replace(threshold=1.0 if self.config.condition == "le" else _EVERY)
        scored = editor.score(texts, every)
        specials = editor.tokenizer.specials
        parts = [self._part(text, every, specials) for text in scored]
        self.n_tokens = sum(len(text.ids) for text in scored)
        joined = [np.concatenate(pieces) for pieces in zip(*parts, strict=True)] if parts else []
        if not joined or not len(joined[0]):
            raise ToEditError("the sample has no token that may be edited")
        order = np.argsort(joined[0], kind="stable")
        self._log_p: NDArray[np.floating] = joined[0][order]
        self._swap: NDArray[np.float64] = joined[1][order]

    @staticmethod
    def _part(
        text: ScoredText, every: EditConfig, specials: frozenset[int]
    ) -> tuple[NDArray[np.floating], NDArray[np.float64]]:
        """(log P, swap probability) of the tokens that may be candidates; the `decisive` one of two."""
        log_p = text.log_p if text.second is None else decisive(text.log_p, text.second, every)
        free = fulfils(log_p, every) & ~text.protected
        if every.avoid_specials and specials:
            free &= ~np.isin(text.ids, np.fromiter(specials, np.int64))
        if every.low == "drop":
            free &= ~(text.log_p < np.log(every.low_threshold))
        swap = swap_probabilities(text.ids, text.scores, every, text.protected, specials)
        return log_p[free], swap[free]

    def rates(self, threshold: float) -> Rates:
        """The rates of a threshold, before `max_edit_fraction`."""
        candidate = fulfils(self._log_p, self.config.replace(threshold=threshold))
        changes = float(self._swap[candidate].sum())
        return Rates(threshold, int(candidate.sum()) / self.n_tokens, changes / self.n_tokens)

    def calibrate(self, target_rate: float, of: Literal["changes", "candidates"] = "changes") -> Calibration:
        """The threshold whose rate is nearest to `target_rate`, of expected changes or of candidates.

        It lies halfway between the two tokens that it parts, so that rounding moves neither over it. Where
        many tokens have the same probability there may be none near the target; see the `rates`.

        Raises `ToEditError` as `check_target` does, and for a target that no threshold reaches.
        """
        check_target(target_rate, of)
        log_p, weight = self._log_p, self._swap if of == "changes" else np.ones(len(self._swap))
        if self.config.condition == "ge":  # the most probable tokens come first
            log_p, weight = log_p[::-1], weight[::-1]
        reached = np.cumsum(weight) / self.n_tokens
        if reached[-1] < target_rate:
            raise ToEditError(
                f"with every token a candidate the rate of {of} is {reached[-1]:.4g}, below the target of "
                f"{target_rate}; a higher temperature, a larger top_k or exclude_original=True change more"
            )
        exact = log_p.astype(np.float64)
        # A threshold cannot part tokens of one probability; all tokens are taken by one beyond the last.
        parted = np.append(np.abs(np.diff(exact)) > _SAME * np.maximum(1, np.abs(exact[1:])), True)
        at = int(np.argmin(np.where(parted, np.abs(reached - target_rate), np.inf)))
        beyond = exact[at + 1] if at + 1 < len(exact) else min(0.0, 2 * exact[at] - exact[at - 1])
        config = self.config.replace(threshold=float((np.exp(exact[at]) + np.exp(beyond)) / 2))
        return Calibration(config, self.rates(config.threshold), self.n_tokens)


def check_target(target_rate: float, of: str) -> None:
    """Raises `ToEditError` for a rate that is no share of tokens, and for a rate of something else."""
    if not 0 < target_rate < 1:
        raise ToEditError(f"target_rate is {target_rate}; it must be a share of tokens, above 0 and below 1")
    if of not in ("changes", "candidates"):
        raise ToEditError(f"of is {of!r}; it must be 'changes' or 'candidates'")


def calibrate(
    editor: Editor,
    texts: Sequence[str | Document],
    target_rate: float,
    of: Literal["changes", "candidates"] = "changes",
) -> Calibration:
    """The editor's config with the threshold that gives `target_rate`; see `Sample`."""
    return Sample(editor, texts).calibrate(target_rate, of)
