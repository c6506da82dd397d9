"""Reading results, whoever wrote them: this package, the official code, another harness, or JSON lines."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from medxpertqa.engine.sources import shared_images
from medxpertqa.errors import DataError
from medxpertqa.images import ImageStore
from medxpertqa.json_lines import read_json_lines
from medxpertqa.parsing import TriggerName
from medxpertqa.protocols import PROTOCOLS, get_protocol
from medxpertqa.questions import Question
from medxpertqa.results import ABOUT, FAILED, KIND, Record, Results, read_head, score_records
from medxpertqa.sharing import is_shared, read_shared

_SAMPLES = re.compile(r"samples_(medxpertqa_(?:text|mm)_(?:cot|ll))_.*\.jsonl")
"""How lm-eval names the samples that `--log_samples` keeps."""


def load_results(
    path: str | os.PathLike[str],
    *,
    questions: Iterable[Question] | None = None,
    images: ImageStore | None = None,
) -> Results:
    """Load the results of one run, from whatever wrote them.

    A folder: logs of `evaluate` or of `inspect eval`, a batch, an output folder of EvalScope or OpenCompass,
    or one with a file of results or of lm-eval samples. A file: results of schema 1, a bundle of `share`
    (with `questions`, which have the labels), the official *_output.jsonl, lm-eval samples, reviews of
    EvalScope, predictions of OpenCompass, or JSON lines with id, response, label, n_options. With
    `questions`, those are joined by id: they must be the ones asked, and give attributes and option texts;
    with `images` too, questions that share one are a cluster of the error bars.

    Raises `DataError` that names the path and what was expected.
    """
    place = Path(path)
    if not place.exists():
        raise DataError(f"there is no file or folder {place}")
    if place.is_file() and is_shared(place):
        if questions is None:
            raise DataError(
                f"{place} is a shared bundle, which has no labels; give the questions with --subset"
            )
        return read_shared(_rows(place), list(questions), str(place))
    results = _folder(place) if place.is_dir() else _file(place)
    if questions is None:
        return results
    asked = list(questions)
    clusters = shared_images(asked, images)
    records = [
        replace(record, attributes={**record.attributes, "cluster": clusters[record.id]})
        if record.id in clusters
        else record
        for record in results.records
    ]
    again = score_records(records, results.parser, questions=asked, trigger=_trigger(results.protocol))
    about = {key: getattr(results, key) for key in (*ABOUT, "source")}
    return Results(again.records, again.answers, **about)


def _folder(place: Path) -> Results:
    from medxpertqa.adapters.evalscope import read_evalscope, review_files
    from medxpertqa.adapters.opencompass import prediction_files, read_opencompass
    from medxpertqa.engine.description import BATCH_FILE
    from medxpertqa.engine.logs import is_log_folder, read_logs

    if (place / BATCH_FILE).exists():
        if not (place / "results.jsonl").exists():
            raise DataError(
                f"{place}: no question of the batch has its last reply yet; see `medxpertqa batch import`"
            )
        return _file(place / "results.jsonl")
    if is_log_folder(place):
        return read_logs(place)
    if review_files(place):
        return read_evalscope(place)
    if prediction_files(place):
        return read_opencompass(place)
    files = sorted(place.glob("*.jsonl")) or sorted(place.rglob("*.jsonl"))
    if len(files) != 1:
        problem = f"has {len(files)} files of JSON lines" if files else "has no results that can be read"
        raise DataError(f"{place} {problem}; give one run: a folder of logs, or one file")
    return _file(files[0])


def _file(place: Path) -> Results:
    from medxpertqa.adapters.evalscope import read_evalscope, review_files
    from medxpertqa.adapters.opencompass import prediction_files, read_opencompass

    if review_files(place):
        return read_evalscope(place)
    if prediction_files(place):
        return read_opencompass(place)
    rows = _rows(place)
    if rows[0].get("kind") == KIND:
        return _schema_1(rows, place)
    if _SAMPLES.fullmatch(place.name) or "filtered_resps" in rows[0]:
        return _lm_eval(rows, place)
    if "messages" in rows[0] and "response" in rows[0]:
        return _official(rows, place)
    try:
        return score_records(rows, name=place.stem, source=str(place))
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _schema_1(rows: list[dict[str, Any]], place: Path) -> Results:
    head, *records = rows
    about = read_head(head, str(place))
    try:
        return score_records(records, trigger=_trigger(about["protocol"]), source=str(place), **about)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _official(rows: list[dict[str, Any]], place: Path) -> Results:
    """The official code's output: a record of its input with messages and response added.

    Which protocol it was is told by the messages, as the official notebook chooses its parser by the model.
    """
    records = []
    for number, row in enumerate(rows, 1):
        with _line(place, number, "record of the official code"):
            question = Question.from_record(row)
            response = (row["response"] or "").strip()
            failed = response.startswith(FAILED)
            # The notebook reads QVQ's letter from the last message, which is the same reply.
            records.append(
                Record.of(
                    question, response, status="error" if failed else "ok", error=response if failed else ""
                )
            )
    with _line(place, 1, "record of the official code"):
        protocol = _official_protocol(rows[0]["messages"])
    about = get_protocol(protocol)
    return score_records(
        records,
        about.parser,
        trigger=about.trigger,
        name=_official_model(place),
        protocol=protocol,
        source=str(place),
    )


def _official_protocol(messages: list[dict[str, Any]]) -> str:
    users = [message["content"] for message in messages if message["role"] == "user"]
    if len(users) > 1:
        # The system message is kept in the file for every model; the client leaves it out for some.
        return "official-r1" if str(users[-1]).startswith("Put your final answer") else "official-cot"
    last = users[0] if isinstance(users[0], str) else users[0][0]["text"]
    return "official-qvq" if last.endswith("Let's think step by step.") else "official-ao"


def _official_model(place: Path) -> str:
    """outputs/<run>/<model>/<data set>/zero_shot/cot/<file>: the model is four folders up."""
    parents = place.resolve().parents
    return parents[3].name if len(parents) > 4 and parents[1].name == "zero_shot" else place.stem


def _lm_eval(rows: list[dict[str, Any]], place: Path) -> Results:
    match = _SAMPLES.fullmatch(place.name)
    task = match[1] if match else "medxpertqa"
    records = []
    for number, row in enumerate(rows, 1):
        with _line(place, number, "sample of this package's tasks for lm-eval"):
            doc, replies = row["doc"], row["resps"][0]
            options = {chr(ord("A") + at): text for at, text in enumerate(doc["options"])}
            question = Question(
                doc["id"],
                doc["stem"],
                options,
                doc["label"],
                tuple(doc["images"] or ()),
                doc["medical_task"],
                doc["body_system"],
                doc["question_type"],
            )
            records.append(Record.of(question, _lm_eval_reply(row["resps"], replies)))
    return score_records(
        records, "robust", name=place.parent.name, protocol=f"lm-eval {task}", source=str(place)
    )


def _lm_eval_reply(resps: list[Any], replies: list[Any]) -> str:
    """The text of a generation, or the letter of the largest of the options' log-likelihoods."""
    if isinstance(replies[0], str):
        return replies[0]
    likelihoods = [float(option[0][0]) for option in resps]
    return chr(ord("A") + likelihoods.index(max(likelihoods)))


@contextmanager
def _line(place: Path, number: int, what: str) -> Iterator[None]:
    """What goes wrong in reading a line becomes a `DataError` that names file, line and what it should be."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{place}, line {number}: {error}") from error
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise DataError(f"{place}, line {number} is no {what}: {type(error).__name__} {error}") from error


def _rows(place: Path) -> list[dict[str, Any]]:
    try:
        rows = read_json_lines(place.read_text(encoding="utf-8"))
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{place} cannot be read as JSON lines: {error}") from error
    if not rows:
        raise DataError(f"{place}: there are no lines")
    return rows


def _trigger(protocol: str) -> TriggerName:
    """Of a protocol as tables name it, with what was changed of it in brackets."""
    name = protocol.partition(" (")[0]
    if name == "opencompass":
        return "ao"
    return get_protocol(name).trigger if name in PROTOCOLS and name != "few-shot" else "cot"
