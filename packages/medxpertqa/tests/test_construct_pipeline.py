import csv
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


class Rewriter(Says):
    """Says who it is, in a stem that passes the check."""

    def __call__(self, messages, **parameters):
        super().__call__(messages, **parameters)
        stem = messages[0]["content"].partition("<data>\n")[2].partition("\n</data>")[0]
        asked = stem.rpartition(". ")[2]
        return f"{asked} As {self.name} tells it: {stem.removesuffix(asked)}"


def test_other_thresholds_leave_every_question_its_rewriter(tmp_path):
    def build(**stages):
        models = [LOCAL | {"model": name} for name in ("anna", "berta")]
        chosen = BuildSettings.model_validate({"rewrite": {"models": models}} | stages)
        return run_pipeline(bank(), chosen, tmp_path, Rewriter)

    whole = build()
    assert whole.new_calls >= 8
    texts = {q.id: q.stem for q in whole.questions}
    assert [name for name in texts if "As berta tells" in texts[name]] == ["s-1", "s-3", "s-5", "s-7"]
    thinned = build(human={"top_percent": {"hard": 100, "medium": 100, "easy": 10}})
    assert 0 < len(thinned.questions) < 9
    assert thinned.questions[0].id != "s-0"
    assert thinned.new_calls == 0
    assert all(texts[q.id] == q.stem for q in thinned.questions)


class Lists(Says):
    """Writes as many options as it is asked for."""

    def __call__(self, messages, **parameters):
        super().__call__(messages, **parameters)
        (count,) = re.findall(r"JSON list of (\d+)", messages[0]["content"])
        return json.dumps(WORDS[: int(count)])


def test_a_text_question_gets_ten_options_and_one_with_images_five(tmp_path):
    options = {"A": "moon", "B": "foam", "C": "soup"}
    items = [
        Item(Question(id=f"{subset}-1", stem="Which?", options=options, label="A"))
        for subset in ("Text", "MM")
    ]
    chosen = BuildSettings.model_validate({"expand": {"generator": LOCAL}})
    build = run_pipeline(items, chosen, tmp_path, Lists)
    assert {q.id: q.n_options for q in build.questions} == {"Text-1": 10, "MM-1": 5}


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


def test_every_stage_says_what_it_did_to_each_question_and_by_which_numbers(tmp_path):
    stages = {"human": {}, "edit": {"threshold": 0.7}, "rewrite": {}, "shuffle": True}
    build = run_pipeline(bank(), BuildSettings.model_validate(stages), tmp_path, Says)
    by_stage = {stage: [d for d in build.decisions if d.stage == stage] for stage in stages}
    assert [len(found) for found in by_stage.values()] == [9, build.funnel[1][1], *[len(build.questions)] * 2]
    assert all(d.keep for stage in ("rewrite", "shuffle") for d in by_stage[stage])
    assert {d.reason for d in by_stage["shuffle"]} <= {"changed", "unchanged"}
    assert read_decisions(tmp_path) == build.decisions


def test_scores_of_people_are_told_with_their_normalisation(tmp_path):
    question = bank()[0].question
    counts = dict.fromkeys(question.letters, 10.0)
    n = len(question.letters)
    for normalise, score in (("paper", (n - 1) / n**2), ("multiclass", (n - 1) / n), ("skill", 0.0)):
        settings = BuildSettings.model_validate({"human": {"normalise": normalise}})
        build = run_pipeline([Item(question, counts, 1.0)], settings, tmp_path / normalise, Says)
        assert build.decisions[0].details == f"{normalise} Brier score {score:.4f}, level medium"
    wrong = next(letter for letter in question.letters if letter != question.label)
    settings = BuildSettings.model_validate({"human": {"normalise": "skill"}})
    build = run_pipeline([Item(question, {wrong: 10.0}, 1.0)], settings, tmp_path / "wrong", Says)
    assert build.decisions[0].details == f"skill Brier score {1 - 2 * n / (n - 1):.4f}, level medium"


@pytest.mark.parametrize(("normalise", "first_stays"), [("paper", False), ("skill", True)])
def test_a_normalisation_decides_which_question_is_harder(tmp_path, normalise, first_stays):
    # 10 options uniform, B = 0.09; 2 options with 0.68 right, B = 0.1024: skill 0 and 0.59.
    ten = Question("ten", "How many petals?", dict(zip("ABCDEFGHIJ", "klmnopqrst", strict=True)), "A")
    two = Question("two", "How many petals?", {"A": "k", "B": "l"}, "A")
    items = [Item(ten, dict.fromkeys(ten.letters, 1.0), 1.0), Item(two, {"A": 68.0, "B": 32.0}, 1.0)]
    stages = {"human": {"normalise": normalise, "top_percent": {"easy": 1, "medium": 1, "hard": 1}}}
    build = run_pipeline(items, BuildSettings.model_validate(stages), tmp_path, Says)
    assert [q.id for q in build.questions] == (["ten"] if first_stays else ["two"])


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
        (
            RECORD % b'"answer_counts": {"A": 0.6, "B": 0.3}',
            r"s-0: answers .*: their sum is 0\.9; give counts",
        ),
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
    assert [model.max_connections for model in found.models()] == [16, 10, 10, 10]
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


def filled(path, decisions, without=None):
    """The sheet that is there as a reviewer sends it back, in a file of its own."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["id"] != without]
    made = path.with_name(f"{path.stem}-{len(list(path.parent.iterdir()))}.csv")
    with made.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(row | decisions.get(row["id"], {}) for row in rows)
    return str(made)


def test_a_second_round_settles_what_the_first_left_open_and_keeps_what_it_settled(tmp_path):
    out, sheet, again = tmp_path / "run", tmp_path / "sheet.csv", tmp_path / "open.csv"
    lines = [json.dumps(i.question.to_record()) for i in bank()[:4]]
    (tmp_path / "bank.jsonl").write_text("\n".join(lines))
    (tmp_path / "c.toml").write_text("[rewrite]\n")  # its rule finds no second sentence: notes for people

    def command(*arguments):
        return CliRunner().invoke(app, [*map(str, arguments), "--out", str(out)])

    command("run", tmp_path / "bank.jsonl", "--config", tmp_path / "c.toml", "--sheet", sheet)
    accept, delete = {"decision": "accept"}, {"decision": "delete", "question errors": "formatting"}
    fix = {"decision": "fix", "new stem": "Better?", "option errors": "unreasonable"}
    first = filled(sheet, {"s-0": fix, "s-1": delete, "s-2": accept, "s-3": accept})
    second = filled(sheet, {"s-0": fix, "s-1": delete, "s-2": delete})
    told = command("review", first, second, "--open-sheet", again).output
    assert "kept 1, deleted 1, open 2" in told
    assert "question, formatting: 2\noption, unreasonable: 1\n" in told
    with again.open(newline="", encoding="utf-8") as file:
        shown = {row["id"]: row["to check"] for row in csv.DictReader(file)}
    assert shown == {"s-2": "it is hardly rewritten", "s-3": "it is hardly rewritten"}

    third, fourth = (filled(again, {"s-2": accept, "s-3": last}) for last in (delete, accept))
    told = command("review", first, second, "+", third, fourth).output
    assert "round 2: kappa" in told
    assert "kept 2, deleted 1, open 1" in told
    alone = command("review", third, fourth)
    assert "s-0 is under review and on no sheet of the round" in str(alone.exception)
    kept = [question.question for question in read_bank(out / "reviewed.jsonl")]
    assert [(q.id, q.stem) for q in kept] == [("s-0", "Better?"), ("s-2", bank()[2].question.stem)]
    third_round = [filled(again, {"s-3": accept}, without="s-2") for _ in range(2)]
    told = command("review", first, second, "+", third, fourth, "+", *third_round).output
    assert "kept 3, deleted 1, open 0" in told
    settled = command("review", first, second, "+", first, second)
    assert "s-0: column id: not among the questions under review" in str(settled.exception)
    assert "a round has none" in str(command("review", first, "+").exception)
