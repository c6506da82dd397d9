"""An exam as an inspect-ai task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig

from medxpertqa.engine.asking import Asked
from medxpertqa.engine.description import DESCRIBED, RunDescription
from medxpertqa.engine.parameters import request_settings
from medxpertqa.engine.running import EvalRun
from medxpertqa.engine.solving import WITHHELD, Brake, Exam, letter_scorer, protocol_solver


def run_task(run: EvalRun) -> Task:
    """The task of a run for inspect-ai's own command, which chooses the model."""
    run.check_images()
    return exam_task(run.exam(Brake()), run.dataset.replace("/", "-"), run.altered, run.description)


def exam_task(
    exam: Exam,
    name: str,
    altered: Mapping[str, Any] | None = None,
    description: RunDescription | None = None,
) -> Task:
    """The task that puts an exam; `altered` are parameters of the request that replace the protocol's."""
    samples = [_sample(key, asked, exam) for key, asked in exam.asked.items()]
    return Task(
        dataset=MemoryDataset(samples, name=name),
        solver=protocol_solver(exam),
        scorer=letter_scorer(exam),
        config=GenerateConfig(**request_settings(exam.protocol, altered)),
        name=name,
        version=1,
        metadata={DESCRIBED: asdict(description)} if description else None,
    )


def _sample(key: str, asked: Asked, exam: Exam) -> Sample:
    cluster = exam.clusters.get(asked.published.id)
    return Sample(
        id=key,
        input=asked.question.to_prompt_string() if exam.log_text else WITHHELD,
        target=asked.question.label,
        metadata={
            "id": asked.published.id,
            "n_options": asked.question.n_options,
            "order": list(asked.order),
            "attributes": asked.published.attributes | ({"cluster": cluster} if cluster else {}),
        },
    )
