"""Two priors: a token is edited only where the second one fulfils the condition too.

    c_i = [P_1(x_i | x_<i) >= threshold] [P_2(x_i | x_<i) >= threshold]

The first prior alone says what is drawn. Both read the same tokens, so both have the same tokenizer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from toedit.config import OFF, EditConfig
from toedit.editing import fulfils, is_low
from toedit.errors import ToEditError

if TYPE_CHECKING:
    from toedit.tokenization import TextTokenizer

LOG_P_ONLY = EditConfig(threshold=OFF)
"""What the second prior is asked for: no top tokens, since nothing is drawn from it."""


def disagreed(
    first: NDArray[np.floating], second: NDArray[np.floating], cfg: EditConfig
) -> NDArray[np.bool_]:
    """bool [n]: the tokens that the second prior protects; `first` and `second` [n] are the log P of both.

    A token that the first would delete (`low="drop"`) has to be as improbable under the second.
    """
    return np.where(is_low(first, cfg), ~is_low(second, cfg), ~fulfils(second, cfg))


def decisive(
    first: NDArray[np.floating], second: NDArray[np.floating], cfg: EditConfig
) -> NDArray[np.floating]:
    """[n]: the one of the two log P on which it hangs whether both fulfil the condition."""
    return np.minimum(first, second) if cfg.condition == "ge" else np.maximum(first, second)


def check_same_tokenizer(
    first: TextTokenizer, second: TextTokenizer, add_bos: Literal["auto"] | bool
) -> None:
    """Raises `ToEditError` where two priors would read other tokens, saying what differs."""
    part = first.difference(second)
    if part is not None:
        raise ToEditError(
            f"the two priors split texts differently (their tokenizers differ in the {part}); priors that "
            "are to agree on tokens need the same tokenizer"
        )
    if first.bos(add_bos) != second.bos(add_bos):
        raise ToEditError(
            "of the two priors' tokenizers one puts a beginning-of-text token before a text and the other "
            "does not, or another one; set add_bos to True or False"
        )
