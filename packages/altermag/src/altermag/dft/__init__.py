"""Density functional theory: runs with GPAW, inputs for VASP and Quantum ESPRESSO, and what results say.

`altermag.dft.gpaw.run(bilayer, out="runs/AB")` computes; `vasp` and `espresso` write inputs. An engine is a
module with `write_inputs`, which is found by name in the entry-point group `altermag.engines`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from altermag.dft import engines, espresso, gpaw, results, sliding, vasp
    from altermag.dft.results import DFTResult, SplittingCheck

__all__ = ["DFTResult", "SplittingCheck", "engines", "espresso", "gpaw", "results", "sliding", "vasp"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'altermag.dft' has no attribute {name!r}")
    if name in ("DFTResult", "SplittingCheck"):
        return getattr(importlib.import_module("altermag.dft.results"), name)
    return importlib.import_module(f"altermag.dft.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)
