"""Low-dimensional projected attention: low-rank q, k, v, o in any Hugging Face causal language model.

Importing the package registers it with transformers, so that `from_pretrained` knows saved models.
"""

from lpa.accounting import Cost, estimate
from lpa.config import LPAConfig
from lpa.errors import LPAError, LPAWarning, RankError
from lpa.layers import FusedLowRank, LowRankLinear
from lpa.matching import match
from lpa.surgery import apply_lpa, is_lpa, merge

__all__ = [
    "Cost",
    "FusedLowRank",
    "LPAConfig",
    "LPAError",
    "LPAWarning",
    "LowRankLinear",
    "RankError",
    "apply_lpa",
    "estimate",
    "is_lpa",
    "match",
    "merge",
]
