"""Tight-binding models that have the symmetry of their structure and no other (section 2.7)."""

from altermag.tb.building import from_bilayer
from altermag.tb.export import to_pythtb, to_wannier90_hr
from altermag.tb.fields import gate, layer_dipole, populations
from altermag.tb.model import Model
from altermag.tb.parameters import Parameters

__all__ = [
    "Model",
    "Parameters",
    "from_bilayer",
    "gate",
    "layer_dipole",
    "populations",
    "to_pythtb",
    "to_wannier90_hr",
]
