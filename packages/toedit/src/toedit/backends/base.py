"""What every backend offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from toedit.config import EditConfig
from toedit.editing import Scores
from toedit.packing import Workload
from toedit.windows import Window


class Backend(Protocol):
    """A prior that scores windows of tokens.

    vocab_size  the number of columns of its logits
    max_window  the most tokens that it takes in one piece; None: no limit is known
    dtype       the type it computes in, for messages
    workload    what it has computed so far
    """

    vocab_size: int
    max_window: int | None
    dtype: str
    workload: Workload

    def score(self, windows: Sequence[Window], cfg: EditConfig) -> list[Scores]:
        """The scores of each window, positions counted in the window; NaN before its `first` token.

        Top tokens are given at the rows that fulfil the condition of `cfg`, `cfg.top_k` of them. A token of
        whose probability the model computes no number is NaN.

        Raises `ToEditError` if a single window does not fit into memory.
        """
        ...
