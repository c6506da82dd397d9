"""What the `memoryformer` command does with lmlab and tenfold: pre-training runs, the claims."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

import memoryformer.hf  # noqa: F401  # makes `memoryformer` a model type of transformers
from lmlab.accounting import count_parameters, forward_flops
from lmlab.models import build_config
from lmlab.train import RunConfig, run
from lmlab.training import NonFiniteLossError
from memoryformer import MemoryLayer
from memoryformer.errors import MemoryFormerError
from memoryformer.reproduce.paper import paper_config
from memoryformer.training import ADVICE
from tenfold.configs import read_config

STATE_BYTES = 16  # a parameter's weight, gradient and AdamW's two moments, each float32
TABLE_PASSES = 3  # a fetched row is read forward, read backward, and its gradient written

OnProgress = Callable[[int, int], None]


def run_config(source: str, assignments: Iterable[str] = ()) -> RunConfig:
    """The run of a TOML file (lmlab's), or of a name in `paper_names()`, with `key=value` changes applied.

    Raises `MemoryFormerError` for neither a file nor such a name, `UsageError` (of tenfold) for mistakes.
    """
    if source.endswith(".toml"):
        return read_config(Path(source), RunConfig, list(assignments))
    return paper_config(source, assignments)


def train_run(
    config: RunConfig, output: Path, *, resume: bool = True, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Train, measure and save; returns lmlab's metrics. See `lmlab.train.run`.

    Raises `MemoryFormerError` with what helps if a MemoryFormer diverges, else as lmlab does.
    """
    try:
        return run(config, output, resume=resume, on_progress=on_progress)
    except NonFiniteLossError as error:
        if config.model.get("model_type") != "memoryformer":
            raise
        raise MemoryFormerError(f"{error} {ADVICE}") from error


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    `state_bytes` are weights, gradients and optimizer, `bytes_per_gpu` a GPU's share of them when sharded;
    activations come on top. `flops` are those of the whole training, a multiply-add counting 2. The last two
    are what all GPUs together must do in a second to be done in `days`: look-ups have few FLOPs, so for a
    MemoryFormer the bytes of table rows are the harder of the two.
    """

    parameters: int
    table_parameters: int
    steps: int
    tokens_per_step: int
    tokens: int
    state_bytes: int
    gpus: int
    bytes_per_gpu: int
    flops: float
    days: float
    flops_per_second: float
    table_bytes_per_second: float


def plan(config: RunConfig, *, gpus: int = 8, days: float = 7.0) -> Plan:
    """Count what a run will take, on the meta device: nothing large is built or read.

    Raises `MemoryFormerError` for `gpus` or `days` that cannot be, and for a batch that `gpus` do not divide;
    `SettingsError` (of lmlab) for a model that cannot be.
    """
    training, length = config.training, config.corpus.context_length
    if gpus < 1 or not days > 0:
        raise MemoryFormerError(
            f"gpus is {gpus} and days {days:g}; there must be at least 1, and more than 0"
        )
    sequences = training.batch_size // training.gradient_accumulation_steps
    if sequences % gpus:
        raise MemoryFormerError(
            f"batch_size {training.batch_size} / gradient_accumulation_steps "
            f"{training.gradient_accumulation_steps} is not a multiple of {gpus} GPUs; "
            "change one with --set training.KEY=VALUE"
        )
    with torch.device("meta"):
        settings = {"vocab_size": config.corpus.vocab_size} | config.model
        model = AutoModelForCausalLM.from_config(build_config(settings))
    layers = [module for module in model.modules() if isinstance(module, MemoryLayer)]
    tokens = training.batch_size * length * training.max_steps
    flops = 3.0 * forward_flops(model, 1, length) / length * tokens
    fetched = sum(layer.num_chunks * layer.out_features for layer in layers)
    seconds = days * 24 * 3600
    parameters = count_parameters(model)
    return Plan(
        parameters=parameters,
        table_parameters=sum(layer.tables.numel() for layer in layers),
        steps=training.max_steps,
        tokens_per_step=training.batch_size * length,
        tokens=tokens,
        state_bytes=STATE_BYTES * parameters,
        gpus=gpus,
        bytes_per_gpu=-(-STATE_BYTES * parameters // gpus),
        flops=flops,
        days=days,
        flops_per_second=flops / seconds,
        table_bytes_per_second=TABLE_PASSES * 4.0 * fetched * tokens / seconds,
    )
