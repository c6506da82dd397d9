"""A paper's claims as checks that run."""

from typing import TYPE_CHECKING, Any

from tenfold.claims import SCALES, Claim, Verdict
from tenfold.criteria import (
    Above,
    AllOf,
    AtLeast,
    AtMost,
    Below,
    CIExcludes,
    Criterion,
    Equals,
    NoRule,
    NotTestableError,
    On,
    Within,
)
from tenfold.errors import TenfoldError, UsageError
from tenfold.estimates import Estimate
from tenfold.experiments import Experiment, experiment_names, find_experiment
from tenfold.trials import Trial

if TYPE_CHECKING:
    from tenfold.context import TrialContext
    from tenfold.data import Dataset, PyPI
    from tenfold.execution import Outcome, run_experiment
    from tenfold.figures import Figure
    from tenfold.records import Records
    from tenfold.runs import Run

# Commands and trial processes import this package too: what is heavy waits until somebody asks for it.
_LAZY = {
    "Dataset": "tenfold.data",
    "Figure": "tenfold.figures",
    "Outcome": "tenfold.execution",
    "PyPI": "tenfold.data",
    "Records": "tenfold.records",
    "Run": "tenfold.runs",
    "TrialContext": "tenfold.context",
    "run_experiment": "tenfold.execution",
}

__all__ = [
    "SCALES",
    "Above",
    "AllOf",
    "AtLeast",
    "AtMost",
    "Below",
    "CIExcludes",
    "Claim",
    "Criterion",
    "Dataset",
    "Equals",
    "Estimate",
    "Experiment",
    "Figure",
    "NoRule",
    "NotTestableError",
    "On",
    "Outcome",
    "PyPI",
    "Records",
    "Run",
    "TenfoldError",
    "Trial",
    "TrialContext",
    "UsageError",
    "Verdict",
    "Within",
    "experiment_names",
    "find_experiment",
    "run_experiment",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'tenfold' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
