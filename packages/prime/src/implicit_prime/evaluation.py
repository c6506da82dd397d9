"""A policy measured: its responses to sets of tasks, judged, and what came out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate import Accelerator

from implicit_prime.clock import Clock
from implicit_prime.collection import Collector
from implicit_prime.config import PrimeConfig
from implicit_prime.data import read_prompts
from implicit_prime.responses import PromptGroup
from implicit_prime.rollout import engine_for
from implicit_prime.verifiers.base import Verifier
from implicit_prime.verifiers.named import AbilityVerifier
from implicit_prm.offsets import decode
from implicit_prm.sampling import response_texts

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Measured:
    """A set of tasks: how many, n responses to each, and the share that is right with its standard error.

    pass_at_n  the share of tasks with a response that is wholly right
    truncated  the share of responses that were cut off
    statuses   how many responses were "ok", "unparsed", "timeout" or "error"; those of "error" count as wrong
    """

    name: str
    tasks: int
    n: int
    accuracy: float
    standard_error: float
    pass_at_n: float
    truncated: float
    statuses: dict[str, int]


def evaluate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    sets: Mapping[str, Sequence[Mapping[str, Any]]],
    verifier: Verifier,
    args: PrimeConfig,
    n: int = 1,
    temperature: float = 0.0,
) -> Iterator[tuple[Measured, list[dict[str, Any]]]]:
    """Measure a policy on each set; by the engine, the lengths and the seed of `args`.

    Temperature 0 is greedy. With every set come its responses, rows with set, task, prompt, answer (and
    ability, where there are several verifiers), completion, score (None without a verdict) and truncated;
    prompt_ids and completion_ids are the tokens, special ones included, which `implicit_prm` scores as they
    are. The standard error is over tasks, NaN for one.

    Raises `PrimeError` and `implicit_prm.ImplicitPRMError` for data, models and settings that do not fit.
    """
    accelerator = Accelerator(cpu=args.use_cpu)
    model.to(accelerator.device).eval()
    engine = engine_for(args, model, tokenizer)
    collector = Collector(engine, verifier, args, accelerator, Clock())
    prompts = {
        name: read_prompts(tasks, tokenizer, args.max_prompt_length, f"eval.{name}")
        for name, tasks in sets.items()
    }
    engine.sync_weights(model)
    for number, (name, rows) in enumerate(prompts.items()):
        collector.statuses.clear()
        groups = collector.draw(rows, range(len(rows)), (args.seed, number), n, temperature)
        scores = np.array([group.outcomes for group in groups])
        means = np.nan_to_num(scores).mean(axis=1)
        spread = float(means.std(ddof=1)) if len(means) > 1 else math.nan
        measured = Measured(
            name=name,
            tasks=len(rows),
            n=n,
            accuracy=float(means.mean()),
            standard_error=spread / math.sqrt(len(means)),
            pass_at_n=float((scores == 1).any(axis=1).mean()),
            truncated=float(np.mean([group.truncated for group in groups])),
            statuses=dict(collector.statuses),
        )
        references = [_reference(row.answer, verifier) for row in rows]
        yield measured, _rows(name, groups, references, tokenizer)
    engine.rest()


def _reference(answer: Any, verifier: Verifier) -> dict[str, Any]:
    if not isinstance(verifier, AbilityVerifier):
        return {"answer": answer}
    ability, reference = answer
    return {"ability": ability, "answer": reference}


def _rows(
    name: str,
    groups: Sequence[PromptGroup],
    references: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for group, reference in zip(groups, references, strict=True):
        prompt = {"prompt": decode(group.prompt_ids, tokenizer), "prompt_ids": list(group.prompt_ids)}
        texts = response_texts(group.ids, tokenizer)
        verdicts = zip(group.ids, texts, group.outcomes.tolist(), group.truncated, strict=True)
        for ids, text, score, cut in verdicts:
            # Text alone would not do: read anew it gets a second BOS, and a response of EOS alone is empty.
            drawn = {"completion": text, "completion_ids": list(ids)}
            verdict = {"score": None if math.isnan(score) else score, "truncated": cut}
            rows.append({"set": name, "task": group.prompt, **prompt, **drawn, **reference, **verdict})
    return rows
