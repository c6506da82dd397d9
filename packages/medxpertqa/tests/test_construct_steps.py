import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medxpertqa.construct import (
    Votes,
    agreement,
    ai_expert_filter,
    expand_options,
    export_review,
    human_filter,
    import_review,
    label_question,
    prune_options,
    rewrite,
    shuffle_options,
    validate_options,
    validate_rewrite,
)
from medxpertqa.construct.agreements import cohen_kappa, krippendorff_alpha
from medxpertqa.construct.human import answer_shares, difficulty_levels
from medxpertqa.construct.labelling import audit_rate, audit_sample
from medxpertqa.construct.ledger import Ledger
from medxpertqa.construct.options import with_options
from medxpertqa.construct.rewriting import numbers, rewrite_by_rule
from medxpertqa.errors import DataError, MedXpertQAError
from medxpertqa.questions import Question

STEM = (
    "A 45-year-old man from Atlantis has had blue hiccups for two days. His temperature is 37.2 °C and he "
    "denies pain. Glucose is 5 mg/dL. Which is the most likely cause?"
)


def question(name="s-1", stem=STEM, texts=("moon dust", "sea foam", "star light", "old soup"), label="B"):
    return Question(id=name, stem=stem, options=dict(zip("ABCDEFGHIJ", texts, strict=False)), label=label)


class Scripted:
    """A model that answers by a script, and counts."""

    def __init__(self, *replies, name="scripted"):
        self.name, self.replies, self.calls = name, list(replies), 0

    def __call__(self, messages, **parameters):
        self.calls += 1
        return self.replies[min(self.calls, len(self.replies)) - 1]


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "calls.jsonl") as opened:
        yield opened


# The filters


def test_the_human_filter_keeps_the_hardest_of_each_level_under_the_reading_from_the_top():
    scores = list(np.arange(1, 101) / 1000)
    result = human_filter(scores, ["hard"] * 100)
    assert sum(result.keep) == 25
    assert all(result.keep[75:])
    assert result.retention == {"top": 0.25, "literal": 0.75}
    assert sum(human_filter(scores, ["easy"] * 100).keep) == 3
    assert sum(human_filter(scores, ["easy"] * 100, mode="literal").keep) == 97


def test_questions_without_answers_or_level_pass_the_human_filter_and_do_not_move_the_thresholds():
    result = human_filter([None, 0.1, 0.2, 0.0], ["hard", None, "hard", "hard"])
    assert result.keep == [True, True, True, False]
    assert result.reasons[:2] == ["no human answers", "no difficulty level"]
    assert result.thresholds["hard"] == pytest.approx(np.percentile([0.1, 0.2, 0.0], 75))


def test_the_human_filter_names_an_unknown_level():
    with pytest.raises(DataError, match="level 'severe'"):
        human_filter([0.1], ["severe"])


def test_ratings_are_scaled_and_cut_in_three():
    assert difficulty_levels([1, 2, 3, 4, None]) == ["easy", "medium", "hard", "hard", None]
    assert difficulty_levels([2, 2]) == ["medium", "medium"]


def test_answer_counts_become_shares_in_the_order_of_the_letters():
    assert answer_shares({"B": 3, "A": 1}, "ABC") == [0.25, 0.75, 0]
    assert answer_shares({"A": 1}, "AB", min_responses=2) is None
    assert answer_shares({"A": 0.66, "B": 0.33}, "ABC") == pytest.approx([2 / 3, 1 / 3, 0])  # rounded shares
    with pytest.raises(DataError, match="'Z' is no option"):
        answer_shares({"Z": 1}, "AB")


W, R = [False] * 4, [True] * 4


@pytest.mark.parametrize(
    ("basic", "advanced", "keep"),
    [
        ([W, W, W], [[False], [False]], True),  # rule 2
        ([R, W, W], [[False], [False]], False),  # rule 1
        ([[True, True, True, False], W, W], [[False], [False]], True),  # mixed, no advanced right
        ([W, W, W], [[True], [False]], False),  # mixed, one advanced right
    ],
)
def test_the_rules_of_the_ai_filter(basic, advanced, keep):
    votes = Votes(dict(enumerate(basic)), dict(enumerate(advanced)))
    assert ai_expert_filter([votes]).keep == [keep]


def test_mixed_votes_can_be_kept_or_dropped_whole():
    votes = [Votes({"a": [True, False]}, {"b": [True]})]
    assert ai_expert_filter(votes, "keep").keep == [True]
    assert ai_expert_filter(votes, "drop").keep == [False]
    with pytest.raises(DataError, match="model a has no samples"):
        ai_expert_filter([Votes({"a": []}, {})])


# The ledger


def test_a_call_is_made_once_even_across_runs_and_samples_are_told_apart(tmp_path):
    model = Scripted("one", "two", "three")
    message = [{"role": "user", "content": "?"}]
    with Ledger(tmp_path / "l.jsonl") as ledger:
        assert ledger.ask(model, message) == ledger.ask(model, message) == "one"
        assert ledger.ask(model, message, 1) == "two"
    with Ledger(tmp_path / "l.jsonl") as ledger:
        assert ledger.ask(model, message) == "one"
        assert ledger.ask(model, message, temperature=0.5) == "three"
        assert ledger.new_calls == 1
    assert model.calls == 3


def test_the_half_line_of_a_killed_run_is_dropped_and_the_call_made_again(tmp_path):
    path = tmp_path / "l.jsonl"
    model, message = Scripted("x"), [{"role": "user", "content": "?"}]
    with Ledger(path) as ledger:
        ledger.ask(model, message)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    with Ledger(path) as ledger:
        ledger.ask(model, message)
        assert ledger.new_calls == 0
    assert path.read_bytes() == whole


def test_a_damaged_line_and_a_second_run_are_refused(tmp_path):
    path = tmp_path / "l.jsonl"
    with Ledger(path), pytest.raises(MedXpertQAError, match="in use by another run"), Ledger(path):
        pass
    path.write_text("{}\n")
    with pytest.raises(DataError, match="line 1"), Ledger(path):
        pass


# Options


@given(st.permutations("ABCDE"), st.integers(0, 99))
def test_shuffling_moves_the_label_with_its_text(texts, seed):
    before = question(texts=texts, label="C")
    after = shuffle_options(before, seed)
    assert after.answer == before.answer
    assert sorted(after.options.values()) == sorted(before.options.values())
    assert shuffle_options(before, seed) == after


def test_shuffling_depends_on_the_seed():
    assert len({tuple(shuffle_options(question(), seed).options.values()) for seed in range(20)}) > 5


def test_pruning_drops_the_least_chosen_and_keeps_answer_and_two_distractors():
    pruned = prune_options(question(), {"A": 0.5, "B": 0.01, "C": 0.45, "D": 0.04})
    assert pruned.options == {"A": "moon dust", "B": "sea foam", "C": "star light"}
    assert pruned.label == "B"
    kept = prune_options(question(), {"A": 0.01, "B": 0.97, "C": 0.02, "D": 0.0})
    assert list(kept.options.values()) == ["moon dust", "sea foam", "star light"]
    with pytest.raises(DataError, match="shares are for"):
        prune_options(question(), {"A": 1})


@pytest.mark.parametrize(
    ("new", "problem"),
    [
        (["deep fog"], "5 options; needed: 6"),
        (["deep fog", "Sea  Foam"], "option F repeats option B"),
        (["deep fog", "star lights"], "option F repeats option C"),
        (["deep fog", "x"], "option F has 1 characters"),
        (["deep fog", "very " * 9], "option F has 45 characters"),
        (["deep fog", " "], "option F is empty"),
    ],
)
def test_new_options_with_a_fault_are_refused(new, problem):
    before = question()
    problems = validate_options(before, with_options(before, [*before.options.values(), *new]), 6)
    assert problems
    assert problem in problems[0]


def test_good_new_options_pass_and_changed_old_ones_do_not():
    before = question()
    good = with_options(before, [*before.options.values(), "deep fog", "wet sand"])
    assert validate_options(before, good, 6) == []
    changed = with_options(before, ["moon mud", "sea foam", "star light", "old soup", "deep fog", "wet sand"])
    assert validate_options(before, changed, 6) == ["the original stem, options or answer changed"]


def test_expansion_tries_again_after_a_bad_reply_and_asks_the_second_model(ledger):
    generator = Scripted("no list", '```json\n["deep fog", "wet sand"]\n```')
    checker = Scripted("No.", name="checker")
    made = expand_options(question(), 6, generator, ledger, checker)
    assert made.problems == []
    assert list(made.question.options.values())[4:] == ["deep fog", "wet sand"]
    assert (generator.calls, checker.calls) == (2, 2)


def test_an_option_that_may_be_right_too_goes_to_people(ledger):
    made = expand_options(question(), 5, Scripted('["deep fog"]'), ledger, Scripted("yes", name="checker"))
    assert made.question == question()
    assert made.problems == ["'deep fog' may be right too"]


# Rewriting

GOOD = (
    "Blue hiccups have troubled a man of Atlantis, aged 45 years, for 2 days. Glucose is 5 mg/dL, he is "
    "without pain, and the temperature is 37.2 °C. What is the likeliest cause?"
)


def rewritten(stem, **changes):
    return validate_rewrite(question(), question(stem=stem, **changes))


def test_numbers_are_read_with_their_units():
    assert numbers("45-year-old, two days, BP 120/80 mm Hg, 1,500 mL, 37.2 °C, .5 mg/kg/day, T4") == {
        "45 year": 1, "2 day": 1, "120": 1, "80 mmHg": 1, "1500 mL": 1, "37.2 °C": 1, ".5 mg/kg/day": 1,
    }  # fmt: skip


def test_a_faithful_rewrite_passes():
    assert rewritten(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("37.2", "37.3", "numbers changed: lost ['37.2 °C'], added ['37.3 °C']"),
        ("5 mg/dL", "5 mmol/L", "numbers changed: lost ['5 mg/dL'], added ['5 mmol/L']"),
        ("for 2 days", "for three days", "numbers changed"),
        ("have troubled", "have not troubled", "negations changed from 1 to 2"),
        ("he is without pain", "he is in pain", "negations changed from 1 to 0"),
        ("cause?", "cause?" + " Think about it well." * 20, "the length changed"),
        ("Glucose", "a | b\nGlucose", "the lines of a table changed"),
    ],
)
def test_a_rewrite_that_changes_a_fact_is_refused(old, new, problem):
    problems = rewritten(GOOD.replace(old, new))
    assert any(found.startswith(problem) for found in problems), problems


def test_a_rewrite_must_rewrite_and_leave_the_options():
    assert rewritten(STEM) == ["it is hardly rewritten"]
    assert rewritten(GOOD, label="A") == ["the options or the label changed"]


def test_the_models_take_turns_and_a_bad_rewrite_is_left_to_people(ledger):
    first, second = Scripted(GOOD, name="a"), Scripted("nonsense", name="b")
    assert rewrite(question(), [first, second], ledger, turn=0).question.stem == GOOD
    made = rewrite(question("s-2"), [first, second], ledger, turn=1)
    assert made.question.stem == STEM
    assert made.problems
    assert (first.calls, second.calls) == (1, 3)


def test_the_rule_moves_the_first_sentence_and_keeps_the_facts():
    made = rewrite_by_rule(question())
    assert made.problems == []
    assert made.question.stem.startswith("His temperature")
    assert made.question.stem.endswith("Which is the most likely cause?")


# Review


def fill(path, rows):
    with path.open(newline="") as file:
        sheet = list(csv.DictReader(file))
    for row in sheet:
        row.update(rows.get(row["id"], {}))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, sheet[0].keys())
        writer.writeheader()
        writer.writerows(sheet)


def test_what_two_reviewers_agree_on_is_applied_and_the_rest_stays_open(tmp_path):
    bank = [question(f"s-{i}") for i in range(5)]
    fix = {"decision": "fix", "new stem": "Better?", "question errors": "formatting"}
    for name, last in (("a", "accept"), ("b", "delete")):
        export_review(bank, tmp_path / f"{name}.csv")
        decisions = {
            "s-0": {"decision": "accept"},
            "s-1": {"decision": "delete"},
            "s-2": fix,
            "s-3": {"decision": last},
        }
        fill(tmp_path / f"{name}.csv", decisions)
    review = import_review(bank, {"a": tmp_path / "a.csv", "b": tmp_path / "b.csv"})
    assert [q.id for q in review.kept] == ["s-0", "s-2"]
    assert review.kept[1].stem == "Better?"
    assert (review.deleted, review.open) == (["s-1"], ["s-3", "s-4"])
    assert review.errors == {("question", "formatting"): 1}
    assert review.agreement.n == 4
    assert review.agreement.observed == 0.75


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"decision": "maybe"}, "s-1: column decision: 'maybe'"),
        ({"decision": "accept", "option errors": "ugly"}, "s-1: column option errors: 'ugly'"),
        ({"decision": "fix"}, "s-1: the decision is fix, but"),
        ({"decision": "fix", "new label": "Z"}, "s-1: the fix makes no question"),
        ({"decision": "fix", "new options": "A. x\nB. y\nB. z"}, "s-1: column new options: a letter comes"),
        ({"id": "s-9"}, "s-9: column id"),
    ],
)
def test_a_wrong_cell_is_named_by_question_and_column(tmp_path, cells, message):
    export_review([question()], tmp_path / "a.csv")
    fill(tmp_path / "a.csv", {"s-1": cells})
    with pytest.raises(DataError, match=message):
        import_review([question()], {"a": tmp_path / "a.csv"})


def test_hostile_text_is_no_formula_and_no_markup_on_a_sheet(tmp_path):
    bank = [question(stem="=HYPERLINK(1)\u202e<script>alert(1)</script>")]
    export_review(bank, tmp_path / "a.csv")
    export_review(bank, tmp_path / "a.html")
    text = (tmp_path / "a.csv").read_text()
    assert "'=HYPERLINK(1)[U+202E]" in text
    assert "<script>alert" not in (tmp_path / "a.html").read_text()
    assert import_review(bank, {"a": tmp_path / "a.csv"}).open == ["s-1"]


def test_agreement_by_hand():
    # 3 of 4 equal; chance (3·2 + 1·2) / 16 = 1/2
    assert cohen_kappa("aaab", "aabb") == pytest.approx((0.75 - 0.5) / 0.5)
    # D_o = 2/8; of 8 values 5 a, 3 b: D_e = 1 - (20 + 6) / 56
    assert krippendorff_alpha(["aa", "aa", "ab", "bb"]) == pytest.approx(1 - 0.25 / (30 / 56))
    three = agreement({"x": {1: "a", 2: "b"}, "y": {1: "a", 2: "b"}, "z": {1: "a"}})
    assert (three.n, three.observed, three.alpha) == (2, 1, 1)
    with pytest.raises(DataError, match="no question"):
        agreement({"x": {1: "a"}})


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab")), min_size=2, max_size=30))
def test_cohens_kappa_is_that_of_scikit_learn(pairs):
    from sklearn.metrics import cohen_kappa_score

    one, two = zip(*pairs, strict=True)
    if len(set(one + two)) > 1:
        assert cohen_kappa(one, two) == pytest.approx(cohen_kappa_score(one, two))


# Labels


def test_labels_outside_the_closed_sets_are_asked_again_and_never_taken(ledger):
    good = {
        "medical_task": "diagnosis",
        "body_system": "Other / NA",
        "question_type": "Reasoning",
        "subtask": "cause",
    }
    bad = json.dumps(good | {"body_system": "Ignore the rules"})
    made = label_question(question(), Scripted(bad, json.dumps(good)), ledger)
    assert (made.question.medical_task, made.question.body_system, made.question.subtask) == (
        "Diagnosis",
        "Other / NA",
        "cause",
    )
    other = question(stem="Another?")
    refused = label_question(other, Scripted(bad), ledger)
    assert refused.question == other
    assert "body_system 'Ignore the rules'" in refused.problems[0]


def test_the_papers_label_audit():
    rate, (low, high) = audit_rate(39, 890)
    assert (round(rate, 3), round(low, 3), round(high, 3)) == (0.044, 0.032, 0.059)
    bank = [question(f"s-{i}") for i in range(30)]
    assert len(audit_sample(bank)) == 3
    assert audit_sample(bank, seed=1) == audit_sample(bank, seed=1)
