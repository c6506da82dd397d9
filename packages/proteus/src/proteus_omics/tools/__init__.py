"""Tools of the analysis, each typed and registered; importing this registers them."""

from proteus_omics.tools import (
    differential,
    enrichment,
    modules,
    network,
    plots,
    populations,
    preparation,
    qc,
    robustness,
    states,
    subgroups,
    survival,
)

__all__ = [
    "differential",
    "enrichment",
    "modules",
    "network",
    "plots",
    "populations",
    "preparation",
    "qc",
    "robustness",
    "states",
    "subgroups",
    "survival",
]
