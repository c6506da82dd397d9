"""Intervals, tests and power for accuracies; equations in section 2.4 of the specification."""

from medxpertqa.stats.comparison import (
    Difference,
    diff_in_diff,
    holm,
    interaction,
    mcnemar,
    paired_difference,
    two_proportion,
)
from medxpertqa.stats.distributions import binomial_tail, chi2_survival
from medxpertqa.stats.intervals import (
    Interval,
    cluster_bootstrap,
    cluster_standard_error,
    minimum_detectable,
    wilson,
)
from medxpertqa.stats.position import Position, position_bias
from medxpertqa.stats.rounding import grim

__all__ = [
    "Difference",
    "Interval",
    "Position",
    "binomial_tail",
    "chi2_survival",
    "cluster_bootstrap",
    "cluster_standard_error",
    "diff_in_diff",
    "grim",
    "holm",
    "interaction",
    "mcnemar",
    "minimum_detectable",
    "paired_difference",
    "position_bias",
    "two_proportion",
    "wilson",
]
