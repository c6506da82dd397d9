"""FoPE in Hugging Face transformers (extra `hf`): convert, fold, extend; save and load as any other model."""

from fope.errors import MissingExtraError

try:
    import transformers  # noqa: F401
except ImportError as error:  # pragma: no cover - depends on the environment
    raise MissingExtraError("fope.hf needs transformers: pip install 'fope[hf]'") from error

from fope.hf import attention, baselines, layouts, loading
from fope.hf.convert import convert_to_fope, extend
from fope.hf.folding import fold_zero_phase
from fope.hf.loading import from_pretrained
from fope.hf.ranks import check_ranks_at_first_step

attention.install()
loading.install()

__all__ = [
    "baselines",
    "check_ranks_at_first_step",
    "convert_to_fope",
    "extend",
    "fold_zero_phase",
    "from_pretrained",
    "layouts",
]
