"""Low-dimensional projected attention: low-rank q, k, v, o in any Hugging Face causal language model.

Importing the package registers it with transformers, so that `from_pretrained` knows saved models.
"""

from lpa.accounting import Cost, estimate
from lpa.analysis import Analysis, analyze
from lpa.cache import LatentCache, latent_cache
from lpa.checkpoints import from_pretrained, save_pretrained
from lpa.classic import ClassicConfig, ClassicForCausalLM
from lpa.config import LPAConfig
from lpa.errors import LPAError, LPAWarning, RankError
from lpa.factorization import factorize, factors, ranks_by_budget, ranks_by_energy, second_moment
from lpa.hf import lora_targets
from lpa.layers import FusedLowRank, LowRankLinear
from lpa.matching import match
from lpa.official import load_official_state_dict
from lpa.optim import add_product_decay, param_groups
from lpa.recipes import Preset, presets
from lpa.surgery import apply_lpa, is_lpa, merge

__all__ = [
    "Analysis",
    "ClassicConfig",
    "ClassicForCausalLM",
    "Cost",
    "FusedLowRank",
    "LPAConfig",
    "LPAError",
    "LPAWarning",
    "LatentCache",
    "LowRankLinear",
    "Preset",
    "RankError",
    "add_product_decay",
    "analyze",
    "apply_lpa",
    "estimate",
    "factorize",
    "factors",
    "from_pretrained",
    "is_lpa",
    "latent_cache",
    "load_official_state_dict",
    "lora_targets",
    "match",
    "merge",
    "param_groups",
    "presets",
    "ranks_by_budget",
    "ranks_by_energy",
    "save_pretrained",
    "second_moment",
]
