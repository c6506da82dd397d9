"""The tasks that inspect-ai finds by its entry point: `inspect eval medxpertqa/text` and medxpertqa/mm.

The logs hold no text of questions, and `load_results` reads them. `medxpertqa eval` asks the same, and beside
it looks at the endpoint first, keeps to a cost limit, and takes up what a killed run left.
"""

from __future__ import annotations

from inspect_ai import Task, task

from medxpertqa.engine.running import EvalRun
from medxpertqa.engine.tasks import run_task


@task
def text(
    protocol: str = "official-cot", subset: str = "text", data: str | None = None, limit: int | None = None
) -> Task:
    """The Text questions; `subset` may be text/o1 or text/dev, `data` a file of questions."""
    return _task(subset, protocol, data, None, limit)


@task
def mm(
    protocol: str = "official-cot",
    subset: str = "mm",
    data: str | None = None,
    images: str | None = None,
    limit: int | None = None,
) -> Task:
    """The questions with images, which are those of the hub; with `data` give `images`, a ZIP or a folder."""
    return _task(subset, protocol, data, images, limit)


def _task(subset: str, protocol: str, data: str | None, images: str | None, limit: int | None) -> Task:
    return run_task(EvalRun(subset, "", "", protocol, data, images, limit=limit))
