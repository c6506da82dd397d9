"""E4 and E5: a real model answers real questions in a process of its own, which may be killed and resumed.

The questions are read in memory and asked by `evaluate`, as a user would; what is kept of them are ids,
attributes and letters. The logs have the replies; they stay in the run's folder, outside version control.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from medxpertqa.protocols import get_protocol
from medxpertqa.questions import Question
from medxpertqa.reproduce.exam import exam_questions
from medxpertqa.reproduce.scorers import compared
from medxpertqa.reproduce.server import NAME, ChatServer, backend, model_server
from medxpertqa.results import Results
from tenfold import Trial, TrialContext

CONNECTIONS = 2
ORDERS = 4


class AnswersConfig(BaseModel):
    """How much is asked; 0 leaves a part out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: int = Field(gt=0, description="Text questions, of 244")
    permuted: int = Field(ge=0, description="Text questions that are asked in four orders of their options")
    blind: int = Field(ge=0, description="MM questions without their images, of 199")
    cot_tokens: int = Field(gt=0, description="the longest reply of a turn, official-cot")
    ao_tokens: int = Field(gt=0, description="the longest reply, official-ao")
    shards: int = Field(gt=0, description="processes that share the Text questions of official-cot")
    made_up: bool = Field(default=False, description="the package's synthetic questions instead: for tests")


def answers_trials(config: AnswersConfig) -> list[Trial]:
    """The runs, the longest first: official-cot on Text in shards that are killed at half, then the rest."""
    cot = {"protocol": "official-cot", "max_tokens": config.cot_tokens, "made_up": config.made_up}
    ao = {"protocol": "official-ao", "max_tokens": config.ao_tokens, "made_up": config.made_up}
    text = {"subset": "text", "count": config.text}
    trials = []
    if config.blind:
        blind = {"subset": "mm", "count": config.blind, "ablate": ["images"]}
        trials.append(Trial("blind", 0, cot | blind, "answers"))
    for part in range(1, config.shards + 1):
        shard = {"shard": f"{part}/{config.shards}", "kill": True}
        trials.append(Trial(f"cot {part}", 0, cot | text | shard, "answers"))
    trials.append(Trial("ao", 0, ao | text, "answers"))
    if config.permuted:
        settings = ao | text | {"count": config.permuted, "permute": ORDERS}
        trials.append(Trial("permuted", 0, settings, "answers"))
    return trials


def answers_trial(trial: Trial, context: TrialContext) -> dict[str, Any]:
    """Ask the questions of one run, kill it at half if that is wanted, resume it, and read its logs."""
    settings = trial.settings
    folder = context.checkpoint_dir.parents[1] / "logs" / trial.folder_name
    if settings.get("kill"):
        shutil.rmtree(folder, ignore_errors=True)  # what was lost can only be counted from the start
    expected = expected_keys(settings)
    turns = get_protocol(settings["protocol"]).n_turns
    found: dict[str, Any] = {}
    with model_server() as server:
        if settings.get("kill"):
            before = killed_at_half(settings, folder, server, len(expected), turns)
            ask(settings, folder, server, context, len(expected), turns)
            found["resume"] = resumption(before, server.snapshot(), turns, len(expected))
        else:
            ask(settings, folder, server, context, len(expected), turns)
    results = read(folder)
    found |= told(results, expected) | {"served_by": backend()}
    return found | compared(folder, results, asked_of(settings), get_protocol(settings["protocol"]))


def asked_of(settings: Mapping[str, Any]) -> list[Question]:
    """The questions of a run before shards, permutation and ablation: evenly spread over the sample."""
    return exam_questions(settings["subset"], settings["count"], made_up=settings["made_up"])


def expected_keys(settings: Mapping[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    """The (id, option order) of every question that the run has to ask."""
    from medxpertqa.engine.asking import asked_questions, shard_of

    questions: Sequence[Question] = asked_of(settings)
    if settings.get("shard"):
        questions = shard_of(questions, settings["shard"])
    asked = asked_questions(questions, settings.get("permute", 1), settings.get("ablate", ()))
    return [(one.published.id, one.order) for one in asked]


def start(settings: Mapping[str, Any], folder: Path, base_url: str) -> subprocess.Popen[str]:
    """Start `evaluate` in a process of its own."""
    request = json.dumps({"settings": dict(settings), "folder": str(folder), "base_url": base_url})
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(request)
    process.stdin.close()
    process.stdin = None
    return process


def ask(
    settings: Mapping[str, Any],
    folder: Path,
    server: ChatServer,
    context: TrialContext,
    count: int,
    turns: int,
) -> None:
    """Run to the end; raises `RuntimeError` with the end of what the process said if it fails."""
    process = start(settings, folder, server.base_url)
    try:
        while True:
            try:
                _, said = process.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                context.progress(min(server.finished(turns), count), count)
    finally:
        process.kill()
    if process.returncode:
        raise RuntimeError(f"evaluate ended with code {process.returncode}: {said[-1500:]}")


def killed_at_half(
    settings: Mapping[str, Any], folder: Path, server: ChatServer, count: int, turns: int
) -> Counter[str]:
    """Run until half of the questions are answered, kill the process, and return what was answered."""
    process = start(settings, folder, server.base_url)
    try:
        while server.finished(turns) < count / 2:
            if process.poll() is not None:
                break
            time.sleep(0.02)
    finally:
        process.kill()
        _, said = process.communicate()
    if process.returncode > 0:
        raise RuntimeError(f"evaluate ended with code {process.returncode}: {said[-1500:]}")
    server.wait_until_idle()
    return server.snapshot()


def resumption(before: Counter[str], after: Counter[str], turns: int, count: int) -> dict[str, int]:
    """How many questions were answered before the kill and kept, and how many were asked again.

    `before` and `after` count answered requests by question, at the kill and at the end.
    """
    lost = sum(after[key] > before[key] for key in before)
    buffer = max(1, min(count // 3, 10))  # inspect-ai writes its log after so many samples
    return {"kept": len(before) - lost, "lost": lost, "allowed": buffer + CONNECTIONS, "turns": turns}


def read(folder: Path) -> Results:
    """The results in a folder of logs."""
    from medxpertqa.engine.logs import read_logs

    return read_logs(folder)


def told(results: Results, expected: Sequence[tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
    """What is kept of a run: ids, attributes, labels and letters, and what is missing."""
    there = {(record.id, record.order) for record in results.records if record.status == "ok"}
    rows = [
        {
            "id": record.id,
            "label": record.label,
            "order": list(record.order),
            "n_options": record.n_options,
            "letters": {name: found[place].letter for name, found in results.answers.items()},
            "status": record.status,
            "stop_reason": record.stop_reason,
            "attributes": dict(record.attributes),
        }
        for place, record in enumerate(results.records)
    ]
    return {
        "rows": rows,
        "expected": len(expected),
        "stored": len(there.intersection(expected)),
        "errors": sum(record.status != "ok" for record in results.records),
        "missing": len(set(expected) - there),
        "tokens": [
            sum(record.input_tokens for record in results.records),
            sum(record.output_tokens for record in results.records),
        ],
    }


def put(settings: Mapping[str, Any], folder: str, base_url: str) -> None:
    """Ask the questions of a run that have no reply in the folder yet."""
    from medxpertqa.engine.running import evaluate

    evaluate(
        asked_of(settings),
        model=f"openai-api/local/{NAME}",
        base_url=base_url,
        log_dir=folder,
        protocol=settings["protocol"],
        shard=settings.get("shard", ""),
        permute=settings.get("permute", 1),
        ablate=settings.get("ablate", ()),
        max_tokens=settings["max_tokens"],
        max_connections=CONNECTIONS,
    )


def main() -> None:
    """Ask what the JSON on standard input says; the parent may kill this process at any time."""
    put(**json.load(sys.stdin))


if __name__ == "__main__":
    main()
