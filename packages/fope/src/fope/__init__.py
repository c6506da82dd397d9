"""Fourier position embedding: attention whose position signal survives beyond the training length."""

from fope import analysis
from fope.config import FopeConfig
from fope.embedding import FourierPositionEmbedding
from fope.errors import FopeError, FopeWarning
from fope.frequencies import kept_frequencies
from fope.functional import apply_fope, fope_basis, fope_tables

__all__ = [
    "FopeConfig",
    "FopeError",
    "FopeWarning",
    "FourierPositionEmbedding",
    "analysis",
    "apply_fope",
    "fope_basis",
    "fope_tables",
    "kept_frequencies",
]
