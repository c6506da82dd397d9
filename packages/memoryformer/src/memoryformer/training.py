"""Training set-up (section 4 of the paper and the released configs), and a guard against divergence.

AdamW with betas (0.9, 0.95) and weight decay 0.1 on matrices and tables; gradients clipped to a norm of 1;
the learning rate raised for 1 % of the steps and lowered along a cosine to 1 % of its peak, which is three
times that of the dense transformer. Table gradients are dense, so no sparse optimizer is needed.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from memoryformer.errors import MemoryFormerError, MemoryFormerWarning, MissingExtraError

if TYPE_CHECKING:
    from transformers import TrainerCallback

ADVICE = (
    "Lower the peak learning rate: Table 4 of the paper has its best perplexity at 3e-3 for a width of 512 "
    "(1e-3: 19.86, 2e-3: 19.07, 3e-3: 18.82, 4e-3: 18.84), three times the rate of the dense transformer; "
    "wider models take less (1.8e-3 at 768, 9e-4 at 1024). Or warm up for longer, clip gradients to a norm "
    "of 1.0, or use score='softmax', whose weights stay below 1."
)


def param_groups(model: nn.Module, weight_decay: float = 0.1) -> list[dict[str, Any]]:
    """Parameter groups for any optimizer of torch: tables and matrices decay, biases and norms do not.

    Groups named "decay" and "no_decay"; each trainable parameter is in one, shared ones once, and empty
    groups are left out. What has fewer than two dimensions is a bias or a norm. Of a model that is partly
    distributed (tensor parallel), that part is in groups of its own: torch's optimizers refuse a mixture.

    Raises `MemoryFormerError` for a negative `weight_decay` and if nothing is trainable.
    """
    if weight_decay < 0:
        raise MemoryFormerError(f"weight_decay is {weight_decay}; it must be 0 or more")
    groups: dict[tuple[bool, Any], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            kind = (parameter.dim() > 1, getattr(parameter, "device_mesh", None))
            groups.setdefault(kind, []).append(parameter)
    if not groups:
        raise MemoryFormerError(f"{type(model).__name__} has no parameter to train")
    return [
        {
            "name": "decay" if decays else "no_decay",
            "params": parameters,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (decays, _), parameters in groups.items()
    ]


def cosine_schedule(
    optimizer: torch.optim.Optimizer, steps: int, warmup: float = 0.01, floor: float = 0.01
) -> torch.optim.lr_scheduler.LambdaLR:
    """The released configs' schedule, as shares of the peak: linear up, then a cosine down to `floor`.

    `warmup` is the share of the `steps` that the rise takes (at least one step). Raises `MemoryFormerError`
    unless `steps` is at least 1 and the two shares lie in [0, 1].
    """
    if steps < 1 or not 0 <= warmup <= 1 or not 0 <= floor <= 1:
        raise MemoryFormerError(
            f"steps is {steps}, warmup {warmup} and floor {floor}; steps must be at least 1, the others "
            "lie in [0, 1]"
        )
    rise = max(1, round(warmup * steps))

    def share(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        done = min(1.0, (step - rise) / max(1, steps - 1 - rise))
        return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


class GradientGuard:
    """Notices from the norm of the gradient, before it is clipped, that training diverges.

        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if guard(norm, lr=scheduler.get_last_lr()[0]):
            optimizer.step()

    A norm is high if it is more than `factor` times the median of the last `window` that were not. One high
    norm is clipped and forgotten; `patience` in a row, or a single one that is not finite, mean divergence.
    """

    def __init__(
        self,
        factor: float = 10.0,
        patience: int = 5,
        window: int = 50,
        action: Literal["raise", "warn"] = "raise",
    ) -> None:
        if factor <= 1 or patience < 1 or window < 1:
            raise MemoryFormerError(
                f"factor is {factor}, patience {patience} and window {window}; factor must be above 1, the "
                "others at least 1"
            )
        if action not in ("raise", "warn"):
            raise MemoryFormerError(f"action is {action!r}; it may be 'raise' or 'warn'")
        self.factor, self.patience, self.action = factor, patience, action
        self.steps = 0
        self._high = 0
        self._told = False
        self._usual: deque[float] = deque(maxlen=window)

    def __call__(self, norm: float | Tensor, lr: float | None = None) -> bool:
        """Take the norm of one step; True if the optimizer may step, False if the gradient is not finite.

        Raises `MemoryFormerError` with the advice of Table 4 at divergence, or warns once each time it
        begins with action="warn". `lr`, the present learning rate, is named in the message.
        """
        norm = float(norm)
        self.steps += 1
        finite = math.isfinite(norm)
        if finite and not (self._usual and norm > self.factor * statistics.median(self._usual) > 0):
            self._usual.append(norm)
            self._high, self._told = 0, False
            return True
        self._high += 1
        if not self._told and (not finite or self._high == self.patience):
            self._told = True
            self._tell(norm, lr)
        return finite

    def _tell(self, norm: float, lr: float | None) -> None:
        usual = f", usually {statistics.median(self._usual):.3g}" if self._usual else ""
        rate = "" if lr is None else f" at a learning rate of {lr:.3g}"
        message = (
            f"training diverges: the norm of the gradient is {norm:.3g}{usual}, in step {self.steps}{rate}. "
            f"{ADVICE}"
        )
        if self.action == "raise":
            raise MemoryFormerError(message)
        warnings.warn(message, MemoryFormerWarning, stacklevel=3)


def trainer_callback(guard: GradientGuard) -> TrainerCallback:
    """`guard` for transformers' `Trainer(callbacks=[...])`: it sees every gradient norm that is logged.

    The Trainer clips and steps by itself, so that here a norm that is not finite is told after its step.
    Raises `MissingExtraError` naming what to install where transformers is missing.
    """
    try:
        from transformers import TrainerCallback
    except ImportError:
        raise MissingExtraError(
            "trainer_callback needs transformers: pip install 'memoryformer[hf]'"
        ) from None

    class Guard(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "grad_norm" in logs:
                guard(logs["grad_norm"], logs.get("learning_rate"))

    return Guard()
