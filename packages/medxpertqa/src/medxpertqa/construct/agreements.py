"""How far reviewers agree beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from medxpertqa.errors import DataError


@dataclass(frozen=True)
class Agreement:
    """Share of equal decisions, Cohen's kappa (two reviewers, else NaN), Krippendorff's nominal alpha."""

    n: int
    observed: float
    kappa: float
    alpha: float


def agreement(ratings: Mapping[str, Mapping[str, Hashable]]) -> Agreement:
    """Compare reviewers: `ratings[reviewer][id]` is a decision; ids that fewer than two rated do not count.

    `observed` is the share of equal pairs of decisions, averaged over ids. Where all decisions are the
    same, chance explains everything, and kappa and alpha are NaN.

    Raises:
        DataError: no id has two decisions.
    """
    ids = sorted({name for by_id in ratings.values() for name in by_id})
    units = [[by_id[name] for by_id in ratings.values() if name in by_id] for name in ids]
    units = [unit for unit in units if len(unit) > 1]
    if not units:
        raise DataError("no question has decisions of two reviewers")
    observed = sum(_equal_pairs(unit) for unit in units) / len(units)
    kappa = (
        cohen_kappa([unit[0] for unit in units], [unit[1] for unit in units])
        if len(ratings) == 2
        else float("nan")
    )
    return Agreement(len(units), observed, kappa, krippendorff_alpha(units))


def _equal_pairs(unit: Sequence[Hashable]) -> float:
    return sum(n * (n - 1) for n in Counter(unit).values()) / (len(unit) * (len(unit) - 1))


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Return (p_o - p_e) / (1 - p_e) of two raters' categories for the same items; NaN if p_e = 1."""
    if len(first) != len(second) or not first:
        raise DataError("kappa needs one category of both raters for each of at least one item")
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    one, two = Counter(first), Counter(second)
    expected = sum(one[c] * two[c] for c in one) / n**2
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float:
    """Return 1 - D_o / D_e for nominal categories; a unit has the ratings of one item, any number of them.

    Units with fewer than two ratings do not count. NaN if only one category occurs.
    """
    units = [unit for unit in units if len(unit) > 1]
    totals = Counter(value for unit in units for value in unit)
    n = sum(totals.values())
    if not n:
        raise DataError("alpha needs an item with two ratings")
    disagreement = sum(len(unit) * (1 - _equal_pairs(unit)) for unit in units) / n
    expected = 1 - sum(count * (count - 1) for count in totals.values()) / (n * (n - 1))
    return 1 - disagreement / expected if expected > 0 else float("nan")
