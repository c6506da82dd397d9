import json
import re
from pathlib import Path
from threading import Lock

import pytest
from typer.testing import CliRunner

from medxpertqa.cli_construct import app
from medxpertqa.construct.pipeline import Item, read_bank, read_decisions, run_pipeline
from medxpertqa.construct.settings import BuildSettings, ModelSettings, read_settings
from medxpertqa.errors import DataError, MedXpertQAError
from medxpertqa.questions import Question

RECORD = b'{"id": "s-0", "question": "Q? ", "options": {"A": "x", "B": "y"}, "label": "A", %s}'
LOCAL = {"model": "m", "base_url": "http://127.0.0.1:1/v1"}
WORDS = [
    "comet",
    "lagoon",
    "thistle",
    "gravel",
    "ember",
    "walnut",
    "saffron",
    "pillar",
    "meadow",
    "copper",
    "lantern",
    "harbour",
]


def bank():
    """Eight unlike questions, and a copy of the first; who answers "A" is right in the even ones."""
    items = []
    for i in range(9):
        stem = f"{WORDS[i % 8]} {WORDS[(i + 3) % 8]} " * (i % 8 + 2) + f"Case {i % 8}. Which?"
        options = {"A": "moon", "B": "foam", "C": "soup"}
        question = Question(id=f"s-{i}", stem=stem, options=options, label="AB"[i % 2])
        items.append(Item(question, {"A": 50, "B": 49, "C": 1}, float(i)))
    return items


class Says:
    calls, lock = 0, Lock()

    def __init__(self, settings, fail_after=10**9):
        self.name, self.fail_after = settings.model, fail_after

    def __call__(self, messages, **parameters):
        with Says.lock:
            if Says.calls >= self.fail_after:
                raise KeyboardInterrupt
            Says.calls += 1
        return "The answer is A."


@pytest.fixture(autouse=True)
def _count():
    Says.calls = 0


def settings(**changes):
    return BuildSettings.model_validate(
        {"ai": {"basic": [LOCAL]}, "edit": {}, "prune": {}, "shuffle": True} | changes
    )


def test_the_stages_filter_and_change_in_order(tmp_path):
    build = run_pipeline(bank(), settings(), tmp_path, Says)
    # always A: the five even questions go; of s-0 and s-8 neither is left for the edit filter
    assert build.funnel == [("collected", 9), ("ai", 4), ("edit", 4)]
    assert {q.answer for q in build.questions} == {"foam"}
    assert build.new_calls == 9 * 4 - 4  # the copy asks what the first asked
    lines = (tmp_path / "questions.jsonl").read_text().splitlines()
    assert [Question.from_record(json.loads(line)) for line in lines] == build.questions


def test_other_thresholds_cost_no_call(tmp_path):
    run_pipeline(bank(), settings(), tmp_path, Says)
    asked = Says.calls
    kept = run_pipeline(
        bank(), settings(ai={"basic": [LOCAL], "mixed": "keep"}, edit={"threshold": 0.99}), tmp_path, Says
    )
    assert (Says.calls, kept.new_calls) == (asked, 0)


def test_a_run_that_was_stopped_goes_on_and_asks_nothing_twice(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(bank(), settings(), tmp_path, lambda model: Says(model, fail_after=13))
    assert Says.calls == 13
    resumed = run_pipeline(bank(), settings(), tmp_path, Says)
    assert Says.calls == 32
    assert resumed.new_calls == 19


def test_a_copy_is_removed_and_the_human_filter_keeps_what_has_no_answers(tmp_path):
    items = [Item(item.question) for item in bank()]
    build = run_pipeline(items, BuildSettings.model_validate({"human": {}, "edit": {}}), tmp_path, Says)
    assert build.funnel == [("collected", 9), ("human", 9), ("edit", 8)]
    assert [d.id for d in build.decisions if not d.keep] == ["s-8"]


def test_text_does_not_leave_the_machine_unchecked(tmp_path):
    remote = {"ai": {"basic": [LOCAL | {"base_url": "https://api.example.org/v1"}]}}
    with pytest.raises(MedXpertQAError, match="phi_checked"):
        run_pipeline(bank(), settings(**remote), tmp_path, Says)
    assert Says.calls == 0
    assert run_pipeline(bank(), settings(phi_checked=True, **remote), tmp_path, Says).new_calls == 32
    assert not ModelSettings(model="m", base_url="http://localhost.example.org").is_local


def test_ids_that_come_twice_are_refused(tmp_path):
    with pytest.raises(DataError, match="more than once"):
        run_pipeline([*bank(), bank()[0]], settings(), tmp_path, Says)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n\n{", "line 3 is no JSON"),
        (b"[]", "line 1 is no object"),
        (b"\xff", "can't be read"),
        (b'{"id": "x", "question": "y"}', "x: label is missing"),
        (RECORD % b'"answer_counts": [31, 4]', r"s-0: answer_counts is \[31, 4\]"),
        (
            RECORD % b'"answer_counts": {"A": "31"}',
            "s-0: answer_counts is .*: Input should be a",
        ),
        (RECORD % b'"answer_counts": {"Z": 31}', "s-0: answers .*: 'Z' is no option"),
        (RECORD % b'"answer_counts": {"A": Infinity}', "s-0: answers .*: 'A' .* its count is no count"),
        (RECORD % b'"difficulty": "hard"', "s-0: difficulty is 'hard': Input should be a valid number"),
        (RECORD % b'"difficulty": NaN', "s-0: a difficulty rating is not finite"),
    ],
)
def test_a_bank_that_cannot_be_read_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "bank.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=rf"bank\.jsonl: .*{message}"):
        read_bank(tmp_path / "bank.jsonl")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("[edit]\nthreshhold = 0.8", r"edit\.threshhold = 0\.8"),
        ("[human]\ntop_percent = { heavy = 25 }", "human.top_percent.heavy"),
        ("[human]\ntop_percent = { hard = 125 }", "human.top_percent.hard = 125"),
        ("[ai]\nbasic = []", r"ai.basic = \[\]: List should have at least 1 item"),
        ("[ai]\ntemperature = -1\nbasic = [{ model = 'm', base_url = 'u' }]", "ai.temperature = -1"),
        ("[ai]\nmax_tokens = 0\nbasic = [{ model = 'm', base_url = 'u' }]", "ai.max_tokens = 0"),
    ],
)
def test_a_key_or_a_value_that_cannot_be_is_named(tmp_path, written, message):
    (tmp_path / "c.toml").write_text(written)
    with pytest.raises(MedXpertQAError, match=rf"c\.toml: {message}"):
        read_settings(tmp_path / "c.toml")


@pytest.mark.parametrize("content", [b"x\n", b"3\n", b'{"stage": "edit"}\n', b"\xff\n"])
def test_a_damaged_file_of_decisions_is_named(tmp_path, content):
    (tmp_path / "decisions.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=r"decisions\.jsonl has no decisions of a run"):
        read_decisions(tmp_path)


def test_the_settings_in_the_readme_are_settings(tmp_path):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (written,) = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "c.toml").write_text(written)
    found = read_settings(tmp_path / "c.toml")
    assert [model.max_connections for model in found.models()] == [16, 10]
    found.check_privacy()


def test_a_model_that_would_vote_twice_is_named():
    with pytest.raises(ValueError, match="m is named twice"):
        settings(ai={"basic": [LOCAL], "advanced": [LOCAL]})


def test_the_command_builds_and_tells(tmp_path):
    lines = [json.dumps(i.question.to_record() | {"answer_counts": i.answer_counts}) for i in bank()]
    (tmp_path / "bank.jsonl").write_text("\n".join(lines))
    (tmp_path / "c.toml").write_text(
        "[human]\n[human.top_percent]\nhard = 100\nmedium = 100\neasy = 100\n"
        "[edit]\nfences = true\n[rewrite]\n"
    )
    out = ["--out", str(tmp_path / "run")]
    sheet = tmp_path / "sheet.csv"
    arguments = [
        "run",
        str(tmp_path / "bank.jsonl"),
        "--config",
        str(tmp_path / "c.toml"),
        *out,
        "--sheet",
        str(sheet),
    ]
    told = CliRunner().invoke(app, arguments).output
    assert "edit               8" in told
    assert "the human filter keeps 100.0% read from the top" in told
    assert "of 9 texts; threshold 0.8: 2\n" in told  # a text and its copy
    assert "too like another" in CliRunner().invoke(app, ["status", *out]).output
    assert "open 8" in CliRunner().invoke(app, ["review", *out, str(sheet)]).output
