"""What the `lpa` command does with lmlab and tenfold: training from a file, sweeps, evaluation, claims."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedModel

from lmlab.battery import EvaluationConfig, load_model
from lmlab.battery import evaluate as measure
from lmlab.corpora import find_corpus
from lmlab.packing import pack
from lmlab.train import RunConfig, run
from lpa import ClassicConfig, LPAConfig, LPAError, apply_lpa, is_lpa
from lpa.recipes import as_setting_2
from tenfold.configs import read_config

MODIFY = "lpa.reproduce.training:modify"
AS_OFFICIAL = "lpa.reproduce.training:as_official"

OnProgress = Callable[[int, int], None]


def modify(model: PreTrainedModel, **options: Any) -> PreTrainedModel:
    """Apply LPA with `options` as its config, for `lmlab.train --apply lpa.reproduce.training:modify`.

    A setting-1 model that has ranks of its own (`model.rank`) needs none, and stays as it is.
    """
    if is_lpa(model) and not options:
        return model
    return apply_lpa(model, LPAConfig.from_dict(options))


def as_official(model: PreTrainedModel, **options: Any) -> PreTrainedModel:
    """The model as the official code starts it, for run files of the paper's models (`launch/`).

    `options` are those of `LPAConfig`, for setting 1 `rank` and `ffn_rank`; without any the model is dense.
    Raises `LPAError` for other options.
    """
    if not isinstance(model.config, ClassicConfig):
        return as_setting_2(model, LPAConfig.from_dict(options) if options else None)
    unknown = sorted(options.keys() - {"rank", "ffn_rank"})
    if unknown:
        raise LPAError(f"apply.options of a setting-1 model are rank and ffn_rank, not {', '.join(unknown)}")
    return AutoModelForCausalLM.from_config(ClassicConfig(**model.config.to_diff_dict() | options))


def train_file(
    file: Path,
    output: Path,
    assignments: Iterable[str] = (),
    *,
    resume: bool = True,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Train the model of lmlab's TOML `file` with LPA; returns and writes lmlab's metrics.

    The ranks stand in the file's `apply.options`. Raises `SettingsError` or `LPAError` for mistakes in it,
    and for an `apply.function` that is not of this package.
    """
    config = read_config(file, RunConfig, [f'apply.function="{_function(file)}"', *assignments])
    return run(config, output, resume=resume, on_progress=on_progress)


def sweep_ranks(
    file: Path,
    output: Path,
    ranks: Sequence[int | float],
    assignments: Iterable[str] = (),
    *,
    on_progress: OnProgress | None = None,
) -> list[dict[str, Any]]:
    """Train the dense model of `file` and each rank alike; return a row a model, dense (rank None) first.

    Each has a folder of its own in `output`; those that are finished are not trained again. Draws
    pareto.png: validation perplexity against parameters outside the embeddings. Raises `LPAError` for a
    model that has a rank of its own, and so is never dense, and as `train_file` does.
    """
    rows = []
    changes = [f'apply.function="{_function(file)}"', *assignments]
    for rank in (None, *ranks):
        change = "apply.options={}" if rank is None else f"apply.options.rank={rank}"
        config = read_config(file, RunConfig, [*changes, change])
        if "rank" in config.model:
            raise LPAError(f"{file}: take out model.rank; a sweep trains a dense model, and gives the ranks")
        if rank is None and config.apply is not None and config.apply.function == MODIFY:
            config = config.model_copy(update={"apply": None})
        folder = output / ("dense" if rank is None else f"rank-{rank}")
        metrics = run(config, folder, on_progress=on_progress)
        kept = ("parameters", "parameters_without_embeddings", "tokens_per_second")
        rows.append(
            {"rank": rank} | {key: metrics[key] for key in kept} | {"ppl": metrics["splits"]["valid"]["ppl"]}
        )
    _draw_pareto(rows, output)
    return rows


def _function(file: Path) -> str:
    """Which of the two functions makes the model of a run file low-rank: the one it names, else `modify`."""
    try:
        named = tomllib.loads(file.read_text("utf-8"))["apply"]["function"]
    except (OSError, ValueError, LookupError, TypeError):  # `read_config` says what is wrong with a file
        return MODIFY
    if named not in (MODIFY, AS_OFFICIAL):
        raise LPAError(
            f"{file}: apply.function is {named!r}; lpa makes models low-rank by {MODIFY} or {AS_OFFICIAL}. "
            "Name one of these or none, or train with that function by `lmlab train`"
        )
    return named


def _draw_pareto(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    from matplotlib.figure import Figure

    from tenfold.figures import PALETTE, save, style

    with style():
        canvas = Figure(figsize=(6, 3.6), layout="constrained")
        axes = canvas.subplots()
        for index, row in enumerate(rows):
            name = "dense" if row["rank"] is None else f"rank {row['rank']}"
            point = (row["parameters_without_embeddings"], row["ppl"])
            axes.plot(*point, "o", color=PALETTE[0 if index == 0 else 1])
            axes.annotate(name, point, xytext=(5, 5), textcoords="offset points")
        axes.set(xlabel="parameters outside the embeddings", ylabel="validation perplexity")
        save(canvas, folder, "pareto")


def evaluate_folder(
    folder: Path,
    corpus: str,
    context_length: int,
    *,
    max_blocks: int = 0,
    tasks: Sequence[str] = (),
    limit: int | None = None,
) -> dict[str, Any]:
    """Measure a saved model: `splits` of the corpus (all but train), and `tasks` of lm-evaluation-harness."""
    model, tokenizer = load_model(folder)
    splits = [split for split in find_corpus(corpus).splits if split != "train"]
    blocks = {split: pack(corpus, split, tokenizer, context_length) for split in splits}
    measured = measure(model, tokenizer, blocks, EvaluationConfig(max_blocks=max_blocks))
    measured["tasks"] = {}
    if tasks:
        from lmlab.harness import benchmark

        measured["tasks"] = benchmark(model, tokenizer, tasks, limit=limit)
    return measured
