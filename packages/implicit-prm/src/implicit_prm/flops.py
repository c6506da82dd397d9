"""FLOPs of making data and of training (Figure 2): counted tokens times what a token costs in a model.

A multiply-add is 2 FLOPs and attention is counted over the whole square, as in torch's `FlopCounterMode`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from implicit_prm.errors import ImplicitPRMError
from implicit_prm.pairing import has_contrast, pair_indices, right_responses

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from implicit_prm.encoding import Encoded

# Backward, a product of two matrices costs two of its size.
_TRAINING = 3


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """What went through a model; counts add up.

    tokens   positions that went through the layers
    pairs    pairs of a position and one that it attends to (L * L for a row of L tokens), of one layer
    outputs  positions for which the output head made logits
    """

    tokens: int = 0
    pairs: int = 0
    outputs: int = 0

    def __add__(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(self.tokens + other.tokens, self.pairs + other.pairs, self.outputs + other.outputs)

    def __mul__(self, times: int) -> TokenCounts:
        """So many passes over the same, such as epochs."""
        return TokenCounts(self.tokens * times, self.pairs * times, self.outputs * times)


def reading_counts(lengths: Iterable[int]) -> TokenCounts:
    """Rows of these lengths, prompt and response together, each read in one pass: to train or to score."""
    lengths = list(lengths)
    return TokenCounts(sum(lengths), sum(length * length for length in lengths), sum(lengths))


def writing_counts(prompt: int, lengths: Iterable[int]) -> TokenCounts:
    """Samples of these lengths after one prompt of `prompt` tokens, which is read once, with a cache.

    Every token of a sample but its last is read to write the next one; it attends to all before it.
    """
    lengths = list(lengths)
    read = [length - 1 for length in lengths]
    # prompt + 1, ..., prompt + length - 1 positions in turn
    pairs = sum(count * prompt + count * (count + 1) // 2 for count in read)
    return TokenCounts(prompt + sum(read), prompt * prompt + pairs, 1 + sum(read))


def measure_flops(model: PreTrainedModel, counts: TokenCounts, *, training: bool = False) -> int:
    """FLOPs of `counts` in a model of transformers: forward, or forward and backward.

    Products of matrices only, as `FlopCounterMode` counts them: all weights of two dimensions once a token,
    the output head (if the model is a language model) once an output, attention 4 x heads x their size a
    pair and layer. Adapters count as what they are. Training is three times the forward pass, without what
    gradient checkpointing computes again; frozen weights are counted as if they were trained.

    The model may be on the device "meta". Raises `ImplicitPRMError` for a mixture of experts, of which a
    token takes but some.
    """
    weights = {id(weight): weight for weight in model.parameters()}
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            weights.pop(id(module.weight), None)
    head = model.get_output_embeddings()
    output = 0
    if head is not None:
        output = head.weight.numel()
        weights.pop(id(head.weight), None)
    if any(weight.ndim > 2 for weight in weights.values()):
        raise ImplicitPRMError(
            f"{type(model).__name__} has weights of more than two dimensions, as mixtures of experts have; "
            "only dense models are counted"
        )
    token = sum(weight.numel() for weight in weights.values() if weight.ndim == 2)
    config = model.config.get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    pair = 2 * config.num_hidden_layers * config.num_attention_heads * size
    flops = 2 * (token * counts.tokens + pair * counts.pairs + output * counts.outputs)
    return flops * _TRAINING if training else flops


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs of a reward model: of making its data (responses and labels), and of training it."""

    collection: int
    training: int

    @property
    def total(self) -> int:
        """Both together, which the paper's Figure 2 compares."""
        return self.collection + self.training


def compare_costs(
    model: PreTrainedModel,
    responses: Sequence[Encoded],
    step_ends: Sequence[Sequence[int]],
    labels: Sequence[float] | None = None,
    *,
    completions: int = 8,
    epochs: int = 1,
) -> dict[str, Cost]:
    """What reward models cost on the same responses of a model: "ce", "dpo" and "math-shepherd" (Figure 2).

    step_ends    inclusive index of the last token of each response's steps
    labels       whether the responses are right; without them, and where no prompt has both right and
                 wrong responses, there is no "dpo", which is trained on one-to-one pairs only

    The responses have been written by the model itself, a prompt read once for all of its own. The implicit
    models' reference reads what they are trained on once. Math-Shepherd completes every step but the last
    `completions` times; a completion is taken to be as long as what the response itself goes on with.
    `annotate_steps` counts what it really takes.

    Raises `ImplicitPRMError` for labels outside [0, 1], and as `measure_flops`.
    """
    prompts: dict[tuple[int, ...], list[int]] = defaultdict(list)
    completed, read = TokenCounts(), []
    for response, ends in zip(responses, step_ends, strict=True):
        before, length = len(response.prompt_ids), len(response.completion_ids)
        prompts[response.prompt_ids].append(length)
        read.append(before + length)
        for end in ends[:-1]:
            completed += writing_counts(before + end + 1, [length - end - 1] * completions)
    written = sum((writing_counts(len(ids), lengths) for ids, lengths in prompts.items()), TokenCounts())
    collection = measure_flops(model, written)

    def trained(lengths: Sequence[int]) -> int:
        return measure_flops(model, reading_counts(lengths) * epochs, training=True)

    def implicit(lengths: Sequence[int]) -> Cost:
        return Cost(collection, trained(lengths) + measure_flops(model, reading_counts(lengths)))

    costs = {"ce": implicit(read)}
    if labels is not None:
        numbers = {ids: number for number, ids in enumerate(prompts)}
        groups = [numbers[response.prompt_ids] for response in responses]
        if has_contrast(right_responses(labels), groups):
            costs["dpo"] = implicit([read[row] for row in pair_indices(labels, groups).ravel().tolist()])
    costs["math-shepherd"] = Cost(collection + measure_flops(model, completed), trained(read))
    return costs
