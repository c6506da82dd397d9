from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medxpertqa import (
    DataError,
    MedXpertQAError,
    MedXpertQAWarning,
    Record,
    Results,
    compare,
    score_records,
    stats,
    summarize,
)
from medxpertqa.summaries import compare_all
from medxpertqa.synthetic import synthetic_questions

SYSTEMS = ("Nervous", "Skeletal", "Urinary")


def _record(number: int, right: bool = True, **changes: Any) -> dict[str, Any]:
    made = {
        "id": f"Text-{number}",
        "response": f"The answer is {'B' if right else 'C'}.",
        "label": "B",
        "n_options": 10,
        "attributes": {"subset": "Text", "body_system": SYSTEMS[number % 3]},
    }
    return made | changes


def _run(rights: list[bool], **about: Any) -> Results:
    return score_records([_record(number, right) for number, right in enumerate(rights)], **about)


def test_a_run_by_hand() -> None:
    replies = ["The answer is B.", "I think it is B", "no idea", "The answer is C."]
    records = [_record(number, response=reply) for number, reply in enumerate(replies)]
    records.append(_record(4, response="", status="error", error="timeout"))
    results = score_records(records)
    summary = summarize(results)
    assert (summary.n, summary.n_correct, summary.accuracy) == (5, 1, 0.2)  # official: I think -> I
    assert summary.ci == stats.wilson(1, 5)
    assert summary.parsers["robust"].n_correct == 2
    assert list(summary.disagreement) == ["Text-1"]
    assert (summary.n_no_answer, summary.n_errors, summary.complete) == (1, 1, False)
    assert summary.by["body_system"]["Nervous"].n_correct == 1
    assert summary.by["body_system"]["Nervous"].small
    excluded = summarize(results, errors="exclude")
    assert (excluded.n, excluded.accuracy) == (4, 0.25)
    assert summarize(results, "robust").accuracy == 0.4
    assert summary.position is not None
    assert summary.position.counts["I"] == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_the_order_of_the_records_changes_nothing(rights: list[bool], chance: random.Random) -> None:
    records = [_record(n, right, attributes={"cluster": n // 3}) for n, right in enumerate(rights)]
    shuffled = chance.sample(records, len(records))
    assert summarize(score_records(records)) == summarize(score_records(shuffled))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_the_accuracy_is_the_weighted_mean_of_its_cells(rights: list[bool]) -> None:
    summary = summarize(_run(rights))
    cells = summary.by["body_system"].values()
    assert sum(cell.n for cell in cells) == summary.n == len(rights)
    assert summary.accuracy == pytest.approx(sum(cell.n * cell.accuracy for cell in cells) / summary.n)


def test_epochs_are_averaged_per_question_first() -> None:
    # Question 0: 1 of 3; question 1: 1 of 1. The mean over questions is 2/3, over records it is 1/2.
    records = [_record(0, epoch == 1, epoch=epoch) for epoch in (1, 2, 3)] + [_record(1)]
    results = score_records(records)
    summary = summarize(results)
    assert (summary.n, summary.n_records, summary.n_correct) == (2, 4, 2)
    assert summary.accuracy == results.accuracy == pytest.approx(2 / 3)


def test_questions_that_share_an_image_are_one_cluster() -> None:
    def run(size: int) -> Any:
        rights = [number // 4 % 2 == 0 for number in range(120)]
        return summarize(
            score_records([_record(n, r, attributes={"cluster": n // size}) for n, r in enumerate(rights)])
        )

    alone, shared = run(1), run(4)
    assert alone.accuracy == shared.accuracy == 0.5
    assert alone.ci == stats.wilson(60, 120)
    assert shared.standard_error == pytest.approx(2 * alone.standard_error)
    assert (shared.ci.high - shared.ci.low) / (alone.ci.high - alone.ci.low) == pytest.approx(2, rel=0.1)


def test_option_orders_tell_whether_the_same_text_is_chosen() -> None:
    # Question 0 chooses its published option B in both orders, question 1 the letter B in both.
    turned = (1, 2, 3, 4, 5, 6, 7, 8, 9, 0)  # published B is now A
    records = [
        _record(0),
        _record(0, response="The answer is A.", label="A", order=turned),
        _record(1),
        _record(1, response="The answer is B.", label="A", order=turned),
    ]
    assert summarize(score_records(records)).consistency == 0.5
    assert summarize(score_records(records[:1])).consistency is None


def test_a_comparison_by_hand() -> None:
    a, b = _run([True] * 8 + [False] * 2), _run([True] * 4 + [False] * 5 + [True])
    found = compare(a, b)
    assert (found.n, found.only_a, found.only_b) == (10, 4, 1)
    assert found.difference == pytest.approx(0.3)
    assert found.p_value == stats.mcnemar(4, 1)
    back = compare(b, a)
    assert (back.difference, back.p_value) == (-found.difference, found.p_value)
    nervous = found.by["body_system"]["Nervous"]
    assert nervous.difference == pytest.approx(0)  # 0, 3, 6, 9: 3 and 3 right
    assert (nervous.n, nervous.small) == (4, True)


def test_all_pairs_are_adjusted_together() -> None:
    runs = [_run([True] * k + [False] * (30 - k)) for k in (2, 12, 20)]
    pairs = compare_all(runs)
    assert [adjusted for _, adjusted in pairs] == stats.holm([pair.p_value for pair, _ in pairs])


def test_a_comparison_of_unlike_runs_warns() -> None:
    one = _run([True] * 4, protocol="official-cot")
    with pytest.warns(MedXpertQAWarning, match=r"protocol \(official-cot and unknown\)"):
        compare(one, _run([True] * 4))
    with pytest.warns(MedXpertQAWarning, match="3 of 4 and 3 questions are in both"):
        compare(one, _run([True] * 3, protocol="official-cot"))
    with pytest.warns(MedXpertQAWarning, match="different questions under the name text"):
        compare(*(_run([True] * 4, dataset="text", digest=digest) for digest in ("0b", "fd")))


def test_runs_of_other_question_sets_are_not_compared() -> None:
    other = score_records([_record(0, label="C")])
    with pytest.raises(MedXpertQAError, match="Text-0 has different labels"):
        compare(_run([True]), other)
    with pytest.raises(MedXpertQAError, match="share no question"):
        compare(_run([True]), score_records([_record(7)]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_options": 1}, "Text-0: n_options is 1"),
        ({"label": "K"}, "Text-0: label is 'K', which is none of the 10"),
        ({"label": None}, "Text-0: label is None"),
        ({"anwser": "B"}, "Text-0: a record has no field anwser"),
        ({"response": ["B"]}, r"Text-0: response is \['B'\]: Input should be a valid string"),
        ({"id": ""}, "a record has an empty id"),
        ({"n_options": "10"}, "Text-0: n_options is '10': Input should be a valid integer"),
        ({"status": "late"}, "Text-0: status is 'late': Input should be 'ok' or 'error'"),
        ({"order": [0, 1]}, r"Text-0: order is \[0, 1\]; needed: 0 to 9, each once"),
        ({"attributes": [1]}, r"Text-0: attributes is \[1\]"),
        ({"input_tokens": None}, "Text-0: input_tokens is None"),
        ({"cost": "0.5"}, "Text-0: cost is '0.5': Input should be a valid number"),
    ],
)
def test_a_wrong_record_is_named_with_its_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        score_records([_record(0, **changes)])


def test_an_id_may_be_a_number_and_a_reply_null() -> None:
    (record,) = score_records([_record(0, id=0, response=None)]).records
    assert (record.id, record.response) == ("0", "")


def test_nothing_is_scored_twice() -> None:
    with pytest.raises(DataError, match=r"Text-0 \(epoch 1\) comes twice"):
        score_records([_record(0), _record(0)])
    with pytest.raises(DataError, match="no records"):
        score_records([])
    with pytest.raises(DataError, match="response missing"):
        score_records([{"id": "x", "label": "A", "n_options": 5}])


def test_replies_to_other_questions_are_not_scored() -> None:
    questions = synthetic_questions("mm")
    question = questions[0]
    record = Record.of(question, f"The answer is {question.label}")
    assert score_records([record], questions=questions).n_correct == 1
    with pytest.raises(DataError, match="is not among the questions"):
        score_records([record], questions=questions[1:])
    wrong = next(letter for letter in question.letters if letter != question.label)
    with pytest.raises(DataError, match=f"label {wrong} in the run, {question.label} in the question"):
        score_records(
            [{"id": question.id, "response": "", "label": wrong, "n_options": 5}], questions=questions
        )


def test_the_questions_supply_what_the_robust_parser_needs() -> None:
    questions = synthetic_questions("text")
    question = questions[2]
    record = {"id": question.id, "response": question.answer, "label": question.label, "n_options": 10}
    results = score_records([record], "robust", questions=questions)
    assert results.answers["robust"][0].rule == "option-text"
    assert results.n_correct == 1
    assert results.records[0].attributes["body_system"] == question.body_system


def test_a_record_in_another_order_has_the_label_of_that_order() -> None:
    question = synthetic_questions("mm")[0]
    record = Record.of(question, "", order=(1, 2, 3, 4, 0))
    assert record.options is not None
    assert record.options[record.label] == question.answer
    assert Record.from_dict(record.to_dict()) == record


def test_unknown_prices_make_the_cost_unknown() -> None:
    assert summarize(score_records([_record(0, cost=0.5), _record(1)])).cost is None
    assert summarize(score_records([_record(0, cost=0.5), _record(1, cost=0.25)])).cost == 0.75


def test_what_went_wrong_is_counted() -> None:
    records = [
        _record(0, stop_reason="max_tokens"),
        _record(1, stop_reason="content_filter", response=""),
        _record(2, response="  "),
    ]
    summary = summarize(score_records(records, n_expected=5))
    assert (summary.n_truncated, summary.n_filtered, summary.n_empty, summary.n_missing) == (1, 1, 2, 2)
    assert not summary.complete
    assert summarize(score_records([_record(0)], n_expected=1)).complete


def test_a_parser_that_was_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(MedXpertQAError, match="no parser 'official-r1'; they have: official, robust"):
        summarize(_run([True]), "official-r1")
