"""Text and MM of one model pooled as in Table 4, runs without images, and interactions of two runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from medxpertqa import MedXpertQAError, stats
from medxpertqa.pooled_rows import pooled_rows
from medxpertqa.reporting.document import report
from medxpertqa.reporting.json_forms import comparison_as_json
from medxpertqa.reporting.tables import difference_tables, report_tables
from medxpertqa.results import Record, Results, score_records
from medxpertqa.shortcuts import find_shortcuts
from medxpertqa.summaries import compare, compare_all, summarize
from medxpertqa.synthetic import synthetic_questions

TEXT, MM = synthetic_questions("text"), synthetic_questions("mm")


def run(subset: str, right: set[int], name: str = "m", protocol: str = "official-cot") -> Results:
    """A run that is right in the given places; odd places are Understanding."""
    records = []
    for place, question in enumerate(TEXT if subset == "text" else MM):
        kind = "Understanding" if place % 2 else "Reasoning"
        wrong = "A" if question.label != "A" else "B"
        asked = replace(question, question_type=kind)
        records.append(Record.of(asked, question.label if place in right else wrong))
    return score_records(records, name=name, protocol=protocol)


def test_text_and_mm_are_pooled_question_by_question() -> None:
    text, mm = run("text", {0, 2, 4, 1}), run("mm", {1, 3, 5, 7})
    (row,) = pooled_rows([text, mm])
    rights = {column: (cell.n_correct, cell.n) for column, cell in row.columns.items()}
    assert rights == {
        "text_reasoning": (3, 6),
        "text_understanding": (1, 6),
        "text": (4, 12),
        "mm_reasoning": (0, 4),
        "mm_understanding": (4, 4),
        "mm": (4, 8),
        "reasoning": (3, 10),
        "understanding": (5, 10),
        "average": (8, 20),  # by question; the mean of the two subsets would be 41.7 %
    }


def test_other_models_protocols_and_repeated_questions_have_rows_of_their_own() -> None:
    runs = [run("text", {0}), run("mm", {1}), run("text", {2}), run("mm", {0}, name="other")]
    rows = pooled_rows(runs)
    assert [(row.name, "average" in row.columns, "text" in row.columns) for row in rows] == [
        ("m", True, True),
        ("m", False, True),
        ("other", False, False),
    ]


def test_a_report_of_both_subsets_has_the_papers_columns_and_no_comparison(tmp_path: Path) -> None:
    runs = [run("text", {0, 2, 4, 1}), run("mm", {1, 3, 5, 7})]
    tables, _ = report_tables(runs, [summarize(one) for one in runs])
    by_title = {table.title: table for table in tables}
    table = by_title["As the paper's Table 4"]
    shown = dict(zip(table.head, table.rows[0], strict=True))
    assert (shown["text"], shown["mm"], shown["average"]) == ("33.33", "50.00", "40.00")
    assert [row[0] for row in by_title["Accuracy"].rows] == [
        "m (official-cot, official, Text)",
        "m (official-cot, official, MM)",
    ]
    assert "Comparison on the same questions" not in by_title
    assert report(runs, tmp_path / "r.html").exists()
    assert compare_all(runs) == []
    with pytest.raises(MedXpertQAError, match="share no question"):
        compare(*runs)


def test_what_is_right_without_images_is_judged_against_chance_and_the_whole_run() -> None:
    whole = run("mm", {0, 1, 2, 3, 4, 5})
    blind = run("mm", {0, 1, 2, 3}, protocol="official-cot (max_tokens=96, without images, without stem)")
    assert (whole.without, blind.without) == ((), ("images", "stem"))
    (found,) = find_shortcuts([whole, blind, run("mm", {0}, name="other")])
    expected = scipy.stats.binomtest(4, 8, 0.2, alternative="greater").pvalue
    assert found.p_value == pytest.approx(expected, rel=1e-12)
    labels = [question.label for question in MM]
    assert found.majority == max(labels.count(letter) for letter in labels) / 8
    assert found.loss
    assert (found.loss.difference, found.loss.n) == (0.25, 8)
    (alone,) = find_shortcuts([blind])
    assert alone.loss is None
    tables, _ = report_tables([whole, blind], [summarize(whole), summarize(blind)])
    table = next(table for table in tables if table.title == "Shortcuts")
    assert table.rows[0][:2] == ("m", "images and stem")
    assert table.rows[0][3] == "20.00"


def test_every_table_reads_by_the_parser_that_was_asked_for() -> None:
    records = [Record.of(question, f"I think it is {question.label}") for question in MM]
    blind = score_records(records, name="m", protocol="official-cot (without images)")
    tables, _ = report_tables([blind], [summarize(blind, "robust")])
    (shortcut,) = next(table for table in tables if table.title == "Shortcuts").rows
    assert shortcut[2].startswith("100.00")


def test_the_interaction_is_the_difference_of_the_differences() -> None:
    first, second = run("text", {0, 2, 4, 6, 1}), run("text", {0, 1, 3}, name="n")
    pair = compare(first, second)
    assert pair.interaction
    assert pair.interaction.difference == pytest.approx((4 - 1) / 6 - (1 - 2) / 6)
    note = next(t.note for t in difference_tables(pair) if t.title == "Difference by type of question")
    assert "Interaction, Reasoning less Understanding: 66.67 [" in note
    assert comparison_as_json(pair, 1.0)["interaction"]["difference"] == pair.interaction.difference
    one_kind = score_records([r for r in first.records if r.attributes["question_type"] == "Reasoning"])
    assert compare(one_kind, second).interaction is None


def test_an_interaction_without_clusters_has_welchs_error_with_n_in_place_of_n_less_1() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.integers(-1, 2, 40), rng.integers(-1, 2, 70)
    found = stats.interaction(one, two)
    error = np.sqrt(one.var() / 40 + two.var() / 70)
    assert found.ci.high - found.difference == pytest.approx(1.959964 * error, rel=1e-6)
    assert found.p_value == pytest.approx(2 * scipy.stats.norm.sf(abs(found.difference) / error))
    # Each question twice, in a cluster with its copy: the same interval as once.
    twice = stats.interaction(np.repeat(one, 2), np.repeat(two, 2), [i // 2 for i in range(220)])
    assert twice.ci == pytest.approx(found.ci)
    with pytest.raises(MedXpertQAError, match="both kinds"):
        stats.interaction(one, [])


@pytest.mark.parametrize(("k", "n", "p"), [(0, 5, 0.2), (5, 5, 0.1), (300, 2450, 0.1), (245, 2450, 0.1)])
def test_the_binomial_tail_is_scipys(k: int, n: int, p: float) -> None:
    assert stats.binomial_tail(k, n, p) == pytest.approx(scipy.stats.binom.sf(k - 1, n, p), rel=1e-9)
