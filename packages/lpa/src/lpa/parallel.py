"""Tensor-parallel plans: which process holds which part of each matrix.

A family's own plan splits q, k and v by columns (heads) and o by rows. Of their factors, A of q, k and v is
whole in every process and B split by columns; A of o is split by rows and B whole. So the sum over processes
after attention, the only traffic there, carries r numbers a token instead of d.
"""

from __future__ import annotations

from collections.abc import Mapping

from lpa.architectures import PARTS, Site, role_of
from lpa.config import LPAConfig


def low_rank_plan(plan: Mapping[str, str], config: LPAConfig, layers: int) -> dict[str, str]:
    """The plan of a low-rank model, from `plan` of its family: names with `*` for the layer -> style.

    A name in a plan stands for all layers. Where a matrix is low-rank in some of the `layers` only, no style
    fits all of them, and its whole attention (or feed-forward) module stays unsplit.
    """
    low: dict[str, str] = {}
    unsplit = set()
    for name, style in plan.items():
        parts = _low_rank_parts(name, config, layers)
        if parts is None:
            unsplit.add(name.rpartition(".")[0] + ".")
            continue
        factor = "down" if style.startswith("rowwise") else "up"
        for part, is_low in parts.items():
            low[".".join(filter(None, (name, part, factor if is_low else "")))] = style
    return {name: style for name, style in low.items() if not name.startswith(tuple(unsplit))}


def _low_rank_parts(name: str, config: LPAConfig, layers: int) -> dict[str, bool] | None:
    """Which parts of a matrix ("" is the part of a simple one) are low-rank; None if layers differ.

    A matrix none of whose parts is low-rank stays what it is: one part.
    """
    role = role_of(name)
    parts = tuple((part, 0) for part in PARTS.get(role, ("",)))
    found = []
    for layer in range(layers if "*" in name else 1):
        site = Site(f"model.{name.replace('*', str(layer))}", role, 0, parts)
        low = {part: site.is_targeted(part, config) for part, _ in parts}
        found.append(low if any(low.values()) else {"": False})
    return found[0] if all(low == found[0] for low in found) else None
