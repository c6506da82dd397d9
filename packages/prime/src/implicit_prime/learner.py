"""A language model that learns: where it lies, its log-probs, and one optimiser step of a mini-batch.

All processes hold a step's responses whole and take micro-batches of them in turn. A loss is a weighted sum
over responses whose weights are those of the whole mini-batch, so that gradients only have to be summed and
nothing depends on how many processes there are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.distributed
import torch.nn.functional as F
from accelerate.utils import DistributedType, gather_object
from torch import Tensor, nn

from implicit_prime.errors import PrimeError
from implicit_prime.responses import Responses
from implicit_prm.backends.hf import without_dropout
from implicit_prm.logprobs import causal_log_probs

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")


class Learner:
    """A causal language model, the parameters of it that are trained, and their AdamW (0.9, 0.999).

    adapter  the name of the PEFT adapter that is trained, where a policy and a PRM share one model

    Under FSDP2 the model is sharded in place, else every process has a copy.
    """

    def __init__(
        self,
        model: nn.Module,
        accelerator: Accelerator,
        *,
        learning_rate: float,
        weight_decay: float,
        max_grad_norm: float,
        adapter: str | None = None,
    ) -> None:
        without_dropout(model)
        model.train()  # without dropout the mode matters to gradient checkpointing alone
        self.accelerator = accelerator
        self.adapter = adapter
        self.max_grad_norm = max_grad_norm
        self.model = placed(model, accelerator)
        named = self.model.named_parameters()
        if adapter is None:
            self.parameters = [weight for _, weight in named if weight.requires_grad]
        else:
            self.parameters = [weight for name, weight in named if f".{adapter}." in name]
            for weight in self.parameters:  # PEFT loads adapters frozen
                weight.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=learning_rate, weight_decay=weight_decay)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """For whole phases, gradients included: the model with this learner's adapter."""
        with active_adapter(self.model, self.adapter):
            yield

    def log_probs(self, part: Responses) -> Tensor:
        """log p of the responses' tokens, [b, T], differentiable; 0 outside the mask."""
        with forward_precision(self.accelerator):
            inputs = part.input_ids, part.attention_mask
            found = causal_log_probs(self.model, *inputs, completion_mask=part.completion_mask)
        return found[:, part.prompt_length :]

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro-batch's share of the loss."""
        # FSDP2 takes the mean over processes; the losses are shares of one sum.
        (loss * self.accelerator.num_processes if is_sharded(self.accelerator) else loss).backward()

    def step(self) -> float:
        """Update by the sum of the gradients, and return its norm before clipping.

        Where the norm is no number nothing is changed, on no process.
        """
        if self.accelerator.num_processes > 1 and not is_sharded(self.accelerator):
            for weight in self.parameters:
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                torch.distributed.all_reduce(weight.grad)
        found: Any = nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        norm = float(found.full_tensor() if hasattr(found, "full_tensor") else found)
        if torch.tensor(norm).isfinite():
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm


def placed(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """The model sharded by FSDP2, or on this process's device.

    Raises `PrimeError` for launches that are not supported.
    """
    if accelerator.mixed_precision not in ("no", "bf16"):
        raise PrimeError(
            f"mixed_precision is {accelerator.mixed_precision!r}: log-ratios need bf16 or no mixed precision"
        )
    if accelerator.distributed_type.value in ("DEEPSPEED", "MEGATRON_LM"):
        raise PrimeError(
            f"{accelerator.distributed_type.value} is not supported: launch with FSDP2 (fsdp_version: 2) or "
            "plain processes, or use the verl integration"
        )
    if not is_sharded(accelerator):
        model.to(accelerator.device)
        if accelerator.num_processes > 1:
            for weight in model.parameters():  # a new adapter is random, in each process otherwise
                torch.distributed.broadcast(weight.data, 0)
        return model
    if not accelerator.is_fsdp2:
        raise PrimeError("models can only be sharded by FSDP2: set fsdp_version to 2")
    if hasattr(model, "peft_config"):
        raise PrimeError("adapters are not supported under FSDP2: launch plain processes")
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    return cast(nn.Module, fsdp2_prepare_model(accelerator, model))


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether models are sharded over the processes."""
    return bool(accelerator.distributed_type == DistributedType.FSDP)


def forward_precision(accelerator: Accelerator) -> contextlib.AbstractContextManager[Any]:
    """Autocast as launched; FSDP2 casts by its own policy."""
    return (
        contextlib.nullcontext()
        if is_sharded(accelerator)
        else cast(contextlib.AbstractContextManager[Any], accelerator.autocast())
    )


@contextlib.contextmanager
def active_adapter(model: Any, adapter: str | None) -> Iterator[None]:
    """A PEFT model with another adapter; None: as it is."""
    before = model.active_adapter if adapter is not None else None
    if adapter == before:
        yield
        return
    model.set_adapter(adapter)
    try:
        yield
    finally:
        model.set_adapter(before)


def micro_batches(rows: Sequence[Tensor], size: int) -> list[Tensor]:
    """Sets of rows (int64 [n] each), which stay whole, joined in their order up to `size` rows."""
    parts: list[list[Tensor]] = []
    room = 0
    for together in rows:
        if not parts or len(together) > room:
            parts.append([])
            room = size
        parts[-1].append(together)
        room -= len(together)
    return [torch.cat(part) for part in parts]


def shared_out(
    parts: Sequence[Tensor], accelerator: Accelerator, compute: Callable[[Tensor, float], T]
) -> list[T]:
    """`compute(rows, weight)` of every part, each on one process; the results of all of them everywhere.

    All processes compute as often, as collectives of sharded models need: a process without a part repeats
    one with weight 0, whose result is dropped. Results go through pickle, so they belong on the CPU.
    """
    count, rank = accelerator.num_processes, accelerator.process_index
    mine: list[tuple[int, T]] = []
    for first in range(0, len(parts), count):
        number = first + rank
        exists = number < len(parts)
        result = compute(parts[number if exists else first], float(exists))
        if exists:
            mine.append((number, result))
    everything = mine if count == 1 else gather_object(mine)
    return [result for _, result in sorted(everything, key=lambda pair: pair[0])]


def spread(parts: Sequence[Tensor], found: Sequence[Tensor], rows: int, width: int) -> Tensor:
    """Values [n, t] of the parts' rows as one tensor [rows, width], 0 where there are none."""
    whole = torch.zeros(rows, width)
    for part, values in zip(parts, found, strict=True):
        whole[part] = F.pad(values, (0, width - values.shape[1]))
    return whole


def by_length(batch: Responses, size: int) -> list[Tensor]:
    """All rows in micro-batches with little padding."""
    order = batch.lengths().argsort(descending=True, stable=True)
    return list(order.split(size))
