"""Log-probs of chosen tokens without their logits: of a head by chunks, and of a whole causal model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.functional import token_log_probs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Whether a model returns its head's output as it is; found out before its first call.
_RETURNS_HEAD_OUTPUT: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def causal_log_probs(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    chunk_size: int = 1024,
    completion_mask: Tensor | None = None,
    packed: bool = False,
) -> Tensor:
    """log p(input_ids[:, t] | input_ids[:, :t]) under a causal language model, [B, T], differentiable.

    `input_ids` and `attention_mask` are [B, T]; the mask is 0 at padding, on either side, and positions count
    from the first real token, so that both sides give the same numbers. The result is float32 (float64 of a
    float64 model) and 0 where there is nothing to predict from: at padding and at the first token of a row.
    `completion_mask` [B, T] asks for the marked tokens only: the others are 0 and their part of the head is
    not computed. `packed` feeds the real tokens end to end as one row, so that padding costs nothing;
    positions begin anew with each row, by which transformers' attention tells them apart (`check_packing`).

    `model` is a `transformers` causal model, bare or inside DDP, FSDP2 or PEFT: it is called as it stands,
    but for the forward of its output embedding, which for the call returns log-probs, `chunk_size` tokens at
    a time. No [B, T, V] tensor is made. Where the head is not a plain linear layer, or the model caps, scales
    or cuts its logits (Gemma 2, Cohere, Granite), the logits are made whole; the result is the same. Two
    threads must not call one model at once.

    Raises `ImplicitPRMError` for a model without output embeddings and for shapes that do not fit.
    """
    for name, mask in (("attention_mask", attention_mask), ("completion_mask", completion_mask)):
        if mask is not None and (input_ids.ndim != 2 or mask.shape != input_ids.shape):
            raise ImplicitPRMError(
                f"input_ids {tuple(input_ids.shape)} and {name} {tuple(mask.shape)} must be [rows, tokens]"
            )
    base, _ = _causal_model(model)
    real = attention_mask.bool()
    wanted = real[:, 1:] & real[:, :-1]
    if completion_mask is not None:
        wanted = wanted & completion_mask[:, 1:].bool()
    inputs = _inputs(base, input_ids, attention_mask)
    # Each token is predicted at the place before its own.
    places = nn.functional.pad(wanted, (0, 1))
    if packed:
        rows = {name: inputs[name][real][None] for name in ("input_ids", "position_ids")}
        inputs, places = rows | {"use_cache": False}, places[real][None]
    found = chosen_log_probs(model, inputs, input_ids[:, 1:][wanted], places, chunk_size)
    return _spread(nn.functional.pad(wanted, (1, 0)), found)


@torch.no_grad()
def check_packing(model: nn.Module) -> None:
    """Raise `ImplicitPRMError` if `model` lets sequences that lie end to end in one row see each other."""
    base, _ = _causal_model(model)
    if "position_ids" not in inspect.signature(base.forward).parameters:
        raise ImplicitPRMError(
            f"{type(base).__name__} takes no position_ids, so it cannot tell packed sequences apart: leave "
            "padding_free off"
        )
    device = next(base.parameters()).device
    positions = torch.tensor([[0, 1, 0, 1]], device=device)
    training = base.training
    base.eval()
    second = [
        base(
            input_ids=torch.tensor([[first, 0, 0, 1]], device=device), position_ids=positions, use_cache=False
        )
        .logits[0, 2:]
        .float()
        for first in (0, 1)
    ]
    base.train(training)
    if not torch.equal(*second):
        raise ImplicitPRMError(
            f"{type(base).__name__} with attention {base.config._attn_implementation!r} lets packed "
            "sequences see each other: leave padding_free off"
        )


def chosen_log_probs(
    model: nn.Module, inputs: dict[str, Any], targets: Tensor, places: Tensor, chunk_size: int = 1024
) -> Tensor:
    """log p of the token that follows each of n places, when `model` is called with `inputs`: [n].

    `places` is bool [B, T], T the tokens fed (a cache may hold more before them); `targets` [n] are the
    tokens in the order of `places`, row after row. What is said of `causal_log_probs` holds here too.
    """
    base, head = _causal_model(model)
    if _is_plain(head) and _returns_head_output(model, base, head, targets.device):
        found = _through_the_head(model, base, head, inputs, targets, places, chunk_size)
        if found is not None:
            return found
        raise ImplicitPRMError(
            f"{type(base).__name__} does other things to its logits than at its first call: "
            "wrap a model before it is called first"
        )
    logits = model(**inputs).logits[places]
    chunks = zip(logits.split(chunk_size), targets.split(chunk_size), strict=True)
    return torch.cat([token_log_probs(*chunk) for chunk in chunks])


def _causal_model(model: nn.Module) -> tuple[PreTrainedModel, nn.Module]:
    """The model of `transformers` inside whatever wraps it, and its output embedding."""
    from transformers import PreTrainedModel

    base = next((part for part in model.modules() if isinstance(part, PreTrainedModel)), None)
    head = None if base is None else base.get_output_embeddings()
    if base is None or head is None:
        raise ImplicitPRMError(
            f"{type(base or model).__name__} has no output embedding: an implicit PRM is a causal language "
            "model of transformers; load it with AutoModelForCausalLM"
        )
    return base, head


def _inputs(base: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Any]:
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "use_cache": False}
    # Models without positions of their own (ALiBi, state spaces) read the mask alone.
    if "position_ids" in inspect.signature(base.forward).parameters:
        inputs["position_ids"] = (attention_mask.long().cumsum(1) - 1).clamp_min(0)
    return inputs


def _is_plain(head: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether the head is hidden @ weight.T + bias: no adapter, no quantisation, no hook in its forward."""
    return (
        isinstance(head, nn.Linear)
        and type(head).forward is nn.Linear.forward
        and "forward" not in vars(head)
    )


def _returns_head_output(model: nn.Module, base: nn.Module, head: nn.Linear, device: torch.device) -> bool:
    """Whether nothing is done to the head's output, seen on two tokens once a model.

    Not on the batch itself: a cache among its inputs grows at every call. Dropout draws its random numbers
    aside, so that a run that goes on after an interruption draws what it would have drawn.
    """
    if base not in _RETURNS_HEAD_OUTPUT:
        ids = torch.zeros(1, 2, dtype=torch.long, device=device)
        inputs, place = _inputs(base, ids, torch.ones_like(ids)), torch.tensor([[True, False]], device=device)
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            seen = _through_the_head(model, base, head, inputs, ids[0, 1:], place, chunk_size=1)
        _RETURNS_HEAD_OUTPUT[base] = seen is not None
    return _RETURNS_HEAD_OUTPUT[base]


def _through_the_head(
    model: nn.Module,
    base: nn.Module,
    head: nn.Linear,
    inputs: dict[str, Any],
    targets: Tensor,
    places: Tensor,
    chunk_size: int,
) -> Tensor | None:
    """The log-probs as the head's output; None where the model returns something else than that output."""
    made: list[Tensor] = []
    untouched: list[bool] = []
    base_forward = base.forward

    def head_forward(hidden: Tensor) -> Tensor:
        # The weight is read here, where FSDP has gathered it.
        chosen = linear_log_probs(hidden[places], head.weight, targets, chunk_size, head.bias)
        # The last axis stands for the vocabulary, so that what a model does to its logits runs.
        made.append(_spread(places[..., None], chosen))
        return made[-1]

    # Not a forward hook: PEFT calls the forward of the model inside it, past the model's hooks.
    def watched_forward(*args: Any, **kwargs: Any) -> Any:
        output = base_forward(*args, **kwargs)
        untouched.append(len(made) == 1 and getattr(output, "logits", None) is made[0])
        return output

    with _replaced_forward(head, head_forward), _replaced_forward(base, watched_forward):
        logits = model(**inputs).logits
    if untouched != [True]:
        return None
    # FSDP2 under mixed precision casts what a model returns to bfloat16, too coarse for a log-prob.
    whole: Tensor = logits if logits.dtype == made[0].dtype else made[0]
    return whole[places][:, 0]


@contextmanager
def _replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    before = vars(module).get("forward")  # accelerate, too, puts a forward on the instance
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def _spread(places: Tensor, values: Tensor) -> Tensor:
    """`values` [n] at the n marked `places`, 0 elsewhere; no view, which FSDP2 warns of."""
    return values.new_zeros(places.shape).masked_scatter(places, values)


def linear_log_probs(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk_size: int = 1024, bias: Tensor | None = None
) -> Tensor:
    """log_softmax(hidden @ weight.T + bias) at `targets`, `chunk_size` rows at a time (section 8).

    `hidden` [N, d], `weight` [V, d], `targets` [N] whole numbers, `bias` [V] or None: [N], float32 (float64
    for float64). The products are taken in the dtype of the tensors, or in autocast's, and the softmax in
    float32. No [N, V] tensor is kept: the backward pass begins with the chunk that the forward pass ended
    with, which is kept for it, and computes the logits of the others again. That costs up to a third more
    products than keeping all, and nothing for N within `chunk_size`; nor where the head is frozen: then the
    forward pass, with the logits at hand, takes the slopes of `hidden` too. Gradients go to `hidden`,
    `weight` and `bias`, once differentiable.
    On a GPU the kernels of `implicit-prm-triton` do it where they are installed.

    Raises `ImplicitPRMError` for shapes that do not fit and for `chunk_size` below 1.
    """
    if chunk_size < 1:
        raise ImplicitPRMError(f"chunk_size must be at least 1 row, not {chunk_size}")
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ImplicitPRMError(
            f"hidden {tuple(hidden.shape)} and weight {tuple(weight.shape)} must be [N, d] and [V, d]"
        )
    if targets.shape != hidden.shape[:1]:
        raise ImplicitPRMError(f"targets {tuple(targets.shape)} must be [{len(hidden)}], one a row of hidden")
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    kernels = _kernels(hidden)
    if kernels is not None and torch.float64 not in (hidden.dtype, weight.dtype):
        common = dtype or torch.promote_types(hidden.dtype, weight.dtype)
        narrow = [None if x is None else x.to(common) for x in (hidden, weight, bias)]
        found: Tensor = kernels.linear_log_probs(
            narrow[0], narrow[1], targets, narrow[2], chunk_size=chunk_size
        )
        return found
    result: Tensor = LinearLogProb.apply(hidden, weight, bias, targets, chunk_size, dtype)
    return result


def _kernels(hidden: Tensor) -> Any:
    """The package of kernels, where there is one for the device of `hidden`."""
    if not hidden.is_cuda:
        return None
    try:
        import implicit_prm_triton
    except ImportError:
        return None
    return implicit_prm_triton


class LinearLogProb(torch.autograd.Function):
    """The head's log-probs; keeps the last chunk of logits or, of a frozen head, the slope of every row.

    d log p_y / d logits is onehot(y) - softmax, so a row's gradient is a slope that the forward pass knows,
    times the number that comes back; a weight's gradient is a sum over rows, and must wait for the numbers.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        chunk_size: int,
        dtype: torch.dtype | None,
    ) -> Tensor:
        chosen = hidden.new_empty(len(hidden), dtype=_wide_dtype(hidden))
        normaliser = torch.empty_like(chosen)
        trained = any(ctx.needs_input_grad[1:3])
        ctx.frozen, ctx.last = ctx.needs_input_grad[0] and not trained, None
        slopes = torch.empty_like(hidden) if ctx.frozen else None
        head = _Head(hidden, weight, bias, chunk_size, dtype)
        for rows, logits in head.chunks(len(hidden)):
            chosen[rows] = logits.gather(1, targets[rows, None])[:, 0]
            highest = logits.amax(1, keepdim=True)
            # In place: torch.logsumexp would hold a second chunk.
            total = logits.sub_(highest).exp_().sum(1)
            normaliser[rows] = total.log().add_(highest[:, 0])
            if slopes is not None:
                slope = logits.div_(-total[:, None])
                slope.scatter_add_(1, targets[rows, None], torch.ones_like(slope[:, :1]))
                slopes[rows] = head.times_weight(slope)
            elif trained and rows.stop == len(hidden):
                ctx.last = rows, logits, total
        if slopes is not None:
            ctx.save_for_backward(slopes)
        else:
            ctx.save_for_backward(hidden, weight, bias, targets, normaliser)
            ctx.chunk_size, ctx.dtype = chunk_size, dtype
        return chosen - normaliser

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        if ctx.frozen:
            (slopes,) = ctx.saved_tensors
            return (slopes * grad[:, None]).to(slopes.dtype), None, None, None, None, None
        hidden, weight, bias, targets, normaliser = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        wide = _wide_dtype(hidden)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        # Summed over chunks in float32 whatever the dtype of the weights, as one product would be.
        grad_weight = torch.zeros_like(weight, dtype=wide) if needs_weight else None
        grad_bias = torch.zeros_like(bias, dtype=wide) if needs_bias else None
        head = _Head(hidden, weight, bias, ctx.chunk_size, ctx.dtype)
        last, ctx.last = ctx.last, None  # it is written over; a second pass over the graph computes it again
        for rows, slope in _slopes(head, grad, normaliser, last):
            slope.scatter_add_(1, targets[rows, None], grad[rows, None])
            if grad_bias is not None:
                grad_bias += slope.sum(0)
            if grad_hidden is not None:
                grad_hidden[rows] = head.times_weight(slope)
            if grad_weight is not None:
                _add_product(grad_weight, slope.to(head.hidden.dtype).T, head.hidden[rows])
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            *(None, None, None),
        )


class _Head:
    """hidden @ weight.T + bias in one dtype, a chunk at a time in one buffer."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        chunk_size: int,
        dtype: torch.dtype | None,
    ) -> None:
        self.hidden, self.weight = hidden.to(dtype or hidden.dtype), weight.to(dtype or weight.dtype)
        self.bias = None if bias is None else bias.to(self.weight.dtype)
        self.chunk_size = chunk_size

    def times_weight(self, slope: Tensor) -> Tensor:
        """What a slope of logits is in the hidden states: slope @ weight, in the head's dtype."""
        return slope.to(self.weight.dtype) @ self.weight

    def chunks(self, count: int, buffer: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
        """The first `count` rows and their logits, float32 or float64; only the first chunk may be short.

        The caller may write over them, the next chunk does. `buffer` is a chunk to write to, else made.
        """
        if buffer is None:
            buffer = self.hidden.new_empty(min(self.chunk_size, count), len(self.weight))
        first = count % self.chunk_size or self.chunk_size
        with torch.autocast(self.hidden.device.type, enabled=False):
            for stop in range(first, count + 1, self.chunk_size):
                rows = slice(max(0, stop - self.chunk_size), stop)
                logits = torch.mm(self.hidden[rows], self.weight.T, out=buffer[: rows.stop - rows.start])
                if self.bias is not None:
                    logits += self.bias
                yield rows, logits.to(_wide_dtype(logits))


def _slopes(
    head: _Head, grad: Tensor, normaliser: Tensor, last: tuple[slice, Tensor, Tensor] | None
) -> Iterator[tuple[slice, Tensor]]:
    """-grad * softmax, a chunk of rows at a time; of the `last` rows there are e^logits and their sums."""
    count, buffer = len(grad), None
    if last is not None:
        rows, powers, total = last
        yield rows, powers.mul_((grad[rows] / total).neg_()[:, None])
        count, buffer = rows.start, powers if powers.dtype == head.hidden.dtype else None
    for rows, logits in head.chunks(count, buffer):
        yield rows, logits.sub_(normaliser[rows, None]).exp_().mul_(-grad[rows, None])


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _wide_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
