"""What the columns of result tables mean, said once for all tools."""

from __future__ import annotations

from collections.abc import Mapping

from proteus_omics.models import Role
from proteus_omics.tools.registry import Output

ROLES: Mapping[str, Role] = {
    **dict.fromkeys(
        (
            "protein", "gene", "population", "module", "term", "name", "trait", "column", "cluster", "entity",
            "marker_a", "marker_b", "source", "target", "component", "group",
        ),
        "entity",
    ),
    "contrast": "contrast",
    **dict.fromkeys(
        (
            "log2fc", "coef", "nes", "r", "rho", "difference", "fold", "odds_ratio", "hr", "r2", "kme",
            "connectivity", "share", "variance_share", "median", "sign_stability", "worst_ratio", "stability",
        ),
        "estimate",
    ),
    "p_value": "p",
    "q_value": "q",
    "ci_low": "ci_low",
    "ci_high": "ci_high",
    **dict.fromkeys(("t", "z", "f", "es", "statistic", "chi2", "worst_t"), "stat"),
}  # fmt: skip


def table(keys: tuple[str, ...], columns: str) -> Output:
    """A declared table: its key columns, then the names of the others, with the roles that they have."""
    named = [*keys, *columns.replace(",", " ").split()]
    roles = {name: "n" if name.startswith("n_") or name == "n" else ROLES.get(name) for name in named}
    return Output("table", keys, {name: role for name, role in roles.items() if role is not None})


MATRIX = Output("matrix")
FIGURE = Output("figure")
