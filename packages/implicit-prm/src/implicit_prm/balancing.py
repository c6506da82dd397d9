"""As many right responses as wrong ones, over the data set or for every instruction (Table 1's CE rows)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.pairing import Integers, members_by_group, no_contrast, right_responses


def balanced_indices(
    labels: npt.ArrayLike, groups: npt.ArrayLike | None = None, *, seed: int = 0
) -> Integers:
    """The responses to keep, so that every group has as many right as wrong ones: int64 [K], ascending.

    `labels` [N] lie in [0, 1], a response is right above one half. `groups` [N] names each one's group: its
    prompt for the paper's instruction-wise balance; None is one group, the balance of the whole data set.
    Of the side with more responses a random part is kept; a group with one side only is left out.

    Raises `ImplicitPRMError` for labels outside [0, 1], and where nothing would be left.
    """
    right = right_responses(labels)
    if groups is None:
        groups = np.zeros(len(right), dtype=np.int64)
    generator = np.random.default_rng(seed)
    kept: list[Integers] = []
    for members in members_by_group(groups, len(right)):
        sides = members[right[members]], members[~right[members]]
        number = min(map(len, sides))
        kept += [generator.permutation(side)[:number] for side in sides]
    indices = np.sort(np.concatenate(kept)) if kept else np.zeros(0, dtype=np.int64)
    if not len(indices):
        raise ImplicitPRMError(no_contrast(right, groups, "balanced data"))
    return indices
