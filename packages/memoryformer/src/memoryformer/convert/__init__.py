"""Into and out of Memory Layers: other people's models, calibration data."""

from memoryformer.convert.bits import reverse_bits
from memoryformer.convert.fitting import Fit, GaussianFit, fit_tables, gaussian_fit
from memoryformer.convert.linear import replace_linear

__all__ = ["Fit", "GaussianFit", "fit_tables", "gaussian_fit", "replace_linear", "reverse_bits"]
