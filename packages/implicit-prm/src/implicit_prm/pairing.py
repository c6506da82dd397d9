"""Right responses paired with wrong ones of the same prompt, for DPO and NCA (section 2.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from implicit_prm.errors import ImplicitPRMError

Integers: TypeAlias = npt.NDArray[np.int64]
Pairing: TypeAlias = Literal["one_to_one", "all", "balanced"]


def pair_indices(
    labels: npt.ArrayLike,
    groups: npt.ArrayLike,
    how: Pairing = "one_to_one",
    *,
    max_pairs: int | None = None,
    seed: int = 0,
) -> Integers:
    """Pairs of a right and a wrong response of one prompt: int64 [P, 2], prompts in the order they came in.

    `labels` [N] lie in [0, 1], a response is right above one half; `groups` [N] names each one's prompt.

    one_to_one  both sides shuffled and put together, each response once at most (the paper)
    all         every right response with every wrong one (the released script)
    balanced    at most `max_pairs` of a prompt, all different, each response of a side as often as the
                others of its side, give or take one

    Raises `ImplicitPRMError` for an unknown `how`, `max_pairs` below 1 or without "balanced", labels outside
    [0, 1], and data in which no prompt has both right and wrong responses.
    """
    if how not in _PAIRINGS:
        raise ImplicitPRMError(f"pairing={how!r} is unknown; allowed: {', '.join(map(repr, _PAIRINGS))}")
    if (how == "balanced") != (max_pairs is not None) or (max_pairs is not None and max_pairs < 1):
        raise ImplicitPRMError(f"max_pairs={max_pairs}: at least 1 with pairing='balanced', else left out")
    right = right_responses(labels)
    generator = np.random.default_rng(seed)
    pairs = []
    for members in members_by_group(groups, len(right)):
        chosen, rejected = members[right[members]], members[~right[members]]
        if len(chosen) and len(rejected):
            pairs.append(_PAIRINGS[how](chosen, rejected, max_pairs, generator))
    if not pairs:
        raise ImplicitPRMError(no_contrast(right, groups, "pairs"))
    return np.concatenate(pairs)


def pair_rows(
    rows: Sequence[dict[str, Any]],
    how: Pairing = "one_to_one",
    *,
    max_pairs: int | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Grouped rows (prompt, completions, labels) as paired ones (prompt, chosen, rejected), TRL's formats.

    Other keys go along; ids are `<id>-<number of the pair>`. Arguments and errors as of `pair_indices`.
    """
    where = [(row, at) for row in rows for at in range(len(row["completions"]))]
    labels = [label for row in rows for label in row["labels"]]
    groups = [number for number, row in enumerate(rows) for _ in row["completions"]]
    paired: list[dict[str, Any]] = []
    made: dict[int, int] = {}
    for right, wrong in pair_indices(labels, groups, how, max_pairs=max_pairs, seed=seed):
        row, number = where[right][0], made.get(groups[right], 0)
        made[groups[right]] = number + 1
        kept = {key: value for key, value in row.items() if key not in ("completions", "labels")}
        chosen, rejected = (row["completions"][where[at][1]] for at in (right, wrong))
        name = f"{row.get('id', groups[right])}-{number}"
        paired.append({**kept, "id": name, "chosen": chosen, "rejected": rejected})
    return paired


def right_responses(labels: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """bool [N]: whose label is above one half. Raises `ImplicitPRMError` for labels outside [0, 1] or NaN."""
    values = np.asarray(labels, dtype=np.float64)
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if len(wrong):
        raise ImplicitPRMError(f"label {values[wrong[0]]:g} of response {wrong[0]} is outside [0, 1]")
    return values > 0.5


def members_by_group(groups: npt.ArrayLike, size: int) -> list[Integers]:
    """The indices of each group's members, groups in the order of their first one."""
    names = np.asarray(groups)
    if names.shape != (size,):
        raise ImplicitPRMError(f"there are {size} labels and {len(names)} groups; one of each a response")
    _, first, group = np.unique(names, return_index=True, return_inverse=True)
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(group, minlength=len(first)))[:-1])
    return [parts[at].astype(np.int64) for at in np.argsort(first)] if size else []


def has_contrast(right: npt.NDArray[np.bool_], groups: npt.ArrayLike) -> bool:
    """Whether some prompt has both right and wrong responses; `right` and `groups` are [N]."""
    return any(len(set(right[members])) == 2 for members in members_by_group(groups, len(right)))


def no_contrast(right: npt.NDArray[np.bool_], groups: npt.ArrayLike, made: str) -> str:
    """What to say where no prompt has both kinds of response, with the counts."""
    prompts = members_by_group(groups, len(right))
    number = len(prompts)
    all_right = sum(bool(right[members].all()) for members in prompts)
    return (
        f"no {made}: none of {number} prompts has both right and wrong responses ({all_right} have only "
        f"right, {number - all_right} only wrong ones; {len(right)} responses, {right.sum()} right); "
        "sample more responses a prompt, or train with loss='ce'"
    )


def _one_to_one(
    chosen: Integers, rejected: Integers, _: int | None, generator: np.random.Generator
) -> Integers:
    number = min(len(chosen), len(rejected))
    return np.stack(
        [generator.permutation(chosen)[:number], generator.permutation(rejected)[:number]], axis=1
    )


def _all(chosen: Integers, rejected: Integers, _: int | None, __: np.random.Generator) -> Integers:
    return np.stack([np.repeat(chosen, len(rejected)), np.tile(rejected, len(chosen))], axis=1)


def _balanced(
    chosen: Integers, rejected: Integers, most: int | None, generator: np.random.Generator
) -> Integers:
    # Along the diagonals of the table of all pairs, each diagonal shifted by one once they are through.
    number = np.arange(min(len(chosen) * len(rejected), most or 0))
    shift = number // np.lcm(len(chosen), len(rejected))
    chosen, rejected = generator.permutation(chosen), generator.permutation(rejected)
    return np.stack([chosen[number % len(chosen)], rejected[(number + shift) % len(rejected)]], axis=1)


_PAIRINGS: dict[str, Callable[[Integers, Integers, int | None, np.random.Generator], Integers]] = {
    "one_to_one": _one_to_one,
    "all": _all,
    "balanced": _balanced,
}
