"""Statistics for proteins: each function takes numbers and gives numbers, and knows of no run."""

from proteus_omics.stats.batch import remove_batch_effect
from proteus_omics.stats.coexpression import (
    Modules,
    bicor,
    eigengenes,
    find_modules,
    pearson,
    scale_free_fit,
    signed_adjacency,
    soft_power,
    topological_overlap,
)
from proteus_omics.stats.cox import CoxFit, cox_fit, schoenfeld_test
from proteus_omics.stats.designs import design_matrix, level_contrasts
from proteus_omics.stats.ebayes import Diagnostics, ModeratedFit
from proteus_omics.stats.linear import ContrastFit, LinearFit, lm_fit
from proteus_omics.stats.missing import Imputed, detection_test, enough_valid, impute
from proteus_omics.stats.multiple import bh
from proteus_omics.stats.normalization import normalize, ratio_to_reference
from proteus_omics.stats.power import detectable_effect, n_needed, t_test_power
from proteus_omics.stats.priors import Prior
from proteus_omics.stats.proportions import count_cells, transform_proportions

__all__ = [
    "ContrastFit",
    "CoxFit",
    "Diagnostics",
    "Imputed",
    "LinearFit",
    "ModeratedFit",
    "Modules",
    "Prior",
    "bh",
    "bicor",
    "count_cells",
    "cox_fit",
    "design_matrix",
    "detectable_effect",
    "detection_test",
    "eigengenes",
    "enough_valid",
    "find_modules",
    "impute",
    "level_contrasts",
    "lm_fit",
    "n_needed",
    "normalize",
    "pearson",
    "ratio_to_reference",
    "remove_batch_effect",
    "scale_free_fit",
    "schoenfeld_test",
    "signed_adjacency",
    "soft_power",
    "t_test_power",
    "topological_overlap",
    "transform_proportions",
]
