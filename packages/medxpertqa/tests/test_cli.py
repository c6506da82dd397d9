"""The command as a user types it: what it shows, its exit codes, and no traceback for a mistake."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from medxpertqa.cli import main
from medxpertqa.engine.stub_server import Reply, StubServer, prompt_text
from medxpertqa.results import Record, score_records, write_results
from medxpertqa.synthetic import synthetic_questions

QUESTIONS = synthetic_questions("text")
LABELS = {question.stem: question.label for question in QUESTIONS}


class Command:
    """Runs the command in this process; `out` and `err` are what the last one wrote."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        self.out, self.err = self._capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("LOCAL_API_KEY", "k")
    return Command(capsys)


def right(payload):
    text = prompt_text(payload)
    return f"The answer is {next(LABELS[stem] for stem in LABELS if stem in text)}."


def results_file(path: Path, n_right: int, **about) -> Path:
    records = [
        Record.of(q, f"The answer is {q.label if place < n_right else 'A' if q.label != 'A' else 'B'}.")
        for place, q in enumerate(QUESTIONS)
    ]
    write_results(score_records(records, name=path.stem, protocol="official-cot", **about), path)
    return path


def test_parse_shows_what_each_parser_reads(run):
    assert run("parse", "I think it is D") == 0
    shown = [line.split()[:2] for line in run.out.splitlines()]
    assert shown == [["official", "I"], ["official-r1", "-"], ["official-qvq", "D"], ["robust", "D"]]


def test_info_tells_sets_protocols_and_extras_and_counts_a_set(run):
    assert run("info") == 0
    for word in ("text/o1", "official-qvq", "lm-eval"):
        assert word in run.out
    assert run("info", "--subset", "synthetic/mm") == 0
    assert "16 images in all" in run.out
    assert QUESTIONS[0].stem not in run.out


def test_eval_asks_scores_and_goes_on_and_score_reads_it(run, tmp_path):
    logs = tmp_path / "logs"
    command = ["eval", "--subset", "synthetic/text", "--model", "openai-api/local/m", "--log-dir", logs]
    command += ["--protocol", "official-ao", "--max-connections", "4", "--max-tokens", "9"]
    with StubServer(right) as server:
        command += ["--base-url", server.base_url]
        assert run(*command, "--dry-run") == 0
        assert "12 questions; 12 calls" in run.err
        assert not server.requests
        assert run(*command, "--limit", "5") == 0
        assert run(*command) == 0
        assert "12 questions, 5 answered already; 7 calls" in run.err
        assert len(server.requests) == 12
        assert {payload["max_tokens"] for payload in server.requests} == {9}
    assert "100.00 [75.75, 100.00]" in run.out  # Wilson of 12 of 12: 1 / (1 + z^2 / 12)
    assert "official-ao (max_tokens=9)" in run.out

    assert run("score", logs, "--json", "-") == 0
    found = json.loads(run.out)
    assert {
        "n",
        "n_correct",
        "accuracy",
        "ci",
        "n_no_answer",
        "n_errors",
        "by",
        "parsers",
        "usage",
    } <= found.keys()
    assert (found["n"], found["n_correct"]) == (12, 12)
    assert run("score", logs, "--out", tmp_path / "s.json", "--subset", "synthetic/text") == 0
    assert json.loads((tmp_path / "s.json").read_text())["n_correct"] == 12
    assert "accuracy" in run.out.lower()
    assert run("score", "--json", logs) == 0
    assert json.loads(run.out) == found
    assert run("share", logs, "--out", tmp_path / "bundle.jsonl") == 0
    assert run("score", tmp_path / "bundle.jsonl", "--subset", "synthetic/text") == 0
    assert run("share", tmp_path / "bundle.jsonl", "--scan", "--subset", "synthetic/text") == 0


def test_more_than_5_percent_errors_are_listed_and_end_with_1(run, tmp_path):
    def fails(payload):
        return Reply("no", status=400) if QUESTIONS[3].stem in prompt_text(payload) else right(payload)

    command = ["eval", "--subset", "synthetic/text", "--model", "openai-api/local/m", "--log-dir", tmp_path]
    with StubServer(fails) as server:
        assert run(*command, "--base-url", server.base_url, "--protocol", "official-ao") == 1
    assert "Text-3: BadRequestError (HTTP 400): no" in run.err
    assert "is not complete: 0 replies are missing, 1 are errors" in run.out
    assert run("score", tmp_path) == 1
    assert "A reply that could not be had counts as wrong, as officially." in " ".join(run.out.split())
    assert run("score", tmp_path, "--errors", "exclude") == 1
    assert "A reply that could not be had does not count." in " ".join(run.out.split())
    other = results_file(tmp_path.parent / f"{tmp_path.name}.jsonl", 12)
    for errors, n, difference in (("wrong", 12, -1 / 12), ("exclude", 11, 0)):
        assert run("compare", tmp_path, other, "--errors", errors, "--json", "-") == 0
        (pair,) = json.loads(run.out)
        assert (pair["n"], pair["difference"]) == (n, pytest.approx(difference))


def test_a_config_sets_what_options_do_not_and_a_published_row_is_compared(run, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(
        'model = "openai-api/local/m"\nsubset = "synthetic/text"\nprotocol = "official-ao"\nlimit = 3\n'
        "[settings]\nmax_tokens = 7\ntemperature = 0.5\n[published]\nn_correct = 2\nn = 12\n"
    )
    with StubServer(right) as server:
        command = ["eval", "--config", config, "--log-dir", tmp_path / "l", "--base-url", server.base_url]
        assert run(*command, "--max-tokens", "8") == 0
    assert {(p["max_tokens"], p["temperature"]) for p in server.requests} == {(8, 0.5)}
    assert len(server.requests) == 3
    # 3 of 3 against 2 of 12: pooled 1/3, z = (5/6) / sqrt(2/9 * (1/3 + 1/12)) = 2.739
    assert "Published: 16.67 [4.70, 44.80] %. This run: +83.33 points, p = 0.006: differ." in run.out


def test_money_is_not_spent_unasked(run, tmp_path):
    command = [
        "eval",
        "--subset",
        "synthetic/text",
        "--model",
        "openai-api/local/dear",
        "--log-dir",
        tmp_path,
    ]
    with StubServer(right) as server:
        command += ["--base-url", server.base_url, "--protocol", "official-ao", "--price", "1", "1000"]
        assert run(*command) == 2
        # 12 replies of 2,048 tokens
        assert "this may cost about $24.58, images not counted; give --yes" in run.err
        assert not server.requests
        assert run(*command, "--cost-limit", "100") == 0
    assert "about $24.58, images not counted" in run.err


def test_runs_are_compared_and_reported(run, tmp_path):
    a, b = results_file(tmp_path / "a.jsonl", 10), results_file(tmp_path / "b.jsonl", 4)
    assert run("compare", a, b) == 0
    assert "50.00 [" in run.out
    assert run("compare", a, b, "--json", "-") == 0
    (pair,) = json.loads(run.out)
    assert (pair["difference"], pair["only_a"], pair["only_b"], pair["p_value"]) == (0.5, 6, 0, 2 * 0.5**6)
    out = tmp_path / "r.html"
    assert run("report", a, b, "--out", out, "--title", "Two <runs>") == 0
    page = out.read_text()
    assert "Two &lt;runs&gt;" in page
    assert "do not show that a model is ready for clinical use" in page
    assert run("compare", a) == 2
    assert "at least two runs" in run.err


def test_a_scan_finds_a_question_before_it_is_published(run, tmp_path):
    (tmp_path / "notes.md").write_text(QUESTIONS[2].stem)
    assert run("share", tmp_path, "--scan", "--subset", "synthetic/text") == 1
    assert "notes.md: Text-2" in run.out
    assert run("share", tmp_path, "--scan") == 2


def test_batches_go_out_and_come_back(run, tmp_path):
    folder, same = tmp_path / "b", ["--subset", "synthetic/text"]
    export = ["batch", "export", "--model", "m", "--log-dir", folder, *same, "--limit", "2"]
    for turn in (1, 2):
        assert run(*export) == 0
        requests = [json.loads(line) for line in Path(run.out.strip()).read_text().splitlines()]
        assert [request["custom_id"] for request in requests] == [f"Text-0#1#{turn}", f"Text-1#1#{turn}"]
        output = tmp_path / f"out{turn}.jsonl"
        lines = []
        for request in requests:
            body = {"choices": [{"message": {"content": right(request["body"])}, "finish_reason": "stop"}]}
            lines.append({"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}})
        output.write_text("\n".join(map(json.dumps, lines)))
        assert run("batch", "import", output, "--log-dir", folder, *same) == 0
    assert "4 replies, 0 requests open" in run.err
    assert run("score", folder, "--json", "-") == 0
    assert json.loads(run.out)["n_correct"] == 2
    assert run("batch", "export", "--model", "m", "--log-dir", folder, "--format", "x") == 2


def test_a_few_shot_batch_comes_back_with_the_same_demonstrations_as_it_went_out_with(
    run, tmp_path, monkeypatch
):
    dev = [replace(question, id=f"dev-{question.id}") for question in QUESTIONS[5:8]]
    from_hub = lambda name, *_, **__: {"text/dev": dev, "text": QUESTIONS}[name]  # noqa: E731
    monkeypatch.setattr("medxpertqa.engine.run_settings.load_questions", from_hub)
    monkeypatch.setattr("medxpertqa.load_questions", from_hub)
    folder, output = tmp_path / "b", tmp_path / "out.jsonl"
    export = [
        "batch",
        "export",
        "--model",
        "m",
        "--protocol",
        "few-shot",
        "--log-dir",
        folder,
        "--limit",
        "1",
    ]
    assert run(*export) == 0
    (request,) = [json.loads(line) for line in Path(run.out.strip()).read_text().splitlines()]
    assert dev[0].stem in prompt_text(request["body"])
    body = {"choices": [{"message": {"content": "The answer is A."}, "finish_reason": "stop"}]}
    output.write_text(json.dumps({"custom_id": request["custom_id"], "response": {"body": body}}))
    own = ["--subset", "synthetic/text"]
    assert run("batch", "import", output, "--log-dir", folder, *own) == 2
    assert "few-shot needs answered questions to show" in run.err
    assert run("batch", "import", output, "--log-dir", folder) == 0
    assert "0 requests open" in run.err


def test_the_papers_tables_are_checked_and_a_file_is_counted(run, tmp_path):
    pytest.importorskip("bpe_openai")
    data = tmp_path / "q.jsonl"
    data.write_text("".join(json.dumps(question.to_record()) + "\n" for question in QUESTIONS))
    assert run("paper-check", "--data", data) == 0
    assert "possible with text_reasoning 22.03 (410 of 1861)" in run.out
    assert run("paper-check", "--data", data, "--json", "-") == 0
    found = json.loads(run.out)
    assert sum(row["consistent"] for row in found["tables"]) == 17
    assert {n["name"]: (n["printed"], n["counted"], n["equal"]) for n in found["questions"]}["questions"] == (
        2450,
        12,
        False,
    )


def test_the_folder_of_lm_evals_tasks_is_printed(run):
    assert run("lm-eval-path") == 0
    assert (Path(run.out.strip()) / "medxpertqa_text_cot.yaml").exists()


BATCH = ("--model", "m", "--log-dir", "l", "--subset", "synthetic/text")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["parse", "A", "--options", "1"], "n_options is 1; it must be 2 to 26"),
        (["score", "nowhere"], "there is no file or folder nowhere"),
        (["eval"], "model is missing; give --model"),
        (["eval", "--model", "m/m"], "log_dir is missing; give --log-dir"),
        (["eval", "--model", "m/m", "--log-dir", "l", "--epochs", "0"], "epochs = 0"),
        (
            ["eval", "--model", "m/m", "--log-dir", "l", "--config", "none.toml"],
            "none.toml: the settings can't be read",
        ),
        (["eval", "--model", "m/m", "--log-dir", "l", "--set", "x"], "--set x: write key=value"),
        (["eval", "--model", "m/m", "--log-dir", "l", "--sample-ids", ","], "--sample-ids ',' names no"),
        (["eval", "--model", "m/m", "--log-dir", "l", "--price", "-1", "2"], "price.0 = -1.0"),
        (
            ["eval", "--model", "m/m", "--log-dir", "l", "--demonstrations", "q.jsonl"],
            "--demonstrations are for few-shot, and not for official-cot",
        ),
        (
            ["batch", "export", *BATCH, "--set", "max_tokens=null"],
            "max_tokens = null: it must be at least 1",
        ),
        (
            ["batch", "export", *BATCH, "--set", "temprature=0.7"],
            "a batch's request has no setting temprature; it may have frequency_penalty, ",
        ),
        (["info", "--subset", "Text"], "there is no set 'Text'"),
        (["build", "status", "--out", "nowhere"], "no run has finished in this folder"),
        (
            ["build", "run", "bank.jsonl", "--config", "c.toml", "--out", "o", "--sheet", "sheet.xlsx"],
            "sheet.xlsx: a review sheet ends in .csv or .html",
        ),
        (
            ["build", "review", "--out", "o", "sheet.csv", "--open-sheet", "open.xlsx"],
            "open.xlsx: a review sheet ends in .csv or .html",
        ),
        (["report", "nowhere"], "there is no file or folder nowhere"),
        (["compare", "--no-such-option"], "No such option"),
    ],
)
def test_a_mistake_is_told_without_a_traceback(run, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    assert message in run.err
    assert "Traceback" not in run.err


def test_an_unknown_key_of_a_config_is_named_with_its_file(run, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('model = "m/m"\nlog_dir = "l"\nmax_token = 5\n')
    assert run("eval", "--config", config) == 2
    assert f"{config}: max_token = 5" in run.err


def test_a_missing_extra_is_told_by_its_install_line(run, tmp_path, monkeypatch):
    a = results_file(tmp_path / "a.jsonl", 10)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert run("report", a, "--out", tmp_path / "r.html") == 2
    assert "pip install 'medxpertqa[report]'" in run.err


def write_bank(path: Path, stem: str) -> Path:
    options = {"A": "Call (212) 555-0123", "B": "Wait"}
    path.write_text(
        json.dumps({"id": "b-0", "question": stem, "options": options, "label": "A"}) + "\n", encoding="utf-8"
    )
    return path


def test_a_scan_names_what_may_tell_who_a_patient_is_and_asks_no_other_machine(run, tmp_path, monkeypatch):
    pytest.importorskip("presidio_analyzer")

    def connect(*_):
        raise AssertionError("the scan asked another machine")

    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("socket.getaddrinfo", connect)
    bank = write_bank(
        tmp_path / "bank.jsonl", "Seen on 03/14/1961, writes to jane.roe@example.com. What next?"
    )
    assert run("build", "scan", bank) == 1
    assert "b-0, stem: DATE_TIME '03/14/1961'" in run.out
    assert "b-0, stem: EMAIL_ADDRESS 'jane.roe@example.com'" in run.out
    assert "b-0, option A: PHONE_NUMBER '(212) 555-0123' (0.40)" in run.out
    assert "names and places need --spacy-model" in run.out
    assert run("build", "scan", bank, "--min-score", "0.5") == 1
    assert "PHONE_NUMBER" not in run.out
    assert run("build", "scan", bank, "--spacy-model", "en_no_such") == 2
    assert "python -m spacy download en_no_such" in run.err
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    assert run("build", "scan", bank) == 2
    assert "pip install 'medxpertqa[phi]'" in run.err


def test_a_scan_that_finds_nothing_ends_with_0_and_says_what_that_is_worth(run, tmp_path):
    pytest.importorskip("presidio_analyzer")
    bank = write_bank(tmp_path / "bank.jsonl", "Which organ pumps?")
    assert run("build", "scan", bank, "--min-score", "0.5") == 0
    assert "0 places to look at" in run.out
    assert "people must read what they send away" in run.out


def test_a_full_disk_ends_with_1_and_leaves_no_half_file(run, tmp_path, monkeypatch):
    a = results_file(tmp_path / "a.jsonl", 10)

    def full(self, text, **how):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    assert run("share", a, "--out", tmp_path / "bundle.jsonl") == 1
    assert "No space left on device" in run.err
    assert "mend it" in run.err
    assert not (tmp_path / "bundle.jsonl").exists()
