"""An exam as an inspect-ai task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig

from medxpertqa.engine.asking import Asked
from medxpertqa.engine.running import request_settings
from medxpertqa.engine.solving import WITHHELD, Exam, letter_scorer, protocol_solver


def exam_task(exam: Exam, name: str, altered: Mapping[str, Any] | None = None) -> Task:
    """The task that puts an exam; `altered` are parameters of the request that replace the protocol's."""
    samples = [_sample(key, asked, exam) for key, asked in exam.asked.items()]
    return Task(
        dataset=MemoryDataset(samples, name=name),
        solver=protocol_solver(exam),
        scorer=letter_scorer(exam),
        config=GenerateConfig(**request_settings(exam.protocol, altered)),
        name=name,
        version=1,
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
