"""What a context is worth: cross-entropy and regret at each position of sequences (the paper's fig. 7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from omnirl.data.sequences import COLUMNS, IGNORED, Dataset
from omnirl.data.worlds import by_observation
from omnirl.errors import OmniRLError
from omnirl.model.modeling import OmniRL
from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.solver import REFERENCE_GAMMAS, solve

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ContextCurves:
    """Means over the sequences at each of T positions of the context; NaN where no step has a label.

    `cross_entropy` (T,) of the reference action in nats; `regret` (T,), max Q* - E_policy Q* in the state
    that the step met, and `uniform_regret` (T,), the same of the uniform policy; both None where the tasks
    are not known.
    """

    cross_entropy: Floats
    number: NDArray[np.int64]
    regret: Floats | None
    uniform_regret: Floats | None

    def gain(self, window: int = 1) -> Floats:
        """d_t = 1 - L_t / L_0, in windows of positions (T // window,); L_0 is the first window's loss."""
        loss = self._windows(self.cross_entropy, window)
        return 1 - loss / loss[0]

    def regret_gain(self, window: int = 1) -> Floats:
        """1 - regret / regret of the uniform policy, in windows: 0 knows nothing of the task, 1 all."""
        if self.regret is None or self.uniform_regret is None:
            raise OmniRLError(
                "regrets need the tasks of the sequences: context_curves(model, dataset, tasks)"
            )
        return 1 - self._windows(self.regret, window) / self._windows(self.uniform_regret, window)

    def _windows(self, values: Floats, window: int) -> Floats:
        whole = len(values) // window * window
        if not whole:
            raise OmniRLError(f"window is {window}, longer than the context of {len(values)} steps")
        sums = np.nan_to_num(values * self.number)[:whole].reshape(-1, window).sum(1)
        number = self.number[:whole].reshape(-1, window).sum(1)
        return np.where(number > 0, sums / np.maximum(number, 1), np.nan)


@torch.no_grad()
def context_curves(
    model: OmniRL,
    dataset: Dataset,
    tasks: TaskBatch | None = None,
    *,
    batch_size: int = 32,
    segment: int = 1024,
    gamma: float = REFERENCE_GAMMAS[-1],
) -> ContextCurves:
    """Run `model` over every sequence of `dataset`, `segment` steps at a time, and compare its policy.

    `tasks` (by default the data set's own) are what `task_index` counts in; Q* is exact, at `gamma`.
    A model with more actions than the tasks acts by modulo. The model comes back in the mode it was in.
    """
    tasks = dataset.tasks if tasks is None else tasks
    values = None if tasks is None else by_observation(tasks, np.asarray(solve(tasks, gamma)))
    totals, number = np.zeros((3, dataset.steps)), np.zeros(dataset.steps, np.int64)
    mode = model.training
    model.eval()
    for first in range(0, len(dataset), batch_size):
        batch = dataset.batch(np.arange(first, min(first + batch_size, len(dataset))))
        memory = None
        for start in range(0, dataset.steps, segment):
            part = {name: batch[name][:, start : start + segment] for name in COLUMNS}
            columns = [torch.as_tensor(part[name], device=model.device) for name in COLUMNS[:4]]
            out = model(*columns, memory=memory)
            memory = out.memory
            logs = out.policy_logits.double().log_softmax(-1).cpu().numpy()
            here = slice(start, start + part["actions"].shape[1])
            labelled = part["labels"] != IGNORED
            label = np.where(labelled, part["labels"], 0)[..., None]
            totals[0, here] -= (np.take_along_axis(logs, label, -1)[..., 0] * labelled).sum(0)
            number[here] += labelled.sum(0)
            if values is not None:
                q = values[batch["task_index"][:, None], part["observations"]]
                for row, policy in ((1, np.exp(logs)), (2, np.full_like(logs, 1 / logs.shape[-1]))):
                    totals[row, here] += (_regret(policy, q) * labelled).sum(0)
    model.train(mode)
    with np.errstate(invalid="ignore"):
        means = totals / np.where(number > 0, number, np.nan)
    known = values is not None
    return ContextCurves(means[0], number, means[1] if known else None, means[2] if known else None)


def _regret(policy: Floats, q: Floats) -> Floats:
    """max Q - sum_a pi(a) Q(a mod n): policies (..., A), values (..., n)."""
    acted = np.arange(policy.shape[-1]) % q.shape[-1]
    return q.max(-1) - (policy * q[..., acted]).sum(-1)
