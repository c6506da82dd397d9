"""A training run from a file: text, model, training and final measures, on one process or on many.

    python -m lmlab.train --config run.toml --out runs/first
    torchrun --nproc-per-node 8 -m lmlab.train --config run.toml --out runs/first
    accelerate launch --config_file fsdp2.yaml -m lmlab.train --config run.toml --out runs/first

The same config gives the same training on any number of processes. `lmlab train` is the first of these.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import shutil
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tomli_w
import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedModel

from lmlab.accounting import count_parameters, forward_flops
from lmlab.battery import EvaluationConfig, check, evaluate
from lmlab.errors import SettingsError
from lmlab.models import build_model
from lmlab.preparation import prepare
from lmlab.tokenizers import SMALLEST_VOCABULARY
from lmlab.training import TrainingConfig, train
from tenfold.configs import config_sha256, differences, plain_config, read_config
from tenfold.environment import describe_environment
from tenfold.storage import write_atomically, write_json

CONFIG, CURVE, METRICS = "config.toml", "curve.jsonl", "metrics.json"
MODEL, CHECKPOINTS = "model", "checkpoints"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CorpusConfig(_Table):
    """The text (`lmlab corpus list`), the size of its tokenizer and the tokens in a block."""

    name: str = "docs"
    vocab_size: int = Field(default=2048, ge=SMALLEST_VOCABULARY)
    context_length: int = Field(default=128, ge=2)


class ApplyConfig(_Table):
    """A change to the model: `function` ("module:name") is called with the model and `options`.

    Its module is imported before the model is built, so it may bring a `model_type` of its own.
    """

    function: str = Field(pattern=r"^[\w.]+:\w+$")
    options: dict[str, Any] = {}


class RunConfig(_Table):
    """A run's config file. `model` is a transformers config: `model_type` and that family's keys.

    `seed` is that of the weights; `training` has its own for dropout and for the order of the blocks. The
    model's `vocab_size` is the tokenizer's, unless `model` says a larger one.
    """

    seed: int = Field(default=0, ge=0)
    corpus: CorpusConfig = CorpusConfig()
    model: dict[str, Any]
    apply: ApplyConfig | None = None
    training: TrainingConfig
    evaluation: EvaluationConfig = EvaluationConfig()


def run_file(
    file: str | Path,
    output: str | Path,
    *,
    apply: str | None = None,
    assignments: Iterable[str] = (),
    resume: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Do the run of a TOML `file` (a `RunConfig`) and return what is in its metrics.json.

    `apply` is `apply.function`, and `assignments` are `key=value` changes of other keys. See `run`.
    Raises `UsageError` (of tenfold) for a mistake in any of them.
    """
    function = [] if apply is None else [f"apply.function={json.dumps(apply)}"]
    config = read_config(Path(file), RunConfig, [*assignments, *function])
    return run(config, output, resume=resume, on_progress=on_progress)


def run(
    config: RunConfig,
    output: str | Path,
    *,
    resume: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train, measure, and write `output`:

    config.toml (as resolved), environment.json, curve.jsonl (see `TrainingResult.curve`), metrics.json
    (parameters, FLOPs, speed, `lmlab.battery.evaluate`) and model/ (weights and tokenizer, for
    `from_pretrained`). A run that was interrupted goes on from its last checkpoint, and one that is finished
    is not done again; with `resume=False` it begins anew, and its checkpoints and curve are removed.
    `on_progress(done, total)` counts the steps, and then the measures.

    Under `torchrun` or `accelerate launch` every process calls it, the first one writes, all return the same.
    Raises `SettingsError` if the folder holds a run of another config, or for settings that cannot be;
    `NonFiniteLossError` if training diverges.
    """
    folder, first = Path(output), int(os.environ.get("RANK", "0")) == 0
    if resume:
        _check_same(folder, config)
        if (folder / METRICS).is_file():
            return json.loads((folder / METRICS).read_text("utf-8"))
    corpus = prepare(config.corpus.name, config.corpus.vocab_size, config.corpus.context_length)
    model = _model(config, len(corpus.tokenizer))
    splits = {"valid": corpus.valid} | ({"heldout": corpus.heldout} if corpus.heldout else {})
    check(corpus.tokenizer, splits, config.evaluation)
    length = config.corpus.context_length
    metrics: dict[str, Any] = {
        "parameters": count_parameters(model),
        "parameters_without_embeddings": count_parameters(model, embedding=False),
        "forward_flops_per_token": forward_flops(model, 1, length) / length,
    }
    if first:
        _begin(folder, config, resume)
    result = train(
        model,
        corpus.train,
        config.training,
        valid_data=corpus.valid,
        directory=folder / CHECKPOINTS,
        on_evaluate=lambda _, entry: _record(folder / CURVE, entry) if first else None,
        on_progress=on_progress,
        resume=resume,
        save_model_to=folder / MODEL,
    )
    metrics |= {
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "seconds": result.seconds,
        "tokens_per_second": result.tokens_per_second,
    }
    metrics |= evaluate(model, corpus.tokenizer, splits, config.evaluation, on_progress)
    if first:
        corpus.tokenizer.save_pretrained(folder / MODEL)
        write_atomically(folder / METRICS, json.dumps(metrics, indent=2) + "\n")
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return metrics


def _model(config: RunConfig, tokens: int) -> PreTrainedModel:
    settings = {"vocab_size": tokens} | config.model
    if settings["vocab_size"] < tokens:
        raise SettingsError(f"model.vocab_size {settings['vocab_size']} is below the tokenizer's {tokens}")
    if config.apply is None:
        return build_model(settings, config.seed)
    function = _function(config.apply.function)  # first: its module may bring the model's family
    model = build_model(settings, config.seed)
    try:
        inspect.signature(function).bind(model, **config.apply.options)
    except TypeError as error:
        raise SettingsError(f"apply.options do not fit {config.apply.function}: {error}") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return function(model, **config.apply.options)


def _function(path: str) -> Callable[..., PreTrainedModel]:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise SettingsError(f"apply.function {path!r} cannot be found: {error}") from error


def _check_same(folder: Path, config: RunConfig) -> None:
    file = folder / CONFIG
    if file.is_file():
        changed = differences(tomllib.loads(file.read_text("utf-8")), plain_config(config))
        if changed:
            told = "; ".join(f"{key} was {was!r}, is {now!r}" for key, (was, now) in changed.items())
            raise SettingsError(
                f"{folder} holds another run: {told}. Use another --out, or --no-resume to write over it."
            )


def _begin(folder: Path, config: RunConfig, resume: bool) -> None:
    plain = plain_config(config)
    seeds = (config.seed, config.training.seed, config.training.data_seed)
    (folder / METRICS).unlink(missing_ok=True)
    if not resume:
        (folder / CURVE).unlink(missing_ok=True)
    write_json(folder / "environment.json", describe_environment(None, config_sha256(plain), seeds))
    write_atomically(folder / CONFIG, tomli_w.dumps(plain))


def _record(file: Path, entry: dict[str, float]) -> None:
    """Add an entry; those from the same step on, which an interrupted run had left, make way."""
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    kept = [line for line in lines if json.loads(line)["step"] < entry["step"]]
    write_atomically(file, "\n".join([*kept, json.dumps(entry)]) + "\n")


if __name__ == "__main__":
    import sys

    from lmlab.cli import main

    main(["train", *sys.argv[1:]])
