"""From a trained dense model to a low-rank one: the best factors, and which rank where.

Plain: W = U S V^T, cut at r, is the nearest matrix of rank r (Eckart, Young 1936). Whitened: nearest counts
for the inputs x that the layer really sees. With C = X^T X / N = L L^T, the SVD of W L cut at r minimises
||(W - B A) X^T||_F, and A = sqrt(S_r) V_r^T L^-1 undoes the whitening.
"""

from __future__ import annotations

import heapq
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import count
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import nn

from lpa.architectures import Site
from lpa.config import ATTENTION_ROLES, LPAConfig
from lpa.errors import LPAError, LPAWarning, RankError
from lpa.layers import LowRankLinear
from lpa.surgery import check_can_be_changed, install, part_weights, resolve_ranks, targeted_parts
from lpa.svd import svd_factors

Model = TypeVar("Model", bound=nn.Module)
Method: TypeAlias = Literal["svd", "whitened"]
Batch: TypeAlias = torch.Tensor | Mapping[str, Any]

DAMPING = 1e-6  # of the mean eigenvalue, where the second moment is singular


def factorize(
    model: Model, config: LPAConfig, method: Method = "svd", calibration: Iterable[Batch] | None = None
) -> Model:
    """Make the targeted matrices of a trained model low-rank, in place, and return the model.

    Each matrix becomes the product B A of rank `config.rank` nearest to it; q, k and v have their own factors
    also where the model keeps them in one matrix. A bias stays, on B. With `LPAConfig(rank=1.0,
    allow_expand=True)` nothing is lost. "whitened" needs `calibration`: batches as the model takes them,
    token ids (batch, length) or mappings with "input_ids"; a few thousand tokens. What "attention_mask" hides
    does not count. For each different input of a matrix (q, k and v share theirs) n_in^2 float64 numbers are
    kept.

    Raises `LPAError` for a model on the meta device, for settings that have no meaning for a trained model
    (`init` "matched" or "hf", `bottleneck`, `share_down`), for calibration that is missing, not needed, or
    has fewer tokens than the rank, and for all that `apply_lpa` refuses.
    """
    check_can_be_changed(model)
    _check_settings(config, method, calibration)
    targets = targeted_parts(model, config)
    _check_has_values(model, targets)
    ranks = {site: resolve_ranks(site, parts, config) for site, parts in targets.items()}
    moments = {} if calibration is None else second_moments(model, list(targets), calibration)
    for site, moment in moments.items():
        _check_tokens(site, moment.tokens, max(ranks[site].values()))
    moment_of = {site.full_name(part): moment for site, moment in moments.items() for part in ranks[site]}

    @lru_cache(maxsize=1)  # q, k and v, which share one, come one after another
    def square_root(moment: SecondMoment) -> tuple[torch.Tensor, torch.Tensor]:
        return _square_root(moment.mean())

    def fill(name: str, layer: LowRankLinear, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        if method == "svd":
            down, up = svd_factors(weight, layer.rank)
        else:
            down, up = _whitened_factors(weight, layer.rank, *square_root(moment_of[name]))
        layer.set_factors(down, up, bias)

    return install(model, config, fill)


@torch.no_grad()
def factors(
    weight: torch.Tensor, rank: int, method: Method = "svd", moment: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """A (rank, n_in) and B (n_out, rank) of the best product B A for `weight` (n_out, n_in).

    "svd" minimises ||W - B A||_F; "whitened" minimises ||(W - B A) X^T||_F, given the second moment
    C = X^T X / N (n_in, n_in) of the inputs. A singular C has 1e-6 of its mean eigenvalue added, with an
    `LPAWarning`. Computed in float64 ("svd": at least float32) and cast to the weight's dtype last.

    Raises `RankError` for an impossible rank and `LPAError` for another method or a moment that is missing,
    not wanted or of another shape.
    """
    n_out, n_in = weight.shape
    if not 1 <= rank <= min(n_in, n_out):
        raise RankError(
            f"rank is {rank}; a {n_out} x {n_in} matrix has factors of rank 1 to {min(n_in, n_out)}"
        )
    if method not in ("svd", "whitened"):
        raise LPAError(f"method is {method!r}; it may be 'svd' or 'whitened'")
    if method == "svd":
        if moment is not None:
            raise LPAError("method 'svd' does not look at inputs; to use them give method='whitened'")
        return svd_factors(weight, rank)
    if moment is None:
        raise LPAError("method 'whitened' needs inputs that the layer sees in use")
    if moment.shape != (n_in, n_in):
        raise LPAError(
            f"the second moment is {tuple(moment.shape)}; for {n_in} inputs it must be {(n_in, n_in)}"
        )
    return _whitened_factors(weight, rank, *_square_root(moment))


def _whitened_factors(
    weight: torch.Tensor, rank: int, root: torch.Tensor, inverse: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    down, up = svd_factors(weight.double() @ root, rank)
    return (down @ inverse).to(weight.dtype), up.to(weight.dtype)


def _square_root(moment: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """L with C = L L^T, and L^-1, both float64. By eigenvalues, which also show whether C is singular."""
    n_in = len(moment)
    values, vectors = torch.linalg.eigh(moment.double())
    if values[0] <= n_in * torch.finfo(torch.float64).eps * values[-1]:
        damping = DAMPING * float(values.mean())
        if damping <= 0:
            raise LPAError("the inputs are all zero: they do not say which directions matter")
        warnings.warn(
            f"the second moment of {n_in} inputs is singular: some directions never occur in the calibration "
            f"text. {damping:.3g} ({DAMPING:g} of the mean eigenvalue) was added to its diagonal",
            LPAWarning,
            stacklevel=3,
        )
        values = values.clamp(min=0) + damping
    scale = values.sqrt()
    return vectors * scale, (vectors / scale).T


def second_moment(inputs: torch.Tensor) -> torch.Tensor:
    """C = X^T X / N in float64 (n_in, n_in), for inputs (..., n_in). Raises `LPAError` if there are none."""
    moment = SecondMoment(inputs.shape[-1], inputs.device)
    moment.add(inputs)
    return moment.mean()


class SecondMoment:
    """The second moment of the inputs that one module, or several with the same input, see."""

    def __init__(self, n_in: int, device: torch.device | str = "cpu") -> None:
        self.total = torch.zeros(n_in, n_in, dtype=torch.float64, device=device)
        self.tokens = 0
        self.last: torch.Tensor | None = None
        """The tensor that was added last; it counts once, whoever gives it."""

    def add(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        """Add the rows of x (..., n_in), of which `mask` (one value a row) keeps some."""
        if x is self.last:
            return
        self.last = x
        rows = x.detach().reshape(-1, x.shape[-1]).double()
        if mask is not None and mask.numel() == len(rows):
            rows = rows[mask.reshape(-1).bool()]
        self.total += rows.T @ rows
        self.tokens += len(rows)

    def mean(self) -> torch.Tensor:
        """X^T X / N, (n_in, n_in)."""
        if not self.tokens:
            raise LPAError("no calibration token reached the layer: the batches are empty")
        return self.total / self.tokens


@torch.no_grad()
def second_moments(
    model: nn.Module, sites: Sequence[Site], calibration: Iterable[Batch]
) -> dict[Site, SecondMoment]:
    """Run the model on the batches and collect the second moment of every site's inputs.

    Sites that get the same tensor share one moment. Raises `LPAError` if no batch comes.
    """
    device = next(model.parameters()).device
    moments: dict[Site, SecondMoment] = {}
    mask: torch.Tensor | None = None

    def hook(site: Site) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def add(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            x = args[0]
            if site not in moments:
                shared = (moment for moment in moments.values() if moment.last is x)
                moments[site] = next(shared, None) or SecondMoment(site.n_in, x.device)
            moments[site].add(x, mask)

        return add

    was_training = model.training
    model.eval()
    with ExitStack() as hooks:
        for site in sites:
            handle = model.get_submodule(site.name).register_forward_pre_hook(hook(site))
            hooks.callback(handle.remove)
        hooks.callback(model.train, was_training)
        for batch in calibration:
            inputs = {"input_ids": batch} if isinstance(batch, torch.Tensor) else dict(batch)
            inputs = {
                key: value.to(device) if isinstance(value, torch.Tensor) else value
                for key, value in inputs.items()
            }
            mask = inputs.get("attention_mask")
            model(**inputs)
            for moment in moments.values():
                moment.last = None
    if not moments:
        raise LPAError("calibration has no batch; give some thousand tokens of text like the model's own")
    return moments


@torch.no_grad()
def ranks_by_energy(
    model: nn.Module, energy: float, targets: Sequence[str] = ATTENTION_ROLES
) -> dict[str, int]:
    """The lowest rank of each targeted matrix that keeps `energy` of its squared singular values.

    Returns a `rank_pattern` for `LPAConfig`. A rank may be at or above break-even, which `factorize` refuses
    by name unless `allow_expand`. Raises `LPAError` for an energy outside (0, 1].
    """
    if not 0 < energy <= 1:
        raise LPAError(f"energy is {energy}; it must be in (0, 1]")
    ranks = {}
    for name, spectrum in _spectra(model, targets).items():
        kept = spectrum.energy.cumsum(0) / spectrum.energy.sum()
        enough = kept >= energy * (1 - 1e-12)  # sums of all of it may come out just below 1
        ranks[_exactly(name, model)] = int(enough.int().argmax()) + 1
    return ranks


@torch.no_grad()
def ranks_by_budget(
    model: nn.Module, fraction: float, targets: Sequence[str] = ATTENTION_ROLES
) -> dict[str, int]:
    """The ranks that keep most of the matrices' energy in `fraction` of the targeted matrices' parameters.

    Water-filling: the next n_in + n_out parameters always go to the matrix where they keep the largest share
    of its squared singular values, a parameter. Ranks stay below break-even and every matrix has at least 1.
    Returns a `rank_pattern` for `LPAConfig`. Raises `LPAError` for a fraction outside (0, 1) or too small for
    rank 1 everywhere.
    """
    if not 0 < fraction < 1:
        raise LPAError(f"fraction is {fraction}; it must be between 0 and 1")
    spectra = _spectra(model, targets)
    budget = int(fraction * sum(spectrum.dense for spectrum in spectra.values()))
    left = budget - sum(spectrum.cost for spectrum in spectra.values())
    if left < 0:
        raise LPAError(
            f"{fraction:g} of the parameters of {len(spectra)} matrices is {budget:,}; rank 1 of each needs "
            f"{budget - left:,}. Give a larger fraction"
        )
    ranks = dict.fromkeys(spectra, 1)
    tie_break = count()
    waiting = [
        (-spectrum.gain(1), next(tie_break), name) for name, spectrum in spectra.items() if spectrum.most > 1
    ]
    heapq.heapify(waiting)
    while waiting:
        _, _, name = heapq.heappop(waiting)
        spectrum = spectra[name]
        if spectrum.cost > left:  # another matrix may be cheaper
            continue
        left -= spectrum.cost
        ranks[name] += 1
        if ranks[name] < spectrum.most:
            heapq.heappush(waiting, (-spectrum.gain(ranks[name]), next(tie_break), name))
    return {_exactly(name, model): rank for name, rank in ranks.items()}


class _Spectrum:
    """The squared singular values of one matrix, and what a rank of it costs."""

    def __init__(self, weight: torch.Tensor) -> None:
        n_out, n_in = weight.shape
        self.energy = torch.linalg.svdvals(weight.float()).double().square()
        self.cost, self.dense = n_in + n_out, n_in * n_out
        self.most = max(1, (self.dense - 1) // self.cost)  # the highest rank that saves something

    def gain(self, rank: int) -> float:
        """The share of energy that one rank more keeps, a parameter."""
        return float(self.energy[rank] / self.energy.sum() / self.cost)


def _spectra(model: nn.Module, targets: Sequence[str]) -> dict[str, _Spectrum]:
    found = targeted_parts(model, LPAConfig(rank=1, targets=tuple(targets)))
    _check_has_values(model, found)
    spectra: dict[str, _Spectrum] = {}
    for site, parts in found.items():
        weights = part_weights(model, site)
        spectra |= {site.full_name(part): _Spectrum(weights[part]) for part in parts}
    return spectra


def _exactly(name: str, model: nn.Module) -> str:
    """A pattern for this matrix alone, in the model as in the inner one that `AutoModel` makes of it."""
    base = getattr(model, "base_model_prefix", "")
    if not base:
        return f"^{re.escape(name)}$"
    return rf"^(?:{re.escape(base)}\.)?{re.escape(name.removeprefix(base + '.'))}$"


def _check_settings(config: LPAConfig, method: str, calibration: Iterable[Batch] | None) -> None:
    if method not in ("svd", "whitened"):
        raise LPAError(f"method is {method!r}; it may be 'svd' or 'whitened'")
    if method == "whitened" and calibration is None:
        raise LPAError("method 'whitened' needs calibration: batches of token ids like those of use")
    if method == "svd" and calibration is not None:
        raise LPAError("method 'svd' does not look at calibration; to use it give method='whitened'")
    if config.init in ("matched", "hf"):
        raise LPAError(
            f"init {config.init!r} is a start from scratch; factorize takes the values from the trained "
            "matrices. Leave it out, or use apply_lpa to train anew"
        )
    if config.bottleneck is not None:
        raise LPAError(
            f"bottleneck {config.bottleneck!r} puts a nonlinearity between A and B: no such layer is near a "
            "trained matrix. Leave it out, or use apply_lpa to train anew"
        )
    if config.share_down:
        raise LPAError(
            "share_down gives q, k and v one A; factorize finds the best A for each. Leave it out, or use "
            "apply_lpa to train anew"
        )


def _check_has_values(model: nn.Module, targets: Iterable[Site]) -> None:
    for site in targets:
        if any(parameter.is_meta for parameter in model.get_submodule(site.name).parameters()):
            raise LPAError(
                f"{site.name} is on the meta device and has no values to factorise. Load the model with its "
                "weights first; estimate works without them"
            )


def _check_tokens(site: Site, tokens: int, rank: int) -> None:
    if tokens < rank:
        raise LPAError(
            f"{site.name}: {tokens} calibration tokens cannot say which {rank} directions matter most. Give "
            f"at least {10 * site.n_in:,} tokens, or use method='svd'"
        )
    if tokens < site.n_in:
        warnings.warn(
            f"{site.name} has {site.n_in} inputs, more than the {tokens} calibration tokens: directions that "
            f"these do not show will be lost. Give at least {10 * site.n_in:,} tokens",
            LPAWarning,
            stacklevel=3,
        )
