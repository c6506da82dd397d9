"""Tools of the analysis, each typed and registered; importing this registers them."""

from proteus_omics.tools import differential, preparation, qc, robustness

__all__ = ["differential", "preparation", "qc", "robustness"]
