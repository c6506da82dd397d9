"""From a dense model to a low-rank one and back, in place: `apply_lpa`, `merge`, `is_lpa`."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lpa import hf
from lpa.architectures import (
    Site,
    head_dim,
    is_matrix,
    module_names,
    replace_module,
    sites,
    without_layers,
)
from lpa.config import LPAConfig
from lpa.errors import LPAError, LPAWarning, RankError
from lpa.layers import FusedLowRank, LowRankLinear, StackedDown

Model = TypeVar("Model", bound=nn.Module)

LowRank: TypeAlias = LowRankLinear | FusedLowRank

# Fills a new layer from the dense matrix (n_out, n_in) and bias of the part of that name.
Fill = Callable[[str, LowRankLinear, torch.Tensor, torch.Tensor | None], None]


def apply_lpa(model: Model, config: LPAConfig, *, generator: torch.Generator | None = None) -> Model:
    """Make the targeted matrices of `model` low-rank, for training from scratch, and return the model.

    Works in place on any causal language model of transformers that keeps its attention where others do, and
    on the meta device. The new factors start as `config.init` says, drawn from `generator` (default:
    torch's); what was trained before is lost: to convert a trained model use `factorize`. A bias of the dense
    layer stays, on B. Run it after `from_config`, whose initialisation is not run again on the new factors.

    Raises `RankError` for a rank that is impossible or, without `allow_expand`, at or above the break-even
    rank n_in n_out / (n_in + n_out), or with `share_down` not the same for q, k and v; `LPAError` for a model
    that is low-rank already or quantised, an encoder-decoder model, or one in which a target, a layer or
    what a pattern means is not found. Warns (`LPAWarning`) where the rank is below
    the width of a head.
    """
    std = getattr(getattr(model, "config", None), "initializer_range", None)

    def fill(name: str, layer: LowRankLinear, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        if weight.is_meta:
            return
        scale = {"matched": float(weight.float().std()), "hf": std}.get(config.init)
        layer.reset_parameters(config.init, std=scale, dense=weight, generator=generator)
        if bias is not None and layer.up.bias is not None:
            with torch.no_grad():
                layer.up.bias.copy_(bias)

    return install(model, config, fill)


def install(model: Model, config: LPAConfig, fill: Fill) -> Model:
    """Replace every targeted matrix of `model`; `fill` gives the new layers their values. See `apply_lpa`."""
    check_can_be_changed(model)
    targets = targeted_parts(model, config)
    ranks = {site.name: resolve_ranks(site, parts, config) for site, parts in targets.items()}
    if config.share_down:
        _check_equal_ranks(targets, ranks)
    _check_not_tied(model, targets)
    _warn_of_narrow_ranks(model, targets, ranks)
    for site in targets:
        dense = model.get_submodule(site.name)
        low = _low_rank(site, dense, ranks[site.name], config, fill)
        low.was_conv1d = isinstance(dense, Conv1D)
        replace_module(model, site.name, low)
    link_neighbours(model, config)
    if config.lm_head_bias:
        give_head_a_bias(model)
    mark_initialized(model)
    hf.attach(model, config)
    return model


def targeted_parts(model: nn.Module, config: LPAConfig) -> dict[Site, list[str]]:
    """The sites that `config` changes, each with the names of its parts that become low-rank.

    Raises `LPAError` if one of the roles, expressions and layers is not found, or a pattern of
    `rank_pattern` fits none of these parts.
    """
    found: dict[Site, list[str]] = {}
    for site in sites(model):
        parts = [part for part, _ in site.parts if site.is_targeted(part, config)]
        if parts:
            found[site] = parts
    _check_all_found(model, config, found)
    return found


def _check_all_found(model: nn.Module, config: LPAConfig, found: Mapping[Site, list[str]]) -> None:
    roles = {site.role_of(part) for site, parts in found.items() for part in parts}
    names = [site.full_name(part) for site, parts in found.items() for part in parts]
    missing = sorted(config.roles - roles) + _matching_none(config.expressions, names)
    absent = set(config.layers or ()) - {site.layer for site in found} if config.roles else set()
    if missing or absent:
        wanted = ", ".join(missing or sorted(config.roles))
        layers = config.layers if missing else sorted(absent)
        where = f" in the layers {', '.join(map(str, layers))}" if layers else ""
        raise LPAError(
            f"{type(model).__name__} has no matrix for the targets {wanted}{where}. Its matrices are: "
            f"{', '.join(module_names(model))}. Name those you mean by a regular expression: "
            'LPAConfig(rank=..., targets=(r"attention\\.query$",))'
        )
    unused = _matching_none(config.rank_pattern or (), names)
    if unused:
        raise LPAError(
            f"rank_pattern has {', '.join(map(repr, unused))}, found in the name of no matrix that is to be "
            f"low-rank. These are, layer numbers as *: {', '.join(without_layers(names))}"
        )


def _matching_none(expressions: Iterable[str], names: Iterable[str]) -> list[str]:
    names = list(names)
    return [one for one in expressions if not any(re.search(one, name) for name in names)]


def resolve_ranks(site: Site, parts: list[str], config: LPAConfig) -> dict[str, int]:
    """The rank of each part. Raises `RankError` where it is impossible or saves nothing."""
    ranks = {}
    for part, n_out in site.parts:
        if part not in parts:
            continue
        name = site.full_name(part)
        rank = config.rank_for(name, site.n_in, n_out)
        low, dense = rank * (site.n_in + n_out), site.n_in * n_out
        if low >= dense and not config.allow_expand:
            raise RankError(
                f"{name}: rank {rank} saves nothing. Its {n_out} x {site.n_in} matrix has {dense:,} "
                f"parameters, the two factors would have {low:,}; they have fewer below rank "
                f"{dense / (site.n_in + n_out):g}. Choose a lower rank (rank_pattern sets it for some "
                "matrices), leave the matrix out of targets, or give allow_expand=True"
            )
        ranks[part] = rank
    return ranks


def _check_equal_ranks(targets: Mapping[Site, list[str]], ranks: Mapping[str, Mapping[str, int]]) -> None:
    """With `share_down` q, k and v of an attention have one A, so one rank."""
    first: dict[str, tuple[str, int]] = {}
    for site, parts in targets.items():
        parent, _, own_name = site.name.rpartition(".")
        attention = site.name if site.layout else parent
        for part in parts:
            if (part or own_name.removesuffix("_proj")) not in ("q", "k", "v"):
                continue
            name, rank = site.full_name(part), ranks[site.name][part]
            other, shared = first.setdefault(attention, (name, rank))
            if rank != shared:
                raise RankError(
                    f"share_down gives q, k and v one A, and so one rank; {other} has rank {shared} and "
                    f"{name} rank {rank}. Give rank as a whole number (a fraction is one of each matrix's "
                    "smaller side) and none of the three another by rank_pattern"
                )


def _low_rank(
    site: Site, dense: nn.Module, ranks: Mapping[str, int], config: LPAConfig, fill: Fill
) -> LowRank:
    weight, bias = _matrix(dense)
    if site.layout is None:
        return _layer(site.full_name(""), weight, bias, ranks[""], config, fill, dense.training)
    weights = site.layout.split(weight)
    biases = [None] * len(weights) if bias is None else site.layout.split(bias)
    parts: dict[str, nn.Module] = {}
    for (part, _), part_weight, part_bias in zip(site.parts, weights, biases, strict=True):
        if part in ranks:
            name = site.full_name(part)
            parts[part] = _layer(name, part_weight, part_bias, ranks[part], config, fill, dense.training)
        else:
            parts[part] = _dense_layer(part_weight, part_bias, dense.training)
    return FusedLowRank(parts, site.layout, stacked=config.fused).train(dense.training)


def _layer(
    name: str,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    rank: int,
    config: LPAConfig,
    fill: Fill,
    training: bool,
) -> LowRankLinear:
    layer = LowRankLinear(
        weight.shape[1],
        weight.shape[0],
        rank,
        bias_up=bias is not None,
        init=None,  # no values yet: `fill` gives them
        bottleneck=config.bottleneck,
        device=weight.device,
        dtype=weight.dtype,
    )
    fill(name, layer, weight, bias)
    return layer.train(training)


@torch.no_grad()
def _dense_layer(weight: torch.Tensor, bias: torch.Tensor | None, training: bool) -> nn.Linear:
    layer = nn.Linear(
        weight.shape[1], weight.shape[0], bias=bias is not None, device=weight.device, dtype=weight.dtype
    )
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias.copy_(bias)
    return layer.train(training)


def _matrix(module: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(n_out, n_in) and bias of a dense layer."""
    dense = cast(nn.Linear, module)
    weight = dense.weight.detach()
    bias = None if dense.bias is None else dense.bias.detach()
    return (weight.T if isinstance(module, Conv1D) else weight), bias


def part_weights(model: nn.Module, site: Site) -> dict[str, torch.Tensor]:
    """The matrix (n_out, n_in) of each part of a site, multiplied out where it is low-rank."""
    module = model.get_submodule(site.name)
    dense = module.to_linear() if isinstance(module, LowRankLinear | FusedLowRank) else module
    weight, _ = _matrix(dense)
    weights = [weight] if site.layout is None else site.layout.split(weight)
    return {part: values for (part, _), values in zip(site.parts, weights, strict=True)}


def link_neighbours(model: nn.Module, config: LPAConfig) -> None:
    """Let q, k and v of each attention compute their A's together (`fused`) or have one A (`share_down`)."""
    for group in _neighbours(model):
        if config.share_down:
            for layer in group[1:]:
                layer.down = group[0].down
        stack = StackedDown(group) if config.fused or config.share_down else None
        for layer in group:
            layer.stack = stack


def _neighbours(model: nn.Module) -> list[list[LowRankLinear]]:
    """The low-rank q, k and v of each attention, where there are at least two of them."""
    groups = []
    for module in model.modules():
        if isinstance(module, FusedLowRank):
            children: list[Any] = [part for name, part in module.parts.items() if name in ("q", "k", "v")]
        else:
            children = [getattr(module, f"{role}_proj", None) for role in ("q", "k", "v")]
        low = [child for child in children if isinstance(child, LowRankLinear)]
        if len(low) > 1 and len({child.in_features for child in low}) == 1:
            groups.append(low)
    return groups


def give_head_a_bias(model: nn.Module) -> None:
    """Give the head, if the model has one, a bias of 0 unless it has one (official setting 2)."""
    head: Any = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    if head is not None and head.bias is None:
        head.bias = nn.Parameter(torch.zeros_like(head.weight[:, 0]))


def mark_initialized(model: nn.Module) -> None:
    """Tell transformers that the factors have their values, so that its own initialisation leaves them."""
    for name in low_rank_names(model):
        marked: list[Any] = [*model.get_submodule(name).modules(), *model.get_submodule(name).parameters()]
        parent = model.get_submodule(name.rpartition(".")[0])
        if not [*parent.parameters(recurse=False), *parent.buffers(recurse=False)]:
            marked.append(parent)  # GPT-2 starts its output matrices from there
        for thing in marked:
            thing._is_hf_initialized = True


def is_lpa(model: nn.Module) -> bool:
    """Say whether any matrix of the model is low-rank by this package."""
    return any(isinstance(module, LowRankLinear | FusedLowRank) for module in model.modules())


@torch.no_grad()
def merge(model: Model, dtype: torch.dtype | None = None) -> Model:
    """Return a plain copy of the model in which every product B A is one matrix again.

    The copy has no trace of lpa: it loads where lpa is not installed (vLLM, llama.cpp). Products are computed
    in at least float32 and cast last, to `dtype` if given. The model itself is not changed.

    Raises `LPAError` if the model is not low-rank, has a bottleneck or has an adapter on a factor, or is
    not itself the model that was made low-rank but something around it, as a `PeftModel` is.
    """
    if not is_lpa(model):
        raise LPAError(f"{type(model).__name__} has no low-rank matrix: there is nothing to merge")
    if not isinstance(model, PreTrainedModel) and hf.attached_config(model) is None:
        raise LPAError(
            f"{type(model).__name__} is not the model that was made low-rank, but has it inside: give merge "
            "that one (of a PeftModel, what its merge_and_unload() returns)"
        )
    dense = copy.deepcopy(model)
    if dtype is not None:
        dense = dense.to(torch.float64 if dtype == torch.float64 else torch.float32)
    for name in low_rank_names(dense):
        replace_module(dense, name, _dense_module(cast(LowRank, dense.get_submodule(name))))
    config = hf.attached_config(model)
    if config is not None and config.lm_head_bias:
        warnings.warn(
            f"the head has a bias, which {type(model).__name__} has not: in the merged model it works, but "
            "from_pretrained and other programs will not read it from a checkpoint",
            LPAWarning,
            stacklevel=3,  # beyond the wrapper of no_grad
        )
    hf.detach(dense)
    return dense if dtype is None else dense.to(dtype)


def low_rank_names(model: nn.Module) -> list[str]:
    """The names of the low-rank modules, of those with several parts the outer one."""
    found = [
        name for name, module in model.named_modules() if isinstance(module, LowRankLinear | FusedLowRank)
    ]
    return [name for name in found if name.rpartition(".")[0] not in found]


def _dense_module(module: LowRank) -> nn.Module:
    """The dense layer, of the class that the model's own code and checkpoints have."""
    linear = module.to_linear()
    if not module.was_conv1d:
        return linear
    conv = Conv1D(linear.out_features, linear.in_features).to(linear.weight.device, linear.weight.dtype)
    conv.weight.copy_(linear.weight.T)
    conv.bias.copy_(linear.bias)
    return conv.train(module.training)


def check_can_be_changed(model: nn.Module) -> None:
    """Raise `LPAError` for a model that is low-rank already or quantised."""
    if is_lpa(model):
        raise LPAError(
            f"{type(model).__name__} is low-rank already. "
            "To change its ranks, factorize(merge(model), config)"
        )
    quantised = hf.foreign_quantisation(model)
    quantised = quantised or next(
        (
            type(module).__name__
            for module in model.modules()
            if is_matrix(module) and not cast(nn.Linear, module).weight.is_floating_point()
        ),
        None,
    )
    if quantised:
        raise LPAError(
            f"{type(model).__name__} is quantised ({quantised}); its matrices cannot be factorised. Load it "
            "without quantisation, or call model.dequantize() first"
        )


def _check_not_tied(model: nn.Module, targets: Iterable[Site]) -> None:
    """A matrix that two places of the model share would become two different ones."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for site in targets:
        name = f"{site.name}.weight"
        own = id(model.get_submodule(site.name).weight)
        others = [other for other in names.get(own, ()) if other != name]
        if others:
            raise LPAError(
                f"{name} is tied to {', '.join(others)}: low-rank factors in its place would no longer be. "
                "Untie them (give one a copy of the parameter), or leave both out of targets"
            )


def _warn_of_narrow_ranks(
    model: nn.Module, targets: Mapping[Site, list[str]], ranks: Mapping[str, Mapping[str, int]]
) -> None:
    width = head_dim(model) if hasattr(model, "config") else None
    narrow = sorted(
        {
            rank
            for site in targets
            for part, rank in ranks[site.name].items()
            if site.role_of(part) in ("q", "k", "v", "o")
        }
    )
    if width and narrow and narrow[0] < width:
        warnings.warn(
            f"rank {narrow[0]} is below the head width {width}: single heads lose rank, not only the stack "
            "of heads. The paper's ranks are above the head width",
            LPAWarning,
            stacklevel=4,
        )
