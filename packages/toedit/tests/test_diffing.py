"""Differences of texts, shown and as a data set."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toedit.cli import main
from toedit.diffing import Change, CorpusDiff, word_changes, write_changes
from toedit.errors import ToEditError


@given(st.text("ab \n.", max_size=40), st.text("ab \n.", max_size=40))
def test_the_changes_in_order_make_the_new_text_of_the_old_one(old: str, new: str) -> None:
    made, at = "", 0
    for change in word_changes(old, new, context=100):
        start = old.index(change.before + change.old + change.after) + len(change.before)
        assert old[start : start + len(change.old)] == change.old
        made, at = made + old[at:start] + change.new, start + len(change.old)
    assert made + old[at:] == new


def test_the_context_is_a_number_of_words_on_both_sides() -> None:
    (change,) = word_changes("one two three four five", "one two 3 four five", context=1)
    assert change == Change("two ", "three", "3", " four")
    (change,) = word_changes("one two three four five", "one two 3 four five", context=0)
    assert change == Change("", "three", "3", "")


def test_equal_changes_are_one_row_with_their_count_the_frequent_first(tmp_path: Path) -> None:
    rare, often = Change("a ", "b", "c", " d"), Change("a ", "b", "\u00e9\n", " d")
    write_changes(tmp_path / "edits.jsonl", Counter([rare, often, often]))
    rows = [json.loads(line) for line in (tmp_path / "edits.jsonl").read_text("utf-8").splitlines()]
    assert rows == [
        {"before": "a ", "old": "b", "new": "\u00e9\n", "after": " d", "count": 2},
        {"before": "a ", "old": "b", "new": "c", "after": " d", "count": 1},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["edits.jsonl"]


def test_an_id_that_is_there_twice_is_refused_and_not_compared_with_another_text() -> None:
    once, twice = [("a", "one"), ("b", "two")], [("a", "one"), ("b", "two"), ("a", "three")]
    with pytest.raises(ToEditError, match="the first corpus has the document id 'a' twice"):
        CorpusDiff(twice, once)
    with pytest.raises(ToEditError, match="the second corpus has the document id 'a' twice"):
        list(CorpusDiff(once, twice).documents)


def test_the_command_writes_them_for_a_whole_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More documents than `--limit` shows; the ends of sentences are beyond two words of context."""
    for name, word in (("a", "sat"), ("b", "lay")):
        rows = [
            {"id": n, "text": f"Number {n}: the cat {word} on the mat, {n % 2} times."} for n in range(30)
        ]
        rows.append({"id": 30, "text": "nothing"})
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "edits.jsonl"
    with pytest.raises(SystemExit) as ended:
        main(["diff", *(str(tmp_path / f"{x}.jsonl") for x in "ab"), "--out", str(out), "--context", "2"])
    assert not ended.value.code
    shown, told = capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["diff", str(tmp_path), str(tmp_path), "--out", str(out)])
    assert "edits.jsonl is there already" in capsys.readouterr().err
    assert shown == ""
    assert f"30 changes, 1 of them different, in {out}" in told
    assert "30 changed, 1 the same" in told
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"before": "the cat ", "old": "sat", "new": "lay", "after": " on the", "count": 30}
    ]
