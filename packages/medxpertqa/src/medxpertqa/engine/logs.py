"""Reading folders of logs that `evaluate` wrote: the records, and the letters as the run read them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medxpertqa.engine.description import DESCRIBED, FILE, RunDescription
from medxpertqa.engine.running import request_settings
from medxpertqa.errors import DataError, MissingExtraError
from medxpertqa.parsing import NO_ANSWER, ParsedAnswer, ParserName
from medxpertqa.protocols import get_protocol
from medxpertqa.results import Record, Results

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

Answers = dict[ParserName, ParsedAnswer]

_WORST_FIRST = ("content_filter", "max_tokens", "reasoning_only")


def is_log_folder(path: str | os.PathLike[str]) -> bool:
    """Whether `evaluate` wrote to this folder, or to folders in it (shards), or inspect-ai's own command."""
    place = Path(path)
    return place.is_dir() and (any(place.rglob(FILE)) or any(place.glob("*.eval")))


def read_logs(path: str | os.PathLike[str]) -> Results:
    """Read a run, finished or not, from its folder; the shards of one run from the folder that holds them.

    A folder may be of `inspect eval` with one of this package's tasks, too.
    A question that was asked again after an error counts once, with the reply. Letters are those that were
    read when the options were at hand; `score_records(results.records, questions=...)` reads them anew.
    Raises `DataError` for a folder without a run or with several different ones, `MissingExtraError`.
    """
    folders = sorted(file.parent for file in Path(path).rglob(FILE)) or [Path(path)]
    descriptions = [_described(folder) for folder in folders]
    first = descriptions[0]
    for folder, other in zip(folders, descriptions, strict=True):
        if replace(other, shard="", n_expected=0) != replace(first, shard="", n_expected=0):
            raise DataError(f"{folders[0]} and {folder} hold different runs; load each by itself")
    found = [pair for folder in folders for pair in _latest(folder).values()]
    if not found:
        raise DataError(f"{path}: no question has been answered yet")
    parsers: tuple[ParserName, ...] = (first.parser, "robust")
    return Results(
        records=tuple(record for record, _ in found),
        answers={parser: tuple(answers.get(parser, NO_ANSWER) for _, answers in found) for parser in parsers},
        parser=first.parser,
        name=first.model,
        protocol=first.how,
        dataset=first.dataset,
        digest=first.digest,
        source=str(path),
        n_expected=sum(description.n_expected for description in descriptions),
    )


@dataclass(frozen=True)
class Progress:
    """The (key, epoch) of what a folder has replies for, and the US dollars they cost, as far as known."""

    finished: frozenset[tuple[str, int]]
    spent: float


def progress(folder: Path) -> Progress:
    """How far the run in a folder has come. Reads its logs whole."""
    found = {place: record for place, (record, _) in _latest(folder).items()}
    done = frozenset(place for place, record in found.items() if record.status == "ok")
    return Progress(done, sum(record.cost or 0.0 for record in found.values()))


def _described(folder: Path) -> RunDescription:
    description = RunDescription.read(folder)
    if description is not None:
        return description
    found = {repr(one): one for one in _described_by_inspect(folder)}
    if len(found) != 1:
        problem = "different runs; load each by itself" if found else f"no run: there is no {FILE} in it"
        raise DataError(f"{folder} has {problem}")
    return found.popitem()[1]


def _described_by_inspect(folder: Path) -> Iterator[RunDescription]:
    """What the logs of `inspect eval` in a folder say of themselves."""
    for log in _logs(folder, header_only=True):
        about = (log.eval.metadata or {}).get(DESCRIBED)
        if about:
            official = request_settings(get_protocol(about["protocol"]))
            asked = log.plan.config.model_dump(include=set(official), exclude_none=True)
            altered = {key: value for key, value in asked.items() if official[key] != value}
            ablate = tuple(about["ablate"])
            yield RunDescription(
                **about | {"model": log.eval.model, "ablate": ablate, "altered": about["altered"] | altered}
            )


def _latest(folder: Path) -> dict[tuple[str, int], tuple[Record, Answers]]:
    """By (key, epoch) what was recorded last, a reply before an error."""
    found: dict[tuple[str, int], tuple[Record, Answers]] = {}
    for sample in _samples(folder):
        place = (str(sample.id), sample.epoch)
        record = _record(sample)
        if place not in found or record.status == "ok" or found[place][0].status == "error":
            found[place] = record, _answers(sample)
    return found


def _samples(folder: Path) -> Iterator[EvalSample]:
    for log in _logs(folder):
        for sample in log.samples or ():
            if not (sample.error and sample.error.message.startswith("CancelledError")):  # Ctrl-C: not asked
                yield sample


def _logs(folder: Path, *, header_only: bool = False) -> Iterator[EvalLog]:
    try:
        from inspect_ai.log import list_eval_logs, read_eval_log
    except ModuleNotFoundError:
        raise MissingExtraError("reading the logs of evaluate", "eval") from None
    for info in list_eval_logs(str(folder), recursive=False, descending=False):
        yield read_eval_log(info, header_only=header_only)


def _record(sample: EvalSample) -> Record:
    about: dict[str, Any] = sample.metadata
    said = _scored(sample)
    usage = list(sample.model_usage.values())
    costs = [entry.total_cost for entry in usage]
    return Record(
        id=about["id"],
        label=str(sample.target),
        n_options=about["n_options"],
        response=(said.get("replies") or [""])[-1],
        status="error" if sample.error else "ok",
        error=_message(sample.error.message) if sample.error else "",
        stop_reason=worst_stop(said.get("stop_reasons") or []),
        epoch=sample.epoch,
        order=tuple(about["order"]),
        attributes=about["attributes"],
        input_tokens=sum(
            entry.input_tokens + (entry.input_tokens_cache_read or 0) + (entry.input_tokens_cache_write or 0)
            for entry in usage
        ),
        output_tokens=sum(entry.output_tokens for entry in usage),
        cost=None if not costs or None in costs else sum(cost for cost in costs if cost is not None),
    )


def _scored(sample: EvalSample) -> dict[str, Any]:
    """What our scorer wrote about a sample: answers, replies, stop_reasons; nothing of one that failed."""
    for score in (sample.scores or {}).values():
        if score.metadata and "answers" in score.metadata:
            return score.metadata
    return {}


def _answers(sample: EvalSample) -> Answers:
    found = _scored(sample).get("answers", {})
    return {parser: ParsedAnswer(**answer) for parser, answer in found.items()}


def _message(text: str) -> str:
    """inspect-ai keeps an error as its repr, CallError('...')."""
    return text.removeprefix("CallError(").removesuffix(")").strip("'\"")


def worst_stop(reasons: list[str]) -> str:
    """Of several turns the worst: a reply cut short in the first turn spoils the second."""
    return next((worst for worst in _WORST_FIRST if worst in reasons), reasons[-1] if reasons else "")
