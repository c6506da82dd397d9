"""What the `fope` command does with lmlab and tenfold: training, measures of a run folder, the claims."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from fope.errors import FopeError
from fope.hf import from_pretrained
from fope.hf.ranks import check_ranks_at_first_step
from fope.reproduce.arms import ARMS, FOPE, give_positions
from fope.reproduce.language import MULTIPLES
from fope.reproduce.paper import MODIFY, paper_config
from lmlab.accounting import count_parameters
from lmlab.corpora import find_corpus
from lmlab.evaluation import perplexity_by_length
from lmlab.models import build_config
from lmlab.packing import pack
from lmlab.passkey import DEPTHS, passkey
from lmlab.train import CONFIG, MODEL, ApplyConfig, RunConfig, run
from tenfold.configs import read_config

STATE_BYTES = 16  # a parameter's weight, gradient and AdamW's two moments, each float32

OnProgress = Callable[[int, int], None]


def modify(
    model: PreTrainedModel, *, train_length: int, kind: str = "fope", seed: int = 0, **options: Any
) -> PreTrainedModel:
    """Positions of `kind` for a model that is to be trained from scratch, for lmlab's `apply.function`.

    `kind` is an arm of the experiment (`fope.reproduce.arms.ARMS`), `options` are settings of `FopeConfig`
    for the kinds of FoPE. Its `zero_sin` is 1, as in the paper, unless they say otherwise.
    Raises `FopeError` for an unknown kind, or options that it does not have.
    """
    if kind not in ARMS:
        raise FopeError(f"there are no positions of kind {kind!r}; there are {', '.join(ARMS)}")
    if options and kind not in FOPE:
        raise FopeError(f"positions of kind {kind!r} have no option {', '.join(options)}")
    given = give_positions(model, kind, train_length, seed, **options)
    return check_ranks_at_first_step(given) if kind in FOPE else given


def run_config(source: str, assignments: Iterable[str] = ()) -> RunConfig:
    """The run of a TOML file, or of a name in `fope.reproduce.paper`, with `key=value` changes applied.

    A file need not say `apply`: without a kind it is FoPE, without a `train_length` that of its context.
    Raises `FopeError` for neither a file nor such a name, `UsageError` (of tenfold) for mistakes in it.
    """
    if not source.endswith(".toml"):
        return paper_config(source, assignments)
    config = read_config(Path(source), RunConfig, [*assignments, f'apply.function="{MODIFY}"'])
    options = {"train_length": config.corpus.context_length} | (config.apply.options if config.apply else {})
    return config.model_copy(update={"apply": ApplyConfig(function=MODIFY, options=options)})


def train_run(
    config: RunConfig, output: Path, *, resume: bool = True, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Train, measure and save; returns lmlab's metrics. See `lmlab.train.run`."""
    return run(config, output, resume=resume, on_progress=on_progress)


@dataclass(frozen=True)
class Plan:
    """What a run will take. `state_bytes` are weights, gradients and optimiser; activations come on top."""

    parameters: int
    parameters_without_embeddings: int
    steps: int
    tokens_per_step: int
    tokens: int
    state_bytes: int


def plan(config: RunConfig) -> Plan:
    """Count what a run will take, without building or reading anything large.

    Raises as the run itself would for a model or options that cannot be.
    """
    settings = {"vocab_size": config.corpus.vocab_size} | config.model
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(build_config(settings))
        if config.apply is not None:
            modify(model, **config.apply.options)
    training = config.training
    tokens = training.batch_size * config.corpus.context_length
    parameters = count_parameters(model)
    return Plan(
        parameters,
        count_parameters(model, embedding=False),
        training.max_steps,
        tokens,
        tokens * training.max_steps,
        STATE_BYTES * parameters,
    )


def load_run(folder: Path) -> tuple[RunConfig, PreTrainedModel, Tokenizer]:
    """The config of a finished run, its model with its positions, and its tokenizer.

    Raises `FopeError` for a folder that holds no finished run.
    """
    saved = folder / MODEL
    if not (saved / "config.json").is_file() or not (saved / "tokenizer.json").is_file():
        raise FopeError(
            f"{folder} holds no finished run: there is no model in {saved}; `fope train` makes it"
        )
    config = read_config(folder / CONFIG, RunConfig)
    plain_rope = {"kind": "rope", "train_length": config.corpus.context_length}
    options = config.apply.options if config.apply else plain_rope
    model = from_pretrained(saved) if options.get("kind", "fope") in FOPE else _baseline(saved, options)
    if torch.accelerator.is_available():
        torch.nn.Module.to(model, torch.accelerator.current_accelerator())
    return config, model, AutoTokenizer.from_pretrained(saved)


def _baseline(saved: Path, options: dict[str, Any]) -> PreTrainedModel:
    """A baseline's positions do not stand in config.json: they are applied again, then the weights loaded."""
    model = modify(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(saved)), **options)
    load_model(model, str(saved / "model.safetensors"))
    return model


def evaluate_run(
    folder: Path, lengths: Sequence[int] = (), corpus: str | None = None, max_tokens: int | None = None
) -> dict[str, dict[str, Any]]:
    """Perplexity of each split but train at each context length: {split: {length: lmlab's `Perplexity`}}.

    `corpus` is the run's own unless another is named. `lengths` are those of the run's own evaluation, or L
    to 16 L where it has none; `max_tokens` bounds each split's text, 0 takes all, None as much as there.
    Raises `FopeError` for a length that the text is too short for.
    """
    config, model, tokenizer = load_run(folder)
    length, name = config.corpus.context_length, corpus or config.corpus.name
    lengths = lengths or config.evaluation.lengths or _multiples(length)
    if max_tokens is None:
        max_tokens = config.evaluation.max_blocks * length
    measured = {}
    for split in find_corpus(name).splits:
        if split == "train":
            continue
        text = np.asarray(pack(name, split, tokenizer, length).tokens[: max_tokens or None]).astype(np.int64)
        try:
            scores = perplexity_by_length(model, torch.from_numpy(text), lengths)
        except ValueError as error:
            raise FopeError(f"{split} of {name}: {error}") from error
        measured[split] = {str(length): asdict(score) for length, score in scores.items()}
    return measured


def find_passkeys(
    folder: Path,
    lengths: Sequence[int] = (),
    depths: Sequence[float] = DEPTHS,
    trials: int = 10,
    *,
    on_progress: OnProgress | None = None,
) -> list[dict[str, Any]]:
    """Passkey retrieval of a run's model: an `lmlab.passkey.PasskeyScore` for each length and depth.

    `lengths` are those of the run's own evaluation, or L to 16 L where it has none; `on_progress(done,
    total)` counts the scores.
    """
    config, model, tokenizer = load_run(folder)
    wanted = lengths or config.evaluation.passkey_lengths or _multiples(config.corpus.context_length)
    scores: list[dict[str, Any]] = []
    for length, depth in product(wanted, depths):
        scores += map(asdict, passkey(model, tokenizer, [length], [depth], trials=trials))
        if on_progress is not None:
            on_progress(len(scores), len(wanted) * len(depths))
    return scores


def _multiples(length: int) -> list[int]:
    return [length * multiple for multiple in MULTIPLES]
