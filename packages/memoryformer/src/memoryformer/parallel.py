"""Tables over several processes, with `torch.distributed.tensor`.

    mesh = init_device_mesh("cuda", (8,))
    parallelize_module(model, mesh, memoryformer.parallel.plan(model))

Each of P processes holds 1/P of the tables. Either columns, as with `ColwiseParallel`: all processes hash all
chunks and fetch their part of each row; y is gathered, and the gradient of the input summed. Or the tables of
some chunks, as with `RowwiseParallel`: a process hashes its chunks only; y is summed, and the gradient of the
input gathered. Importing this module teaches DTensor how `memoryformer::lookup` may be sharded, so that other
layouts run too, such as tokens split over processes. `fully_shard` (FSDP2) needs no plan.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Placement,
    Replicate,
    Shard,
    distribute_module,
    distribute_tensor,
)
from torch.distributed.tensor.experimental import register_sharding
from torch.distributed.tensor.parallel import ParallelStyle
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from memoryformer import ops
from memoryformer.errors import MemoryFormerError
from memoryformer.layers import LookupLayer
from memoryformer.statistics import memory_layers

Split = Literal["columns", "chunks"]

# What each process holds of a layer's tensors; what is not named is whole in every process.
PLACEMENTS: dict[str, dict[str, Placement]] = {
    "columns": {"tables": Shard(2), "bias": Shard(0)},
    "chunks": {"tables": Shard(0), "scales": Shard(0)},
}


def plan(model: nn.Module, split: Split = "columns") -> dict[str, ParallelStyle]:
    """The plan of all memory layers of any model, for `parallelize_module`: names -> styles.

    Inputs and outputs of the layers are whole in every process, so that what lies between them needs no
    change. `split` "columns" gathers outputs, "chunks" sums them, which moves twice as much, but divides the
    hash. Quantized layers can be split too. Raises `MemoryFormerError` if the model has no memory layer or
    for another `split`; applying the plan raises it where the processes do not divide a layer's tables.
    """
    return {name: TableParallel(split) for name in memory_layers(model)}


def clip_grad_norm_(model: nn.Module, max_norm: float) -> Tensor:
    """`torch.nn.utils.clip_grad_norm_` where only some parameters are distributed, which torch refuses.

    Returns the norm of the whole gradient, the same in every process; 0 if there is none.
    """
    by_mesh: dict[DeviceMesh | None, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.grad is not None:
            by_mesh.setdefault(getattr(parameter, "device_mesh", None), []).append(parameter)
    if not by_mesh:
        return torch.zeros(())
    norms = [get_total_norm([p.grad for p in group if p.grad is not None]) for group in by_mesh.values()]
    norm = torch.stack([norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]).norm()
    for group in by_mesh.values():
        clip_grads_with_norm_(group, max_norm, norm)
    return norm


class TableParallel(ParallelStyle):
    """Splits one memory layer by the "columns" or the "chunks" of its tables.

    Takes a tensor that is the same in every process, or a DTensor of any layout, and returns the former.
    """

    def __init__(self, split: Split = "columns") -> None:
        super().__init__()
        if split not in PLACEMENTS:
            raise MemoryFormerError(f"split is {split!r}; it may be 'columns' or 'chunks'")
        self.split = split

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if not isinstance(module, LookupLayer):
            raise MemoryFormerError(f"TableParallel splits memory layers, not {type(module).__name__}")
        count = module.out_features if self.split == "columns" else module.num_chunks
        if count % device_mesh.size():
            raise MemoryFormerError(
                f"{device_mesh.size()} processes do not divide the {count} {self.split} of {module}"
            )
        enter, leave = cast(Any, _enter), cast(Any, _leave)  # torch's types forget that they return
        return distribute_module(module, device_mesh, self._partition, enter, leave)

    def _partition(self, name: str, module: nn.Module, mesh: DeviceMesh) -> None:
        placements = PLACEMENTS[self.split]
        for key, tensor in [*module.named_parameters(), *module.named_buffers()]:
            placement = placements.get(key, Replicate())
            part: Tensor = distribute_tensor(tensor, mesh, [placement], src_data_rank=self.src_data_rank)
            if isinstance(tensor, nn.Parameter):
                part = nn.Parameter(part, requires_grad=tensor.requires_grad)
            setattr(module, key, part)


def _enter(module: nn.Module, inputs: tuple[Any, ...], mesh: DeviceMesh) -> DTensor:
    x = inputs[0]
    if not isinstance(x, DTensor):
        x = DTensor.from_local(x, mesh, [Replicate()], run_check=False)
    return x.redistribute(placements=[Replicate()])


def _leave(module: nn.Module, output: DTensor, mesh: DeviceMesh) -> Tensor:
    return output.redistribute(placements=[Replicate()]).to_local()


@register_sharding(ops.lookup)
def _(z: Any, tables: Any, bias: Any, scales: Any, score: str, temperature: float) -> list[Any]:
    """Acceptable placements of (y, codes, weights) and of the inputs, for one mesh dimension."""

    def option(
        outputs: list[Placement],
        z_at: Placement,
        tables_at: Placement,
        bias_at: Placement,
        scales_at: Placement,
    ) -> tuple[list[Placement], list[Placement | None]]:
        optional = [None if bias is None else bias_at, None if scales is None else scales_at]
        return outputs, [z_at, tables_at, *optional, None, None]

    whole = Replicate()
    return [
        option([whole, whole, whole], whole, whole, whole, whole),
        option([Shard(0), Shard(0), Shard(0)], Shard(0), whole, whole, whole),  # tokens
        option([Shard(1), whole, whole], whole, Shard(2), Shard(0), whole),  # columns
        option([Partial(), Shard(1), Shard(1)], Shard(1), Shard(0), Partial(), Shard(0)),  # chunks
    ]


@register_sharding(ops.lookup_backward)
def _(
    grad_y: Any,
    z: Any,
    tables: Any,
    codes: Any,
    weights: Any,
    score: str,
    temperature: float,
    needs: list[bool],
) -> list[Any]:
    """Acceptable placements of the gradients of (z, tables, bias) and of the five inputs."""

    def option(
        outputs: list[Placement], *inputs: Placement
    ) -> tuple[list[Placement], list[Placement | None]]:
        # A gradient that is not needed is an empty tensor, which cannot be split.
        needed = [place if need else Replicate() for place, need in zip(outputs, needs, strict=True)]
        return needed, [*inputs, None, None, None]

    whole = Replicate()
    return [
        option([whole, whole, whole], whole, whole, whole, whole, whole),
        option([Shard(0), Partial(), Partial()], Shard(0), Shard(0), whole, Shard(0), Shard(0)),
        option([Partial(), Shard(2), Shard(0)], Shard(1), whole, Shard(2), whole, whole),
        option([Shard(1), Shard(0), whole], whole, Shard(1), Shard(0), Shard(1), Shard(1)),
    ]
