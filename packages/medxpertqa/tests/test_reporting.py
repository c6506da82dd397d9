"""Tables and the page: the numbers of the summary, and nothing that a hostile name could do with them."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from medxpertqa.errors import MedXpertQAError
from medxpertqa.reporting.document import report
from medxpertqa.reporting.json_forms import summary_as_json
from medxpertqa.reporting.tables import FOOTER, report_tables
from medxpertqa.reporting.terminal import show
from medxpertqa.results import Record, score_records
from medxpertqa.summaries import summarize
from medxpertqa.synthetic import synthetic_questions

QUESTIONS = synthetic_questions("text")
HOSTILE = "<script>alert(1)</script>\u202e[red]$x$"


def run(name, n_right, **about):
    wrong = {question.id: "A" if question.label != "A" else "B" for question in QUESTIONS}
    records = [
        Record.of(question, question.label if place < n_right else wrong[question.id])
        for place, question in enumerate(QUESTIONS)
    ]
    return score_records(records, questions=QUESTIONS, name=name, protocol="official-cot", **about)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "report.html"
    report([run(HOSTILE, 6), run("other", 9)], out)
    return out.read_text(encoding="utf-8")


def test_the_page_has_accuracies_with_wilsons_interval_and_the_difference(page):
    # 6 of 12, z = 1.959964: (6 + z^2/2 -+ z sqrt(3 + z^2/4)) / (12 + z^2) = .2538, .7462
    assert "50.00 [25.38, 74.62]" in page
    assert re.search(r">-25\.00 \[", page)
    small = re.search(r"<h2>Difference.*?</table>.*?</p>", page, re.DOTALL)
    assert small
    assert re.search(r">\d+\*<", small.group())
    assert "fewer than 30 questions" in small.group()
    assert FOOTER in page
    assert page.count("<svg") == 4  # accuracies, the letters of each run, the difference


def test_hostile_names_are_shown_and_not_obeyed(page):
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page
    assert "\\u202e" in page
    assert not re.search(r'(?:src|href)="https?:', page)


def test_no_text_of_a_question_is_on_the_page(page):
    for question in QUESTIONS:
        assert question.stem not in page
        assert not any(text in page for text in question.options.values())


def test_the_terminal_shows_markup_as_text():
    runs = [run(HOSTILE, 6)]
    out = io.StringIO()
    show(*report_tables(runs, [summarize(runs[0])]), console=Console(file=out, width=400))
    assert "[red]$x$" in out.getvalue()
    assert "50.00 [25.38, 74.62]" in out.getvalue()


def test_an_incomplete_run_and_another_protocol_are_remarked():
    partial, other = run("m", 6, n_expected=13), run("n", 6)
    other = score_records(other.records, name="n", protocol="evalscope")
    _, remarks = report_tables([partial, other], [summarize(partial), summarize(other)])
    assert "m is not complete: 1 replies are missing, 0 are errors." in remarks
    assert any("differ in their protocol" in remark for remark in remarks)


def test_right_replies_of_questions_asked_in_several_orders_are_told_of_all_replies():
    turned = tuple((place + 1) % QUESTIONS[0].n_options for place in range(QUESTIONS[0].n_options))
    records = [Record.of(q, q.label, order=order) for q in QUESTIONS[:3] for order in ((), turned)]
    run = score_records(records, name="m")
    (overview, *_), _ = report_tables([run], [summarize(run)])
    shown = dict(zip(overview.head, overview.rows[0], strict=True))
    assert (shown["questions"], shown["right"]) == ("3", "3 of 6")


def test_json_has_what_scripts_read():
    found = summary_as_json(summarize(run("m", 6)))
    assert {"n", "n_correct", "accuracy", "ci", "n_no_answer", "n_errors", "by", "parsers", "usage"} <= set(
        found
    )
    assert (found["n"], found["n_correct"], found["accuracy"]) == (12, 6, 0.5)
    assert found["usage"] == {"input_tokens": 0, "output_tokens": 0, "cost": None}


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(MedXpertQAError, match="no results"):
        report([], tmp_path / "r.html")
