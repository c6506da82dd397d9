"""Statistics for proteins: each function takes numbers and gives numbers, and knows of no run."""

from proteus_omics.stats.cox import CoxFit, cox_fit, schoenfeld_test
from proteus_omics.stats.designs import design_matrix, level_contrasts
from proteus_omics.stats.ebayes import Diagnostics, ModeratedFit
from proteus_omics.stats.linear import ContrastFit, LinearFit, lm_fit
from proteus_omics.stats.multiple import bh
from proteus_omics.stats.priors import Prior

__all__ = [
    "ContrastFit",
    "CoxFit",
    "Diagnostics",
    "LinearFit",
    "ModeratedFit",
    "Prior",
    "bh",
    "cox_fit",
    "design_matrix",
    "level_contrasts",
    "lm_fit",
    "schoenfeld_test",
]
