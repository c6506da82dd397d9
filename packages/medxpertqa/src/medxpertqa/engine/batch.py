"""Runs without a server: requests in files, in OpenAI's batch form, and their replies read back.

`export_batch` writes what has no reply yet; OpenAI's batch API or `vllm run-batch` answers the files;
`import_batch` keeps the replies. A protocol of two turns takes two rounds: the second export has the second
turns of the questions whose first turn was answered. The files hold questions and replies: keep them out of
version control.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medxpertqa.engine.asking import Asked
from medxpertqa.engine.description import BATCH_FILE, FILE, RunDescription, sole_user
from medxpertqa.engine.logs import worst_stop
from medxpertqa.engine.messages import openai_messages
from medxpertqa.engine.parameters import request_settings
from medxpertqa.engine.running import EvalRun, no_images
from medxpertqa.engine.sources import shared_images
from medxpertqa.errors import DataError, MedXpertQAError
from medxpertqa.field_types import check_types
from medxpertqa.hub import question_digest
from medxpertqa.questions import Question
from medxpertqa.results import Record, Results, score_records, write_results

RESULTS = "results.jsonl"
MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000
"""What OpenAI takes in one file."""

_OPENAI_NAMES = {"stop_seqs": "stop", "num_choices": "n"}
_PARAMETERS = {"temperature", "top_p", "top_k", "max_tokens", "seed", "stop", "n"} | {
    *("frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "reasoning_effort")
}
"""Of a request to chat completions, as OpenAI and vLLM name them."""

_REPLIES, _ASKED = "replies.jsonl", "asked.json"
_STOPS = {"length": "max_tokens", "content_filter": "content_filter"}
Place = tuple[str, int, int]
"""Key of a question (id, and @ with the turn of its options), epoch, and turn of the protocol."""


@dataclass(frozen=True)
class BatchReply:
    """One reply, or what went wrong."""

    key: str
    epoch: int
    turn: int
    text: str = ""
    stop_reason: str = ""
    error: str = ""
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def place(self) -> Place:
        """Which request it answers."""
        return self.key, self.epoch, self.turn


@dataclass(frozen=True)
class BatchState:
    """Where a batch stands: files written now, replies kept, requests still open, and all results so far.

    `results` is None while no question has its last reply.
    """

    files: tuple[Path, ...]
    n_replies: int
    n_failed: int
    n_open: int
    results: Results | None = None


def export_batch(
    run: EvalRun, *, most_requests: int = MOST_REQUESTS, most_bytes: int = MOST_BYTES
) -> BatchState:
    """Write the requests that have no reply yet into `run.log_dir`, as requests-1.jsonl, requests-2.jsonl ...

    Each line has a custom_id, which `import_batch` reads again, and the body of a /v1/chat/completions
    request; `run.model` is the model's name there. A failed request is written again. Raises
    `MedXpertQAError` for a folder with another run and for settings that such a request does not have,
    `DataError` for questions and images.
    """
    folder = Path(run.log_dir)
    _body_settings(run)
    with sole_user(folder):
        if (folder / FILE).exists():
            raise MedXpertQAError(f"{folder} holds logs of `medxpertqa eval`; use another folder for a batch")
        run.description.check(folder, BATCH_FILE)
        run.check_images()
        run.description.write(folder, BATCH_FILE)
        clusters = shared_images(run.all_questions, run.image_source)
        ids = dict.fromkeys(asked.published.id for asked in run.asked.values())
        _replace(folder / _ASKED, json.dumps({name: clusters.get(name, "") for name in ids}))
        replies = _kept(folder)
        for old in folder.glob("requests-*.jsonl"):
            old.unlink()
        lines = (_line(run, asked, place, replies) for asked, place in _open(run, replies))
        files = _write_parts(folder, lines, most_requests, most_bytes)
    return _state(run, replies, files, None)


def import_batch(
    folder: str | os.PathLike[str],
    outputs: Sequence[str | os.PathLike[str]],
    questions: str | Sequence[Question],
    *,
    data: str | os.PathLike[str] | None = None,
    demonstrations: Sequence[Question] = (),
    allow_revision: bool = False,
) -> BatchState:
    """Keep the replies of files that the batch API or `vllm run-batch` wrote, and write results.jsonl.

    The questions are those of the export, as for `evaluate`; everything else is in the folder. A reply that
    is kept already stays as it is, so a file may be read twice. Raises `DataError` for another set of
    questions, and for a line that is no reply to a request of this batch.
    """
    place = Path(folder)
    with sole_user(place):
        described = RunDescription.read(place, BATCH_FILE)
        if described is None:
            raise DataError(f"{place} holds no batch; `medxpertqa batch export` makes one")
        clusters: dict[str, str] = json.loads((place / _ASKED).read_text(encoding="utf-8"))
        run = EvalRun(
            questions,
            described.model,
            place,
            described.protocol,
            data,
            demonstrations=demonstrations,
            sample_ids=tuple(clusters),
            epochs=described.epochs,
            permute=described.permute,
            ablate=described.ablate,  # type: ignore[arg-type]  # was checked when it was written
            allow_revision=allow_revision,
            settings=described.altered,
        )
        if question_digest(run.all_questions) != described.digest:
            raise DataError(f"{place} is a batch of other questions than those of {data or run.dataset}")
        replies = _kept(place)
        for reply in (reply for output in outputs for reply in _read_output(Path(output), run)):
            if reply.place not in replies or replies[reply.place].error:
                replies[reply.place] = reply
        _check_turns(replies)
        _replace(place / _REPLIES, "".join(json.dumps(asdict(reply)) + "\n" for reply in replies.values()))
        results = _results(run, described, replies, clusters)
        if results:
            write_results(results, place / RESULTS)
    return _state(run, replies, (), results)


def _state(
    run: EvalRun, replies: Mapping[Place, BatchReply], files: Iterable[Path], results: Results | None
) -> BatchState:
    failed = sum(bool(reply.error) for reply in replies.values())
    n_open = sum(1 for _ in _open(run, replies))
    return BatchState(tuple(files), len(replies) - failed, failed, n_open, results)


def _open(run: EvalRun, replies: Mapping[Place, BatchReply]) -> Iterator[tuple[Asked, Place]]:
    """The requests that can be made now and have no reply: of each question the first such turn."""
    for key, asked in run.asked.items():
        for epoch in range(1, run.epochs + 1):
            for turn in range(1, run.rules.n_turns + 1):
                reply = replies.get((key, epoch, turn))
                if reply is None or reply.error:
                    yield asked, (key, epoch, turn)
                    break


def _line(run: EvalRun, asked: Asked, place: Place, replies: Mapping[Place, BatchReply]) -> str:
    key, epoch, turn = place
    messages = run.rules.first_turn(asked.question)
    if turn == 2:
        messages = run.rules.second_turn(asked.question, messages, replies[key, epoch, 1].text)
    body: dict[str, Any] = {"model": run.model}
    body["messages"] = openai_messages(messages, run.image_source or no_images)
    body |= _body_settings(run)
    if "max_completion_tokens" in run.rules.generate_config:  # reasoning models refuse max_tokens
        body["max_completion_tokens"] = body.pop("max_tokens")
    request = {"custom_id": f"{key}#{epoch}#{turn}", "method": "POST", "url": "/v1/chat/completions"}
    return json.dumps({**request, "body": body}, ensure_ascii=False) + "\n"


def _body_settings(run: EvalRun) -> dict[str, Any]:
    """The parameters of a request in OpenAI's names; `MedXpertQAError` for one that it does not have."""
    settings = request_settings(run.rules, run.altered)
    named = {_OPENAI_NAMES.get(key, key): value for key, value in settings.items()}
    if unknown := sorted(named.keys() - _PARAMETERS):
        raise MedXpertQAError(
            f"a batch's request has no setting {unknown[0]}; it may have {', '.join(sorted(_PARAMETERS))}"
        )
    return named


def _write_parts(folder: Path, lines: Iterable[str], most_requests: int, most_bytes: int) -> list[Path]:
    parts: list[list[str]] = []
    size = 0
    for line in lines:
        length = len(line.encode())
        if not parts or len(parts[-1]) >= most_requests or size + length > most_bytes:
            parts.append([])
            size = 0
        parts[-1].append(line)
        size += length
    files = [folder / f"requests-{number}.jsonl" for number in range(1, len(parts) + 1)]
    for file, part in zip(files, parts, strict=True):
        _replace(file, "".join(part))
    return files


def _read_output(path: Path, run: EvalRun) -> Iterator[BatchReply]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            key, epoch, turn = row["custom_id"].rsplit("#", 2)
            place = (key, int(epoch), int(turn))
            reply = _reply(place, row)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise DataError(
                f"{path}, line {number} is no line of a batch's output: {type(error).__name__} {error}"
            ) from None
        if key not in run.asked or not 1 <= place[1] <= run.epochs or not 1 <= place[2] <= run.rules.n_turns:
            raise DataError(f"{path}, line {number}: {row['custom_id']} is no request of this batch")
        yield reply


def _reply(place: Place, row: Mapping[str, Any]) -> BatchReply:
    response = row.get("response") or {}
    if row.get("error") or response.get("status_code", 200) != 200:
        problem = row.get("error") or (response.get("body") or {}).get("error") or response.get("status_code")
        message = problem.get("message") if isinstance(problem, Mapping) else problem
        return BatchReply(*place, error=" ".join(str(message).split())[:300])
    body = response["body"]
    choice, usage = body["choices"][0], body.get("usage") or {}
    message, stop = choice["message"], choice.get("finish_reason") or ""
    text = (message.get("content") or "").strip()
    stop = _STOPS.get(stop, stop)
    if stop == "content_filter":
        text = ""  # as in a run: a provider's message is no reply
    elif not text and (message.get("reasoning_content") or message.get("reasoning")) and stop == "stop":
        stop = "reasoning_only"
    n_in, n_out = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    told: dict[str, Any] = {"text": text, "stop_reason": stop, "input_tokens": n_in, "output_tokens": n_out}
    check_types(BatchReply, told, "a reply")  # here, where the line is known, and nothing is kept yet
    return BatchReply(*place, **told)


def _check_turns(replies: Mapping[Place, BatchReply]) -> None:
    for key, epoch, turn in replies:
        if turn == 2 and (key, epoch, 1) not in replies:
            raise DataError(
                f"{key} has a reply to its second turn and none to its first; import that file too"
            )


def _results(
    run: EvalRun,
    described: RunDescription,
    replies: Mapping[Place, BatchReply],
    clusters: Mapping[str, str],
) -> Results | None:
    """Of every question that has its last reply, or whose last request failed."""
    records = []
    for key, asked in run.asked.items():
        for epoch in range(1, run.epochs + 1):
            turns = [reply for turn in (1, 2) if (reply := replies.get((key, epoch, turn)))]
            if not turns or (not turns[-1].error and turns[-1].turn < run.rules.n_turns):
                continue
            records.append(_record(asked, epoch, turns, clusters[asked.published.id]))
    if not records:
        return None
    return score_records(
        records,
        run.rules.parser,
        trigger=run.rules.trigger,
        name=described.model,
        protocol=described.how,
        dataset=described.dataset,
        digest=described.digest,
        source=str(run.log_dir),
        n_expected=len(run.asked) * run.epochs,
    )


def _record(asked: Asked, epoch: int, turns: Sequence[BatchReply], cluster: str) -> Record:
    last = turns[-1]
    return asked.record(
        last.text,
        status="error" if last.error else "ok",
        error=last.error,
        stop_reason=worst_stop([reply.stop_reason for reply in turns]),
        epoch=epoch,
        attributes={"cluster": cluster} if cluster else {},
        input_tokens=sum(reply.input_tokens for reply in turns),
        output_tokens=sum(reply.output_tokens for reply in turns),
    )


def _kept(folder: Path) -> dict[Place, BatchReply]:
    path = folder / _REPLIES
    if not path.exists():
        return {}
    rows = [BatchReply(**json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return {reply.place: reply for reply in rows}


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
