"""Learning rates and weight decay of the two factors.

Weight decay on A and B separately pulls on (|A|^2 + |B|^2) / 2, which is at least the nuclear norm of B A: it
lowers the rank. Decay of the product, 0.5 lambda |B A|^2, does what it does to a dense matrix (Khodak et al.
2021); its gradients (B^T B) A and B (A A^T) need r x r matrices only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from lpa.errors import LPAError
from lpa.layers import LowRankLinear
from lpa.surgery import is_lpa


def param_groups(
    model: nn.Module,
    *,
    lr: float,
    lr_down: float | None = None,
    lr_up: float | None = None,
    weight_decay: float = 0.0,
    decay: Literal["factors", "product", "none"] = "factors",
) -> list[dict[str, Any]]:
    """Parameter groups for any optimiser of torch: "down" (all A), "up" (all B), "matrices", "vectors".

    `lr_down` and `lr_up` are the learning rates of the A's and B's, by default `lr`. `weight_decay` is that
    of the other matrices and embeddings; vectors (biases, norms) have none. `decay` says what it does to A
    and B: "factors" decays each, "none" neither, "product" neither by itself: give the optimiser to
    `add_product_decay`. Each trainable parameter is in one group, and empty groups are left out.

    Raises `LPAError` for another `decay` and for a model that is not low-rank.
    """
    if decay not in ("factors", "product", "none"):
        raise LPAError(f"decay is {decay!r}; it may be 'factors', 'product' or 'none'")
    if not is_lpa(model):
        raise LPAError(f"{type(model).__name__} has no low-rank matrix; apply_lpa makes some")
    layers = list(_layers(model))
    kind = {id(layer.down.weight): "down" for layer in layers} | {
        id(layer.up.weight): "up" for layer in layers
    }
    members: dict[str, list[nn.Parameter]] = {"down": [], "up": [], "matrices": [], "vectors": []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            name = kind.get(id(parameter), "matrices" if parameter.dim() > 1 else "vectors")
            members[name].append(parameter)
    rates = {"down": lr_down, "up": lr_up}
    factor_decay = weight_decay if decay == "factors" else 0.0
    decays = {"down": factor_decay, "up": factor_decay, "matrices": weight_decay, "vectors": 0.0}
    return [
        {
            "name": name,
            "params": parameters,
            "lr": lr if rates.get(name) is None else rates[name],
            "weight_decay": decays[name],
        }
        for name, parameters in members.items()
        if parameters
    ]


def add_product_decay(
    optimizer: torch.optim.Optimizer, model: nn.Module, weight_decay: float
) -> RemovableHandle:
    """Decay every product B A of the model by `weight_decay` before each step of the optimiser.

    Decoupled from the gradient, as in AdamW: A -= lr weight_decay (B^T B) A, B -= lr weight_decay B (A A^T),
    with the learning rate that the optimiser then has for each. A hook is no part of the optimiser's
    state dict: add it again after resuming. Returns the handle that removes it.

    Raises `LPAError` for a model that is not low-rank or has a bottleneck, or whose factors the optimiser
    does not have.
    """
    layers = list(_layers(model))
    if not layers:
        raise LPAError(f"{type(model).__name__} has no low-rank matrix; apply_lpa makes some")
    if any(layer.bottleneck for layer in layers):
        raise LPAError("with a bottleneck there is no product B A to decay; use decay='factors'")
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    factors = [weight for layer in layers for weight in (layer.down.weight, layer.up.weight)]
    if any(weight.requires_grad and id(weight) not in known for weight in factors):
        raise LPAError("the optimiser does not have all factors of the model: was it made before apply_lpa?")

    @torch.no_grad()
    def decay(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        rates = {
            id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]
        }
        changes: list[
            tuple[torch.Tensor, torch.Tensor]
        ] = []  # all from the values before the step: layers may share an A
        for layer in layers:
            pair = (layer.down.weight, layer.up.weight)
            changes += zip(pair, product_decay_gradients(layer), strict=True)
        for weight, gradient in changes:
            if id(weight) in rates:
                weight -= rates[id(weight)] * weight_decay * gradient

    return optimizer.register_step_pre_hook(decay)


def product_decay_gradients(layer: LowRankLinear) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of 0.5 |B A|^2, (B^T B) A (r, n_in) and B (A A^T) (n_out, r)."""
    down, up = layer.down.weight.detach(), layer.up.weight.detach()
    return (up.T @ up) @ down, up @ (down @ down.T)


def _layers(model: nn.Module) -> Iterator[LowRankLinear]:
    return (module for module in model.modules() if isinstance(module, LowRankLinear))
