"""From pairs of similar questions to the questions that go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from medxpertqa.errors import DataError


def deduplicate(
    pairs: Iterable[tuple[int, int, float]], difficulty: Sequence[float] | None = None
) -> list[int]:
    """Return the positions to remove, rising, so that of no pair both stay.

    Pairs are taken by falling similarity (ties by position); if both are still in, the easier one goes, of
    equally difficult ones the later. `difficulty` has one value a question, higher is harder; without it, and
    for two of which one has none (NaN), the later goes.

    Raises:
        DataError: a pair names a question twice, or one that `difficulty` does not have.
    """
    removed: set[int] = set()
    for first, second, _ in sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1])):
        first, second = min(first, second), max(first, second)
        if first == second or first < 0 or (difficulty is not None and second >= len(difficulty)):
            raise DataError(f"pair ({first}, {second}): needed: two questions with a difficulty each")
        if first not in removed and second not in removed:
            easier_first = difficulty is not None and difficulty[first] < difficulty[second]
            removed.add(first if easier_first else second)
    return sorted(removed)
