"""The parameters of a GPAW run, its presets, and what each parameter may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from altermag.errors import AltermagError
from altermag.slabs import check_elements


@dataclass(frozen=True)
class GPAWSettings:
    """Parameters of a run. `h` in Å, `width` of the Fermi-Dirac smearing in eV, `density` in electrons each.

    `hubbard` gives U in eV to the d shell of elements; `k_mesh` is Γ-centred; `max_iterations` those of SCF.
    """

    xc: str = "PBE"
    basis: str = "dzp"
    h: float = 0.2
    k_mesh: tuple[int, int] = (4, 4)
    width: float = 0.02
    density: float = 1e-4
    hubbard: Mapping[str, float] = field(default_factory=dict)
    max_iterations: int = 150

    def plain(self) -> dict[str, Any]:
        """Return the parameters as plain JSON."""
        return asdict(self) | {"k_mesh": list(self.k_mesh), "hubbard": dict(self.hubbard)}


PRESETS = {
    "lcao-dzp": GPAWSettings(),
    "lcao-dzp-coarse": GPAWSettings(h=0.22),
    "lcao-dzp-fine": GPAWSettings(k_mesh=(6, 6), density=1e-5),
}


def settings_of(preset: str, **changes: Any) -> GPAWSettings:
    """Return a preset with changes.

    Raises `AltermagError` for an unknown preset or parameter, or a value that the parameter cannot have.
    """
    if preset not in PRESETS:
        raise AltermagError(f"GPAW has no preset {preset!r}; there are: {', '.join(PRESETS)}")
    unknown = sorted(changes.keys() - GPAWSettings.__dataclass_fields__.keys())
    if unknown:
        known = ", ".join(GPAWSettings.__dataclass_fields__)
        raise AltermagError(f"GPAW's settings have no {', '.join(unknown)}; there are: {known}")
    for name, value in changes.items():
        allowed, needed = ALLOWED[name]
        if not allowed(value):
            raise AltermagError(f"{name}={value!r}; needed: {needed}")
    check_elements(changes.get("hubbard", ()), "hubbard")
    return replace(PRESETS[preset], **changes)


def _is_number(value: Any) -> bool:
    # JSON's true is a number to Python, and its NaN and Infinity are read as floats.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_positive(value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "xc": (_is_name, "the name of a functional, such as 'PBE'"),
    "basis": (_is_name, "the name of a basis, such as 'dzp'"),
    "h": (_is_positive, "a positive number of Å"),
    "k_mesh": (
        lambda value: isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_count, value)),
        "two positive whole numbers, (4, 4) or --set k_mesh=[4,4]",
    ),
    "width": (lambda value: _is_number(value) and value >= 0, "a number of eV, at least 0"),
    "density": (_is_positive, "a positive number of electrons"),
    "hubbard": (
        lambda value: isinstance(value, Mapping) and all(map(_is_number, value.values())),
        "numbers of eV by element, {'Ni': 4.0} or --set 'hubbard={\"Ni\": 4.0}'",
    ),
    "max_iterations": (_is_count, "a positive whole number"),
}
"""By parameter: whether a value is allowed, and what is, in words."""
