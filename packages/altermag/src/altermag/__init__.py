"""Two-dimensional altermagnets: stack a magnetic monolayer on its copy and know the magnetic class.

Importing the package is light; a public name brings what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from altermag.errors import AltermagError, AltermagWarning, MissingExtraError

if TYPE_CHECKING:
    from altermag import dft, flows, optics, prototypes, tb
    from altermag.classification import Classification, classify, symprec_scan
    from altermag.mapping import StackingMap, stacking_map
    from altermag.monolayer import Monolayer
    from altermag.partners import Partner
    from altermag.screening import screen
    from altermag.special import SpecialPosition, enumerate_stackings, special_positions
    from altermag.stacking import Bilayer, stack

__all__ = [
    "AltermagError",
    "AltermagWarning",
    "Bilayer",
    "Classification",
    "MissingExtraError",
    "Monolayer",
    "Partner",
    "SpecialPosition",
    "StackingMap",
    "classify",
    "dft",
    "enumerate_stackings",
    "flows",
    "optics",
    "prototypes",
    "screen",
    "special_positions",
    "stack",
    "stacking_map",
    "symprec_scan",
    "tb",
]

_HOME: dict[str, str] = {
    "Bilayer": "stacking",
    "Classification": "classification",
    "Monolayer": "monolayer",
    "Partner": "partners",
    "SpecialPosition": "special",
    "StackingMap": "mapping",
    "classify": "classification",
    "enumerate_stackings": "special",
    "screen": "screening",
    "special_positions": "special",
    "stacking_map": "mapping",
    "stack": "stacking",
    "symprec_scan": "classification",
}
_SUBMODULES: tuple[str, ...] = ("dft", "flows", "optics", "prototypes", "tb")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"altermag.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'altermag' has no attribute {name!r}")
    return getattr(importlib.import_module(f"altermag.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
