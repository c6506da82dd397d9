"""The low-rank layer, alone and with its neighbours.

`LowRankLinear` takes the place of one `nn.Linear`. The A's of q, k and v read the same x; for many tokens
that reading costs more than the arithmetic, so one product with the stacked A's computes all three
(`StackedDown` where q, k and v are separate modules, `FusedLowRank` where the model has one matrix for them).
The parameters stay separate, in the state dict too.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import nn
from torch.nn import functional as F

from lpa.config import Init, check_rank
from lpa.errors import LPAError, RankError
from lpa.init import initialize_bias, initialize_factors


class LowRankLinear(nn.Module):
    """y = B (A x + a) + b, with nothing between A and B (section 2; `bottleneck="silu"` is not LPA).

    x is (..., in_features), y (..., out_features). `down` holds A (rank, in_features) and a, `up` holds
    B (out_features, rank) and b, both `nn.Linear`. W = B A is never formed in `forward`. With `init=None` no
    parameter has values yet: whoever makes the layer gives them.

    Raises `RankError` for a rank that is not a whole number in 1..min(in_features, out_features), `LPAError`
    for an `init` that there is not, and for "spectral", which starts from a dense layer: see `from_linear`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        bias_down: bool = False,
        bias_up: bool = False,
        *,
        init: Init | None = "torch",
        bottleneck: Literal["silu"] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_rank(rank)
        if not isinstance(rank, int) or rank > min(in_features, out_features):
            raise RankError(
                f"rank is {rank!r}; between {in_features} inputs and {out_features} outputs it must be "
                f"a whole number from 1 to {min(in_features, out_features)}"
            )
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.bottleneck = bottleneck
        if init not in (None, "torch", "hf", "matched"):
            raise LPAError(
                f"init is {init!r}; a new layer's may be 'torch', 'hf' or 'matched' ('spectral' decomposes a "
                "dense layer: LowRankLinear.from_linear)"
            )
        device = device or torch.get_default_device()
        self.down = nn.utils.skip_init(
            nn.Linear, in_features, rank, bias=bias_down, device=device, dtype=dtype
        )
        self.up = nn.utils.skip_init(nn.Linear, rank, out_features, bias=bias_up, device=device, dtype=dtype)
        self.stack: StackedDown | None = None
        """Set where neighbours compute their A's together."""
        self.was_conv1d = False
        """Whether it stands for a transposed matrix (GPT-2); `merge` asks."""
        if init is not None:
            self.reset_parameters(init)

    def reset_parameters(
        self,
        init: Init = "torch",
        *,
        std: float | None = None,
        dense: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Start anew; see `lpa.init` for the schemes. Biases start as PyTorch starts those of `nn.Linear`."""
        if self.down.weight.is_meta:
            return
        initialize_factors(self.down.weight, self.up.weight, init, std=std, dense=dense, generator=generator)
        for layer in (self.down, self.up):
            if layer.bias is not None:
                initialize_bias(layer.bias, layer.in_features, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) -> (..., out_features)."""
        return self.expand(self.latent(x))

    def latent(self, x: torch.Tensor) -> torch.Tensor:
        """z = A x + a (through the bottleneck's activation, if there is one): (..., rank)."""
        return self.activate(self.down(x) if self.stack is None else self.stack(self, x))

    def activate(self, z: torch.Tensor) -> torch.Tensor:
        """The bottleneck's activation, which LPA does not have."""
        return F.silu(z) if self.bottleneck == "silu" else z

    def expand(self, z: torch.Tensor) -> torch.Tensor:
        """y = B z + b: (..., rank) -> (..., out_features)."""
        return self.up(z)

    def effective_weight(self) -> torch.Tensor:
        """W = B A, (out_features, in_features), multiplied in at least float32.

        Raises `LPAError` with a bottleneck, or an adapter on A or B.
        """
        self._check_product()
        return (_precise(self.up.weight) @ _precise(self.down.weight)).to(self.up.weight.dtype)

    def effective_bias(self) -> torch.Tensor | None:
        """c = B a + b, (out_features,); None where there is neither a nor b."""
        self._check_product()
        bias = None if self.up.bias is None else _precise(self.up.bias)
        if self.down.bias is not None:
            moved = _precise(self.up.weight) @ _precise(self.down.bias)
            bias = moved if bias is None else moved + bias
        return None if bias is None else bias.to(self.up.weight.dtype)

    @torch.no_grad()
    def to_linear(self) -> nn.Linear:
        """The dense layer that computes the same."""
        bias = self.effective_bias()
        weight = self.effective_weight()
        linear = nn.utils.skip_init(
            nn.Linear,
            self.in_features,
            self.out_features,
            bias=bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
        return linear.train(self.training)

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        rank: int,
        method: Literal["svd", "whitened"] = "svd",
        inputs: torch.Tensor | None = None,
    ) -> LowRankLinear:
        """The best low-rank layer for a trained dense one; see `lpa.factorization.factors`.

        `inputs` (..., in_features) are what the layer sees in use; "whitened" needs them.
        """
        from lpa.factorization import factors, second_moment

        moment = None if inputs is None else second_moment(inputs)
        down, up = factors(linear.weight.detach(), rank, method, moment)
        layer = cls(
            linear.in_features,
            linear.out_features,
            rank,
            bias_up=linear.bias is not None,
            init=None,
            device=linear.weight.device,
            dtype=linear.weight.dtype,
        )
        layer.set_factors(down, up, linear.bias)
        return layer.train(linear.training)

    @torch.no_grad()
    def set_factors(self, down: torch.Tensor, up: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        """Copy A, B and b into the parameters; a, if there is one, becomes 0."""
        self.down.weight.copy_(down)
        self.up.weight.copy_(up)
        if self.down.bias is not None:
            self.down.bias.zero_()
        if self.up.bias is not None and bias is not None:
            self.up.bias.copy_(bias)

    def _check_product(self) -> None:
        if self.bottleneck is not None:
            raise LPAError(
                f"a layer with bottleneck {self.bottleneck!r} is not linear: no dense matrix does the same"
            )
        for name, factor in (("A (down)", self.down), ("B (up)", self.up)):
            if not isinstance(factor, nn.Linear):  # its adapter would be left out
                raise LPAError(
                    f"an adapter is on {name}, a {type(factor).__module__}.{type(factor).__name__}: call "
                    "merge_and_unload() first, and go on with the model that it returns"
                )

    def extra_repr(self) -> str:
        """Shown by `print(model)`, and by PEFT where an adapter is put on the whole layer."""
        shown = f"rank={self.rank}" + (f", bottleneck={self.bottleneck}" if self.bottleneck else "")
        return f"{shown}; adapters such as LoRA go on its down and up, see lpa.lora_targets"


class StackedDown:
    """One product for the A's of layers that are called one after another on the same x.

    The first layer's call computes the latents of all; each of the others then takes its own, once, if it is
    called with that very tensor, unchanged, and computes it alone otherwise. So no result depends on who
    calls when, in this thread or another. Not a module: it owns no parameters.
    """

    def __init__(self, layers: Sequence[LowRankLinear]) -> None:
        self.layers = list(layers)
        self._waiting = _Waiting()

    def __call__(self, layer: LowRankLinear, x: torch.Tensor) -> torch.Tensor:
        """A x + a of `layer`: (..., in_features) -> (..., rank)."""
        # The compiler sees three products with one operand and may stack them itself; state would stop it.
        if torch.compiler.is_compiling():
            return layer.down(x)
        try:
            index = self.layers.index(layer)
        except ValueError:  # a replica of nn.DataParallel: it has copies of the factors
            return layer.down(x)
        waiting = self._waiting
        if x is waiting.x and index in waiting.latents and waiting.state == self._now(x):
            z = waiting.latents.pop(index)
            if not waiting.latents:
                waiting.x = None
            return z
        downs = [member.down for member in self.layers]
        if index or not stacking_pays(downs, x):
            return layer.down(x)
        z, *others = stacked_latents(downs, x)
        waiting.x, waiting.state = x, self._now(x)
        waiting.latents = dict(enumerate(others, start=1))
        return z

    def _now(self, x: torch.Tensor) -> tuple[int, ...]:
        """What changes when x or a weight is written to, or gradients are switched on or off."""
        tensors = (x, *(layer.down.weight for layer in self.layers))
        versions = (0 if tensor.is_inference() else tensor._version for tensor in tensors)
        return torch.is_grad_enabled(), *versions


class _Waiting(threading.local):
    """What the first layer's call has computed for the others; each thread has its own, a copy nothing."""

    def __init__(self) -> None:
        self.x: torch.Tensor | None = None
        self.state: tuple[int, ...] = ()
        self.latents: dict[int, torch.Tensor] = {}

    def __reduce__(self) -> tuple[type[_Waiting], tuple[()]]:
        return _Waiting, ()


def stacked_latents(downs: Sequence[nn.Linear], x: torch.Tensor) -> list[torch.Tensor]:
    """[A_1 x + a_1, A_2 x + a_2, ...] by one product; a module that is given several times counts once."""
    different = list(dict.fromkeys(downs))
    weight = torch.cat([down.weight for down in different])
    bias = None if different[0].bias is None else torch.cat([down.bias for down in different])
    parts = F.linear(x, weight, bias).split([down.out_features for down in different], dim=-1)
    found = dict(zip(different, parts, strict=True))
    return [found[down] for down in downs]


def stacking_pays(downs: Sequence[nn.Module], x: torch.Tensor) -> bool:
    """Say whether the stacked product is possible and worth the copy of the weights that it needs.

    Copying the A's moves 2 (sum of ranks) n_in numbers; x is then read once instead of once a layer, which
    saves more as soon as there are about as many tokens as ranks. Where something else hooks into a `down` (a
    LoRA adapter, a parallel plan, a shard, an offloader), each must be called on its own.
    """
    if not all(_is_plain(down) for down in downs) or len({down.bias is None for down in downs}) > 1:
        return False
    return x.numel() // max(1, x.shape[-1]) >= sum(cast(nn.Linear, down).out_features for down in downs)


def _is_plain(layer: nn.Module) -> bool:
    """A linear layer with an ordinary parameter (no shard, no quantised tensor), and no hook of any kind."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return (
        type(layer) is nn.Linear
        and type(layer.weight) in (nn.Parameter, torch.Tensor)
        and "forward" not in vars(layer)  # replaced on the instance, as accelerate and parallel plans do
        and not any(hooks)
    )


@dataclass(frozen=True)
class FusedLayout:
    """How several matrices lie in one: `groups` times, `sizes[i]` rows of matrix i.

    q, k, v one after another (GPT-2, Phi-3) are one group; GPT-NeoX, BLOOM and Falcon have a group a
    key-value head.
    """

    groups: int
    sizes: tuple[int, ...]

    def split(self, fused: torch.Tensor) -> list[torch.Tensor]:
        """(groups * sum(sizes), ...) -> one (groups * size, ...) each."""
        grouped = fused.unflatten(0, (self.groups, -1)).split(self.sizes, dim=1)
        return [part.flatten(0, 1) for part in grouped]

    def join(self, parts: Sequence[torch.Tensor], dim: int = -1) -> torch.Tensor:
        """The inverse of `split`, along the first or the last dimension."""
        if self.groups == 1:
            return torch.cat(list(parts), dim)
        start = dim if dim >= 0 else parts[0].dim() + dim
        # By size, not by number of groups: under tensor parallelism a process has some of the groups.
        grouped = [part.unflatten(start, (-1, size)) for part, size in zip(parts, self.sizes, strict=True)]
        return torch.cat(grouped, start + 1).flatten(start, start + 1)


class FusedLowRank(nn.Module):
    """Takes the place of one matrix that holds several, each of which has its own A and B.

    Factorising the fused matrix as a whole would give q, k and v one common subspace, which is another
    method. Parts that are not to be low-rank are plain `nn.Linear`. Maps x (..., n_in) to
    (..., sum of n_out), laid out as the model expects.
    """

    def __init__(self, parts: Mapping[str, nn.Module], layout: FusedLayout, stacked: bool = True) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.names = tuple(parts)
        self.layout = layout
        self.stacked = stacked
        self.was_conv1d = False

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The layers by role, in the layout's order."""
        return {name: getattr(self, name) for name in self.names}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., n_in) -> (..., sum of n_out)."""
        low = [part for part in self.parts.values() if isinstance(part, LowRankLinear)]
        downs = [part.down for part in low]
        if not (self.stacked and len(low) > 1 and stacking_pays(downs, x)):
            return self.layout.join([part(x) for part in self.parts.values()])
        latents = dict(zip(low, stacked_latents(downs, x), strict=True))
        return self.layout.join(
            [
                part.expand(part.activate(latents[part])) if part in latents else part(x)
                for part in self.parts.values()
            ]
        )

    @torch.no_grad()
    def to_linear(self) -> nn.Linear:
        """The dense layer that computes the same, rows in the model's layout."""
        parts = self.parts.values()
        dense = [
            part.to_linear() if isinstance(part, LowRankLinear) else cast(nn.Linear, part) for part in parts
        ]
        weight = self.layout.join([layer.weight for layer in dense], dim=0)
        biases = [layer.bias for layer in dense]
        linear = nn.utils.skip_init(
            nn.Linear,
            weight.shape[1],
            weight.shape[0],
            bias=biases[0] is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        linear.weight.copy_(weight)
        if biases[0] is not None:
            linear.bias.copy_(self.layout.join(biases, dim=0))
        return linear.train(self.training)


def _precise(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
