"""The questions of a stage that asks models, several at once: waiting for replies is most of the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from medxpertqa.errors import MedXpertQAError, RequestError
from medxpertqa.questions import Question

Found = TypeVar("Found")


def each_question(
    stage: str,
    work: Callable[[Question], Found],
    questions: Sequence[Question],
    at_once: int,
    stop: Callable[[], None],
) -> list[Found]:
    """Return `work(question)` of every question, in their order, with `at_once` of them under way.

    A terminal sees how far it is. A question whose request was turned down does not keep the others from
    being asked. Any other failure, and Ctrl-C, calls `stop`, after which `work` must ask nothing more, and
    ends the stage as soon as the calls under way have their replies, which are kept.

    Raises:
        MedXpertQAError: requests were turned down; it names the questions.
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    with ThreadPoolExecutor(max(at_once, 1)) as pool:
        futures = {pool.submit(work, question): question for question in questions}
        try:
            for future in track(
                as_completed(futures), stage, len(futures), console=console, disable=not console.is_terminal
            ):
                error = future.exception()
                if error is not None and not isinstance(error, RequestError):
                    raise error
        except BaseException:
            stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    refused = {question.id: error for future, question in futures.items() if (error := future.exception())}
    if refused:
        first = next(iter(refused))
        raise MedXpertQAError(
            f"{stage}: the requests of {len(refused)} of {len(questions)} questions were turned down; "
            f"{first}: {refused[first]}. What was answered is kept. Take them out of the bank, or name "
            f"another model: {', '.join(list(refused)[:20])}"
        )
    return [future.result() for future in futures]
