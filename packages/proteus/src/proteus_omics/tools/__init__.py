"""Tools of the analysis, each typed and registered; importing this registers them."""

from proteus_omics.tools import preparation, qc

__all__ = ["preparation", "qc"]
