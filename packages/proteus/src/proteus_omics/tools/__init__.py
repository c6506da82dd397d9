"""Tools of the analysis, each typed and registered; importing this registers them."""

from proteus_omics.tools import differential, enrichment, network, preparation, qc, robustness

__all__ = ["differential", "enrichment", "network", "preparation", "qc", "robustness"]
