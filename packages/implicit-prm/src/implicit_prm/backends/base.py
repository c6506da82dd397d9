"""What gives log-probabilities: an implicit reward needs nothing else from a model or a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt


@runtime_checkable
class LogProbBackend(Protocol):
    """Anything that can say how probable given tokens are: a model here, vLLM, a completions server."""

    def token_log_probs(
        self, input_ids: Sequence[Sequence[int]], completion_mask: Sequence[Sequence[bool]]
    ) -> list[npt.NDArray[np.float32]]:
        """Log-probability of every marked token given all tokens before it, at temperature 1 (section 2.5).

        `input_ids` holds the rows' tokens, unpadded and of any lengths; `completion_mask` marks, in rows of
        the same lengths, the tokens asked for. The first token of a row has no past: it may not be marked.
        Returns one float32 array a row, in the rows' order, with one value (<= 0) for each marked token.
        Raises `ImplicitPRMError` where rows and masks do not fit each other, and `RowError`, which is one too
        and has the row's place, where a row cannot be scored. A backend that takes rows up to some length
        only says so by an attribute `max_length`, tokens of prompt and completion.
        """
        ...
