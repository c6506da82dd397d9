"""Reading folders of logs that `evaluate` wrote: the records, and the letters as the run read them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medxpertqa.engine.asking import NOT_ASKED
from medxpertqa.engine.description import DESCRIBED, FILE, RunDescription
from medxpertqa.engine.parameters import request_settings
from medxpertqa.errors import DataError, MissingExtraError
from medxpertqa.parsing import NO_ANSWER, ParsedAnswer, ParserName
from medxpertqa.protocols import get_protocol
from medxpertqa.results import Record, Results, check_once

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

Answers = dict[ParserName, ParsedAnswer]
Place = tuple[str, int]
"""Key of a question (see `Asked`) and epoch."""

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
    What was to be asked and was not is missing, and so are the parts of a sharded run that are not there.
    Raises `DataError` for a folder without a run or with several different ones, for shards that are not of
    one division or have a reply twice, `MissingExtraError`.
    """
    folders = sorted(file.parent for file in Path(path).rglob(FILE)) or [Path(path)]
    descriptions = [_described(folder) for folder in folders]
    first = descriptions[0]
    for folder, other in zip(folders, descriptions, strict=True):
        one, two = (
            replace(described, shard="", n_expected=0, asked=(), model_args={})
            for described in (first, other)
        )
        if one != two:
            raise DataError(f"{folders[0]} and {folder} hold different runs; load each by itself")
    n_lacking = 0 if folders == [Path(path)] else _n_lacking(descriptions, path)
    runs = [_answered(folder) for folder in folders]
    found = [pair for run in runs for pair in run.values()]
    if not found:
        raise DataError(f"{path}: no question has been answered yet")
    try:
        check_once(record for record, _ in found)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
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
        n_expected=n_lacking + sum(map(_n_expected, descriptions, runs)),
    )


def _n_expected(description: RunDescription, answered: Mapping[Place, object]) -> int:
    """How many replies a folder is to have: those to what was asked for last, and others that are there."""
    if not description.asked:
        return max(description.n_replies, len(answered))
    epochs = range(1, description.epochs + 1)
    return len({(key, epoch) for key in description.asked for epoch in epochs} | answered.keys())


def _n_lacking(descriptions: Sequence[RunDescription], path: str | os.PathLike[str]) -> int:
    """How many replies the parts have whose folders are not there.

    Each counts as the smallest that is there: the parts of a run differ by one question at most.
    """
    parts = {description.shard for description in descriptions}
    if parts == {""}:
        return 0
    divisions = {shard.partition("/")[2] for shard in parts}
    if len(divisions) > 1:
        found = ", ".join(sorted(shard or "a whole run" for shard in parts))
        raise DataError(f"{path} holds {found}, which are not the shards of one run; load each by itself")
    n_here = len({int(shard.partition("/")[0]) for shard in parts})
    return (int(divisions.pop()) - n_here) * min(description.n_replies for description in descriptions)


@dataclass(frozen=True)
class Progress:
    """The (key, epoch) of what a folder has replies for, and the US dollars they cost, as far as known."""

    finished: frozenset[Place]
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
            told = {
                "model": log.eval.model,
                "epochs": log.eval.config.epochs or 1,
                "ablate": tuple(about["ablate"]),
                "altered": about["altered"] | altered,
                "asked": tuple(about.get("asked", ())),
            }
            yield RunDescription(**about | told)


def _answered(folder: Path) -> dict[Place, tuple[Record, Answers]]:
    """What has a record: not what a stopped run kept back."""
    found = _latest(folder)
    return {place: pair for place, pair in found.items() if not pair[0].error.startswith(NOT_ASKED)}


def _latest(folder: Path) -> dict[Place, tuple[Record, Answers]]:
    """By (key, epoch) what was recorded last, a reply before an error."""
    found: dict[Place, tuple[Record, Answers]] = {}
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
        raise MissingExtraError(
            "reading the logs of evaluate needs an optional extra: pip install 'medxpertqa[eval]'"
        ) from None
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
