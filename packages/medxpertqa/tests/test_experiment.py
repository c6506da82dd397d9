"""The experiment: a small run with invented questions ends with judged claims and figures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from inspect_ai.log import list_eval_logs, read_eval_log, write_eval_log
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from medxpertqa.engine.description import BATCH_FILE
from medxpertqa.engine.run_settings import read_run_settings
from medxpertqa.engine.stub_server import Reply, StubServer
from medxpertqa.errors import DataError
from medxpertqa.hub import SETS
from medxpertqa.paper import check_claims, check_tables
from medxpertqa.questions import Question
from medxpertqa.reproduce import answering, construction, leaking, measuring, metrics, open_models, scorers
from medxpertqa.reproduce.auditing import LISTED, same_digits
from medxpertqa.reproduce.claims import PUBLISHED
from medxpertqa.reproduce.experiment import EXPERIMENT, ExperimentConfig
from medxpertqa.reproduce.server import ChatServer
from medxpertqa.reproduce.vllm_server import sender, wait
from medxpertqa.results import Record, score_records, write_results
from medxpertqa.synthetic import synthetic_questions
from tenfold import Run, Verdict, run_experiment
from tenfold.configs import load_config
from tenfold.testing import run_here

TINY = [
    "answers.made_up=true",
    "answers.text=12",
    "answers.permuted=2",
    "answers.blind=8",
    "answers.shards=1",
    "construction.candidates=40",
    "construction.samples=2",
    "construction.copies=4",
    "leak.items=8",
    "leak.tokens=24",
    "leak.epochs=25",
    "leak.learning_rate=0.02",
]
EXAM = {"protocol": "official-ao", "subset": "text", "count": 12, "max_tokens": 24, "made_up": True}
LAUNCH = Path(__file__).parent.parent / "launch"
BANK = synthetic_questions("text")
OFFICIAL = """
import what_is_not_installed

def answer_cleansing(method, trigger, reply, dataset, subset, sample):
    return re.findall(r"\\(([A-J])\\)", reply)[:1]
"""
NOT_OURS = {"E1", "E1-length", "E1-misfits", "E7", "E7-copies"}
"""What cannot hold of invented questions."""


def bank(name: str) -> list[Question]:
    """A bank of the synthetic questions and a twin of the first."""
    twin = replace(BANK[0], id=f"{name}-twin", stem=BANK[0].stem.replace("A ", "The ", 1))
    return [*(replace(question, id=f"{name}-{question.id}") for question in BANK), twin]


def chat(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A model that thinks if it is let, and always says C."""
    final = "the answer is" in str(payload["messages"][-1]["content"])
    message = {"role": "assistant", "content": "The answer is (C)." if final else "I think of it."}
    return {
        "id": "0",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9},
    }


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    with ChatServer(chat) as running:
        yield running


def ask_here(settings: Mapping[str, Any], folder: Path, running: ChatServer, *rest: object) -> None:
    answering.put(settings, str(folder), running.base_url)


def tiny_model() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A Llama of one layer, and a tokenizer of the words of the synthetic questions."""
    words = sorted({word for question in BANK for word in question.stem.split()})
    known = Tokenizer(models.WordLevel({word: n for n, word in enumerate(["?", *words])}, unk_token="?"))
    known.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    config = LlamaConfig(
        vocab_size=len(words) + 1,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config), PreTrainedTokenizerFast(tokenizer_object=known, unk_token="?")


@pytest.mark.slow
def test_a_tiny_run_of_all_parts_judges_every_claim_and_draws_every_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "utils.py").write_text(OFFICIAL)
    attributes = {question.id: dict(question.attributes) for question in BANK}
    monkeypatch.setattr(Run, "map", run_here)
    monkeypatch.setattr(Run, "has_data", lambda run, name: True)
    for module in (construction, leaking, measuring):
        monkeypatch.setattr(module, "bank", bank)
    monkeypatch.setattr(measuring, "load_attributes", lambda: attributes)
    monkeypatch.setattr(measuring, "archived_questions", synthetic_questions)
    monkeypatch.setattr(scorers, "OFFICIAL_PARSERS", SimpleNamespace(path=lambda: tmp_path))
    monkeypatch.setattr(answering, "model_server", chat_server)
    monkeypatch.setattr(answering, "ask", ask_here)
    monkeypatch.setattr(construction, "open_model", lambda: nullcontext(chat))
    monkeypatch.setattr(leaking, "load", tiny_model)
    outcome = run_experiment(EXPERIMENT, "laptop", assignments=TINY, results=tmp_path / "results")
    found = {claim.id: claim for claim in outcome.claims.claims}
    assert set(found) == {claim.id for claim in EXPERIMENT.claims}
    judged = {name: claim for name, claim in found.items() if claim.verdict != Verdict.NOT_TESTED}
    reported = {"E4-extraction", "E4-position", "E4-permuted"}
    assert set(found) - set(judged) == reported | {name for name in found if name.startswith("P-")}
    assert all(found[name].ours is not None for name in reported)
    held = {name for name, claim in judged.items() if claim.verdict == Verdict.HELD}
    assert set(judged) - held - {"E8-perplexity", "E8-ngrams"} == NOT_OURS
    assert found["E5"].ours is not None
    assert {file.stem for file in outcome.folder.figures.glob("*.svg")} == {
        "cells",
        "funnel",
        "leakage",
        "letters",
        "nearest",
        "published",
        "reliability",
    }
    text = "".join(file.read_text() for file in (tmp_path / "results").rglob("*.json*") if file.is_file())
    assert not any(question.stem in text for question in BANK)  # nothing of a question is published


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The logs of a finished run of twelve questions, as a user has them of an open model."""
    folder = tmp_path_factory.mktemp("users")
    with chat_server() as running:
        answering.put(EXAM, str(folder / "qwen25_32b" / "text"), running.base_url)
    return folder


def test_a_batch_is_a_users_run_too_and_one_of_many_errors_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    run = cast("Run", SimpleNamespace(log=SimpleNamespace(tell=told.append)))
    bank = synthetic_questions("text")
    monkeypatch.setitem(SETS, "text", SETS["text"]._replace(size=len(bank)))
    records = [Record.of(question, question.label) for question in bank]
    (tmp_path / BATCH_FILE).touch()
    write_results(score_records(records, name="m", protocol="official-cot"), tmp_path / "results.jsonl")
    assert open_models.finished_run(tmp_path, "text", run) is not None
    records[0] = replace(records[0], response="", status="error", error="x")
    write_results(score_records(records, name="m", protocol="official-cot"), tmp_path / "results.jsonl")
    assert open_models.finished_run(tmp_path, "text", run) is None
    assert told == [f"{tmp_path} is not complete, so its claim is not tested"]


def test_at_the_paper_s_scale_users_runs_are_judged_if_they_are_whole(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_hub(name: str) -> list[Question]:
        raise DataError("no hub here")

    monkeypatch.setattr(Run, "map", run_here)
    monkeypatch.setattr(Run, "has_data", lambda run, name: False)
    monkeypatch.setattr(open_models, "load_questions", no_hub)
    where = [f"models.logs='{logs}'"]
    short = run_experiment(EXPERIMENT, "paper", assignments=where, results=tmp_path / "short")
    assert "missing" in {claim.id: claim.reason for claim in short.claims.claims}["P-qwen25_32b"]
    assert "has 12 of 2450 questions" in short.folder.log_file.read_text()
    monkeypatch.setitem(SETS, "text", SETS["text"]._replace(size=12))
    whole = run_experiment(EXPERIMENT, "paper", assignments=where, results=tmp_path / "whole")
    claims = {claim.id: claim for claim in whole.claims.claims}
    ours = claims["P-qwen25_32b"].ours
    assert ours is not None
    right = sum(question.label == "C" for question in BANK)
    assert ours.mean == pytest.approx(100 * right / 12)
    assert claims["P-qwen25_32b"].verdict == Verdict.DID_NOT_HOLD  # outside [13.70, 16.53]
    assert claims["P-qwen25_72b"].verdict == claims["P-length"].verdict == Verdict.NOT_TESTED


def test_a_reply_is_read_where_inspect_has_recovered_a_sample_after_a_kill(logs: Path) -> None:
    folder = logs / "qwen25_32b" / "text"
    before = answering.read(folder).records
    file = list_eval_logs(str(folder))[0]
    log = read_eval_log(file)
    assert log.samples
    log.samples[3].store = {}  # of its buffer inspect-ai restores the scores, and neither store nor messages
    write_eval_log(log, file)
    after = answering.read(folder).records
    assert after == before
    assert {record.response for record in after} == {"The answer is (C)."}


def test_a_request_to_vllm_s_address_returns_the_answer_or_what_is_wrong() -> None:
    payload = {"messages": [{"role": "user", "content": "Which?"}]}
    replies = iter([Reply("(B)"), Reply("too long", status=400)])
    with StubServer(lambda request: next(replies)) as stub:
        send = sender(f"{stub.base_url}/chat/completions")
        assert send(payload)["choices"][0]["message"]["content"] == "(B)"
        wrong = send(payload)["error"]
    assert wrong["code"] == 400
    assert "too long" in wrong["message"]
    assert stub.requests == [payload, payload]


def test_a_server_that_ends_before_it_answers_is_told() -> None:
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    process.wait()
    with pytest.raises(RuntimeError, match="ended with code 3 before it answered"):
        wait("http://127.0.0.1:9/health", process)


def test_every_listed_statement_is_one_that_is_tested() -> None:
    assert {(entry.model, entry.subset) for entry in LISTED} == {
        (found.model, found.subset) for found in check_claims()
    }


@pytest.mark.parametrize(
    ("shown", "value", "same"),
    [
        ("0.20", 0.1977, True),
        ("0.20", 0.1949, False),
        ("-1.09", -1.0871, True),
        ("4E-8", 3.73e-08, True),
        ("4E-8", 7.1e-09, False),
        ("< 0.0001", 2.7e-05, True),
        ("< 0.0001", 0.0002, False),
        ("", 5.0, True),
    ],
)
def test_a_number_agrees_if_it_has_the_listed_digits(shown: str, value: float, same: bool) -> None:
    assert same_digits(shown, value) is same


def row(name: str, letters: tuple[str | None, str | None], label: str, order: list[int]) -> dict[str, Any]:
    official, robust = letters
    return {
        "id": name,
        "label": label,
        "order": order,
        "n_options": 5,
        "letters": {"official": official, "robust": robust},
    }


def test_the_interval_of_both_parsers_is_what_they_have_in_common() -> None:
    rows = [row("1", ("A", "A"), "A", []), row("2", (None, "B"), "B", []), row("3", ("C", "D"), "A", [])]
    found = metrics.accuracy_metrics("x", rows)
    assert found["x_accuracy_official"] == pytest.approx(100 / 3)
    assert found["x_accuracy_robust"] == pytest.approx(200 / 3)
    # Wilson, 1 of 3: [6.15, 79.23]; 2 of 3: [20.77, 93.85]
    assert (found["x_low"], found["x_high"]) == pytest.approx((20.77, 79.23), abs=0.005)
    assert found["x_extracted"] == pytest.approx(200 / 3)
    assert found["x_disagreements"] == 2


def test_a_question_is_answered_consistently_if_all_orders_get_the_same_option() -> None:
    turned = [2, 3, 4, 0, 1]
    rows = [row("1", ("A", None), "A", []), row("1", ("D", None), "D", turned)]  # option 0 both times
    rows += [row("2", ("A", None), "B", []), row("2", ("A", None), "E", turned)]  # the letter, not the option
    found = metrics.permuted_metrics(rows)
    assert found == {"permuted_accuracy": 50.0, "permuted_consistent": 50.0}


def test_a_killed_run_has_kept_what_was_not_asked_again() -> None:
    before, after = {"a": 2, "b": 2, "c": 1}, {"a": 2, "b": 4, "c": 3, "d": 2}
    found = answering.resumption(before, after, turns=2, count=4)  # type: ignore[arg-type]  # Counters
    assert (found["kept"], found["lost"]) == (1, 2)


def test_the_audit_s_fall_is_that_of_the_area_under_the_curve() -> None:
    # known texts stand out (1 against 0) before the rewriting, and not behind it
    scores = np.array([[1.0, 0.0], [0.0, 0.0]] * 20)
    found = leaking.fall(scores)
    assert (found[""], found["_rewritten"]) == (1.0, 0.5)
    assert (found["_fall_low"], found["_fall_high"]) == (0.5, 0.5)


@pytest.mark.parametrize("scale", ["quick", "laptop"])
def test_a_scale_asks_what_section_6_says(scale: str) -> None:
    config = load_config(EXPERIMENT, scale)
    assert isinstance(config, ExperimentConfig)
    assert config.answers is not None
    assert config.construction is not None
    asked = (config.answers.text, config.answers.permuted, config.answers.blind)
    assert asked == ((60, 0, 0) if scale == "quick" else (244, 60, 199))
    assert (config.answers.cot_tokens, config.construction.copies) == (96, 40)
    assert (config.leak is None) == (scale == "quick")


def test_launch_has_a_run_for_every_open_model_with_the_printed_count() -> None:
    counts = {row.model: row.counts for row in check_tables()}
    served = (LAUNCH / "model.sh").read_text()
    files = {file for subset in ("text", "mm") for file in (LAUNCH / subset).glob("*.toml")}
    for model in PUBLISHED:
        assert f"    {model.key}) hub=" in served
        for subset, place in (("text", 0), ("mm", 2)):
            file, found = LAUNCH / subset / f"{model.key}.toml", counts[model.name] or ()
            if not found[place:]:
                continue
            files.remove(file)
            settings = read_run_settings(file, {})
            assert settings.published is not None
            assert settings.published.n_correct == sum(found[place : place + 2])
            assert settings.published.n == SETS[subset].size
            assert (settings.subset, settings.log_dir) == (subset, Path("logs") / model.key / subset)
    assert not files
