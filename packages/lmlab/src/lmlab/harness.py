"""Real benchmarks by EleutherAI's lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmlab.errors import SettingsError
from lmlab.evaluation import evaluating


def benchmark(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[str | Mapping[str, Any]],
    *,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    include_path: str | Path | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """The harness's metrics, `{task: {metric: value, metric_stderr: value}}`.

    `tasks` are names of the harness's tasks (their data come from the Hugging Face hub), of YAML files in
    `include_path`, or task definitions as dictionaries. `limit` takes the first so many examples of each.
    Raises `ImportError` without lm-eval, `SettingsError` for an unknown task.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ImportError("benchmarks need lm-eval: pip install 'lmlab[eval]'") from error

    named = [task for task in tasks if isinstance(task, str)]
    manager = TaskManager(
        include_path=None if include_path is None else str(include_path),
        include_defaults=bool(named),  # to read their thousands of files takes seconds
    )
    unknown = [task for task in named if not manager.match_tasks([task])]
    if unknown:
        raise SettingsError(f"the harness has no task {', '.join(unknown)}; `lm-eval ls tasks` lists them")
    with evaluating(model):
        found = simple_evaluate(
            HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
            tasks=[task if isinstance(task, str) else dict(task) for task in tasks],
            num_fewshot=num_fewshot,
            limit=limit,
            task_manager=manager,
            log_samples=False,
            bootstrap_iters=1000,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    if found is None:  # on the other processes of a distributed run
        return {}
    return {task: _plain(metrics) for task, metrics in found["results"].items()}


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers, under the metric's name alone: the harness writes `acc,none` for the filter `none`."""
    return {
        name.removesuffix(",none"): value
        for name, value in metrics.items()
        if isinstance(value, int | float) and name != "sample_len"
    }
