"""Readers: a table of the usual programs to AnnData, samples x proteins, NaN where nothing was seen."""

from proteus_omics.io.reading import read

__all__ = ["read"]
