"""Stacking as a pymatgen transformation: a monolayer in, its unlike bilayers out, altermagnets first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from altermag.classification import classify
from altermag.errors import MissingExtraError
from altermag.io import to_pymatgen
from altermag.judging import KINDS
from altermag.monolayer import Monolayer
from altermag.special import enumerate_stackings

try:
    from pymatgen.transformations.transformation_abc import AbstractTransformation
except ImportError as _error:
    raise MissingExtraError(
        "pymatgen is needed for transformations: pip install 'altermag[pymatgen]'"
    ) from _error

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

FIRST = ("altermagnet", "compensated-ferrimagnet")


class BilayerStackingTransformation(AbstractTransformation):
    """Stack a magnetic monolayer (site property "magmom") on its copy, in all unlike special ways.

    The result is ranked: altermagnets, then compensated ferrimagnets, then what is degenerate. Every entry
    has its class, wave, operator, shift and layer group beside the structure.
    """

    def __init__(self, ops: Sequence[str] = ("mirror",), symprec: float = 1e-3) -> None:
        self.ops = tuple(ops)
        self.symprec = symprec

    def apply_transformation(
        self, structure: Structure, return_ranked_list: bool | int = False
    ) -> Structure | list[dict[str, Any]]:
        """Return the best bilayer, or with `return_ranked_list` that many (True: all) with what they are."""
        monolayer = Monolayer.from_structure(structure, symprec=self.symprec)
        found = [(bilayer, classify(bilayer)) for bilayer in enumerate_stackings(monolayer, ops=self.ops)]
        order = list(dict.fromkeys((*FIRST, *KINDS)))
        found.sort(key=lambda entry: (order.index(entry[1].kind), entry[1].n_nodal_lines))
        ranked = [
            {
                "structure": to_pymatgen(bilayer),
                "kind": kind.kind,
                "wave": kind.wave,
                "op": bilayer.op,
                "shift": tuple(float(value) for value in bilayer.shift),
                "layer_group": kind.layer_group.number if kind.layer_group else None,
            }
            for bilayer, kind in found
        ]
        if not return_ranked_list:
            return to_pymatgen(found[0][0])
        return ranked if return_ranked_list is True else ranked[:return_ranked_list]

    @property
    def inverse(self) -> None:
        """There is none."""
        return

    @property
    def is_one_to_many(self) -> bool:
        """A monolayer has many bilayers."""
        return True

    def __repr__(self) -> str:
        return f"BilayerStackingTransformation(ops={self.ops})"
