"""Claim C9: how fast text is written, one token after another, beside the transformer of the same shape."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedModel

from lmlab.models import build_model
from memoryformer import MemoryFormerForCausalLM, quantize_tables_
from memoryformer.reproduce import lean_transformer
from memoryformer.reproduce.arms import MEMORYFORMER, TRANSFORMER, Shape, settings_of
from tenfold import Estimate, Trial, TrialContext

DENSE, OURS, OURS_INT8 = "transformer", "MemoryFormer", "MemoryFormer int8"
LEAN, COMPILED = ", lean loop", ", compile_decode"

Write = Callable[[torch.Tensor], torch.Tensor]


class DecodingConfig(BaseModel):
    """The shape that is timed, with untrained weights, and how often."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    prompt_tokens: int = Field(gt=0)
    new_tokens: int = Field(gt=0)
    rounds: int = Field(gt=0)


def decode(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Time every way of writing `new_tokens` greedily after a prompt, the ways in turn, one thread.

    Returns `speeds`: for each way its tokens a second, a number a round; `distinct_tokens`: how many
    different ones are in prompt and text, because a model that repeats itself reads rows that are cached.
    """
    config = DecodingConfig(**trial.settings)
    prompt = torch.randint(config.vocab_size, (1, config.prompt_tokens), generator=_generator(trial.seed))
    ways = decoding_ways(config, trial.seed)
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    distinct = {}
    for way, write in ways.items():  # not timed: what is made at the first call
        distinct[way] = len(set(write(prompt)[0].tolist()))
    for done in range(config.rounds):
        for way, write in ways.items():
            start = time.perf_counter()
            write(prompt)
            speeds[way].append(config.new_tokens / (time.perf_counter() - start))
        context.progress(done + 1, config.rounds)
    return {"speeds": speeds, "distinct_tokens": distinct}


def decoding_metrics(result: dict[str, Any]) -> dict[str, Estimate | float]:
    """Tokens a second of every way, and ratios of them round by round.

    `decode_speed` is the ratio of claim C9: `generate` with `compile_decode` over `generate` of the
    transformer; `decode_speed_modules` is without it; `decode_speed_lean` with a loop as lean for both.
    """
    speeds = result["speeds"]

    def ratio(way: str, other: str) -> Estimate:
        return Estimate.of([a / b for a, b in zip(speeds[way], speeds[other], strict=True)])

    metrics: dict[str, Estimate | float] = {
        f"tokens_per_second_{_name(way)}": Estimate.of(found) for way, found in speeds.items()
    }
    for kind, ours in (("", OURS), ("_int8", OURS_INT8)):
        metrics[f"decode_speed{kind}"] = ratio(f"{ours}{COMPILED}", DENSE)
        metrics[f"decode_speed{kind}_modules"] = ratio(ours, DENSE)
        metrics[f"decode_speed{kind}_lean"] = ratio(f"{ours}{COMPILED}", f"{DENSE}{LEAN}")
    return metrics


def decoding_ways(config: DecodingConfig, seed: int) -> dict[str, Write]:
    """What is timed: {name: a function of the prompt (1, n) that returns the (1, n + new) tokens}."""
    dense, ours, small = (build_for(config, arm, seed) for arm in (TRANSFORMER, MEMORYFORMER, MEMORYFORMER))
    quantize_tables_(small, "int8")
    return {
        DENSE: partial(generate, dense, new_tokens=config.new_tokens),
        f"{DENSE}{LEAN}": partial(lean_transformer.write, dense, new_tokens=config.new_tokens),
        OURS: partial(generate, ours, new_tokens=config.new_tokens),
        f"{OURS}{COMPILED}": partial(generate, ours, new_tokens=config.new_tokens, compiled=True),
        OURS_INT8: partial(generate, small, new_tokens=config.new_tokens),
        f"{OURS_INT8}{COMPILED}": partial(generate, small, new_tokens=config.new_tokens, compiled=True),
    }


def generate(model: Any, prompt: torch.Tensor, *, new_tokens: int, compiled: bool = False) -> torch.Tensor:
    """Greedy `generate` of transformers, exactly `new_tokens`: no token of these models ends a text."""
    if isinstance(model, MemoryFormerForCausalLM):
        model.compile_decode(compiled)
    return model.generate(prompt, max_new_tokens=new_tokens, do_sample=False)


def build_for(config: DecodingConfig, arm: str, seed: int) -> PreTrainedModel:
    """A fresh model of the arm in the shape to be timed, in evaluation mode."""
    sizes = config.model_dump(include={"hidden_size", "num_hidden_layers", "num_attention_heads"})
    shape = Shape(**sizes, narrow_fc=(1, 1), narrow_total=(1, 1))
    longest = config.prompt_tokens + config.new_tokens
    return build_model(settings_of(arm, shape, config.vocab_size, longest), seed=seed).eval()


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _name(way: str) -> str:
    return way.replace(", ", "_").replace(" ", "_")
