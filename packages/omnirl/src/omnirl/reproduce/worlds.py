"""How unequally a random policy visits the states of AnyMDP's tasks and of Garnet's; no model."""

from __future__ import annotations

from typing import Any

import numpy as np

from omnirl.tasks.sampling import sample_tasks
from omnirl.tasks.statistics import visits
from tenfold import Trial, TrialContext

STAGE = "worlds"
FAMILIES = ("anymdp", "garnet")
_RAREST = 1e-12


def worlds_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """The rarity of each task (16, 5) of the family, log10 of the largest over the smallest probability of
    where the random policy is after 4,096 steps; and the sorted probabilities, their geometric means.
    """
    tasks = sample_tasks(trial.settings["tasks"], family=trial.arm, seed=trial.settings["seed"])
    found = visits(tasks)
    return {
        "rarity": np.log10(found.max(1) / np.maximum(found.min(1), _RAREST)).tolist(),
        "sorted": np.exp(np.log(np.maximum(np.sort(found, 1), _RAREST)).mean(0)).tolist(),
    }
