"""Tasks to train and to be measured on: rows of files and of hub data sets, as prompt and answer."""

from __future__ import annotations

import gzip
import json
import warnings
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from implicit_prime.code_problems import read_code_problem
from implicit_prime.errors import PrimeError, PrimeWarning

HUB = "hf:"
_GZIP = b"\x1f\x8b"
_QUESTIONS = ("question", "problem", "Problem")
_ANSWERS = ("answer", "final_answer", "Answer", "solution")

Task = dict[str, Any]


def read_tasks(
    sources: Iterable[str], abilities: Collection[str], system: str | None = None, suffix: str = ""
) -> list[Task]:
    """The tasks of all sources, with "prompt" and "answer" as a `PrimeTrainer` takes them.

    sources    files of JSON lines, or hub data sets as "hf:owner/name:split" or "hf:owner/name:config:split";
               "hf:owner/name:file.jsonl" is one file of a data set
    abilities  names of the verifiers. Rows of another ability are left out, with a `PrimeWarning`. Of
               several, every row must have an "ability", and the answers are (ability, answer)
    system     a system message before prompts that are text
    suffix     added to prompts that are text

    Raises `PrimeError`, naming source and row, for rows that are no tasks, and for no row left.
    """
    tasks: list[Task] = []
    others: Counter[str] = Counter()
    sources = list(sources)
    for source in sources:
        for number, row in enumerate(_rows(source)):
            try:
                task = read_task(row, system, suffix)
                ability = _ability(task, abilities)
            except PrimeError as error:
                raise PrimeError(f"{source}, row {number}: {error}") from error
            if ability not in abilities:
                others[ability] += 1
                continue
            if len(abilities) > 1:
                task["answer"] = (ability, task["answer"])
            tasks.append(task)
    if others:
        left_out = ", ".join(f"{count} of ability {name!r}" for name, count in others.items())
        warnings.warn(f"left out, as no verifier is for them: {left_out}", PrimeWarning, stacklevel=2)
    if not tasks:
        raise PrimeError(f"{', '.join(sources)}: no task for the verifiers {', '.join(abilities)}")
    return tasks


def read_task(row: Mapping[str, Any], system: str | None = None, suffix: str = "") -> Task:
    """One row with "prompt", "answer" and perhaps "ability", from any of

    prompt, answer           ours
    prompt, reward_model     verl's, with reward_model.ground_truth (Eurus-2-RL-Data)
    question, answer         GSM8K; also problem, and final_answer or solution (MATH-500, AIME, OlympiadBench)
    programming problems     LiveCodeBench, LeetCode, HumanEval: see `code_problems.read_code_problem`

    Raises `PrimeError` for anything else.
    """
    task = read_code_problem(row) or _read_question(row)
    if isinstance(task["prompt"], str):
        task["prompt"] += suffix
        if system is not None:
            told, asked = {"role": "system", "content": system}, {"role": "user", "content": task["prompt"]}
            task["prompt"] = [told, asked]
    return task


def _read_question(row: Mapping[str, Any]) -> Task:
    prompt = _first(row, ("prompt", *_QUESTIONS))
    model = row.get("reward_model")
    answer = model.get("ground_truth") if isinstance(model, Mapping) else _first(row, _ANSWERS)
    if isinstance(answer, list) and len(answer) == 1:  # OlympiadBench's final_answer
        answer = answer[0]
    if prompt is None or answer is None:
        raise PrimeError(
            "no task: it needs 'prompt' and 'answer', 'prompt' and 'reward_model', or 'question' (or "
            f"'problem') and 'answer'; its columns are {sorted(row)}"
        )
    return {"prompt": prompt, "answer": answer} | ({"ability": row["ability"]} if row.get("ability") else {})


def _first(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _ability(task: Task, abilities: Collection[str]) -> str:
    found = task.get("ability")
    if found is None and len(abilities) > 1:
        raise PrimeError(f"it has no 'ability', which says which verifier it is for: {', '.join(abilities)}")
    return next(iter(abilities)) if found is None else str(found)


def _rows(source: str) -> Iterator[Mapping[str, Any]]:
    return _hub_rows(source.removeprefix(HUB)) if source.startswith(HUB) else read_lines(source)


def read_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, perhaps packed by gzip; empty lines are skipped.

    Raises `PrimeError`, with file and line, for a file that is not there and what is no JSON object.
    """
    try:
        packed = Path(path).read_bytes()
        text = (gzip.decompress(packed) if packed.startswith(_GZIP) else packed).decode("utf-8")
    except FileNotFoundError:
        raise PrimeError(f"there is no file {path}") from None
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise PrimeError(f"{path} is no text: {error}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise PrimeError(f"{path}, line {number}: no JSON: {error}") from error
        if not isinstance(row, dict):
            raise PrimeError(f"{path}, line {number}: a JSON object is expected, not {line[:40]}")
        yield row


def _hub_rows(source: str) -> Iterator[Mapping[str, Any]]:
    name, *rest = source.split(":")
    split = rest[-1] if rest else "train"
    try:
        if split.endswith((".jsonl", ".jsonl.gz")):
            from huggingface_hub import hf_hub_download

            rows: Iterable[Any] = read_lines(hf_hub_download(name, split, repo_type="dataset"))
        else:
            from datasets import load_dataset

            rows = load_dataset(name, *rest[:-1], split=split)
    except ImportError as error:
        raise PrimeError(f"{HUB}{source} is read by the package datasets: pip install datasets") from error
    except (OSError, ValueError) as error:
        raise PrimeError(
            f"cannot load the hub's data set {name!r}, split {split!r}: {error}; write hf:owner/name:split, "
            "hf:owner/name:config:split or hf:owner/name:file.jsonl, and log in with `hf auth login` if it "
            "is gated"
        ) from error
    yield from rows
