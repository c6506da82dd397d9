"""Which whole counts a published percentage can come from (the GRIM test of Brown and Heathers, 2017)."""

from __future__ import annotations

from math import ceil, floor

from medxpertqa.errors import MedXpertQAError


def grim(percent: float, n: int, decimals: int = 2) -> list[int]:
    """All k with |100 k/n - percent| at most half a unit of the last decimal (+1e-9: either rounding rule).

    Raises `MedXpertQAError` if n is not positive or the percentage is outside 0 to 100.
    """
    if n < 1 or not 0 <= percent <= 100:
        raise MedXpertQAError(f"{percent} % of {n} is not possible")
    reach = 0.5 * 10.0**-decimals + 1e-9
    first = max(ceil((percent - reach) * n / 100 - 1e-6), 0)
    last = min(floor((percent + reach) * n / 100 + 1e-6), n)
    return [k for k in range(first, last + 1) if abs(100 * k / n - percent) <= reach]
