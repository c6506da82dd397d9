"""Rows and texts of a corpus, as the verbs that do not edit read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toedit import ToEditError
from toedit.layouts import LAYOUTS, layout_named
from toedit.texts import corpus_rows, perplexity, read_texts, sample_rows

REPLIES = [{"role": "user", "content": "the mat?"}, {"role": "assistant", "content": "the cat"}]
ROW = {
    "id": 7,
    "text": "hello",
    "messages": [*REPLIES, *REPLIES],
    "prompt": "on the mat sat",
    "completion": " the hat",
    "instruction": "say",
    "input": "hello",
    "output": "world",
}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("layout", "answers"), zip(LAYOUTS, ("hello", "the cat\n\nthe cat", " the hat", "world"), strict=True)
)
def test_the_answers_of_a_row_are_what_its_document_lets_be_edited(
    tmp_path: Path, tokenizer: Any, layout: str, answers: str
) -> None:
    corpus, columns = write(tmp_path / "in.jsonl", ROW), layout_named(layout)
    assert list(read_texts([corpus], columns)) == [("7", answers)]
    (row,) = corpus_rows([corpus], columns)
    document = row.document(columns, tokenizer)
    spans = document.editable or ((0, len(document.text)),)
    assert "\n\n".join(document.text[start:end] for start, end in spans) == answers


def test_of_a_completion_in_messages_the_replies_are_the_answers(tmp_path: Path) -> None:
    corpus = write(tmp_path / "in.jsonl", {"prompt": REPLIES[:1], "completion": REPLIES[1:]})
    assert list(read_texts([corpus], layout_named("prompt-completion"))) == [("row 1", "the cat")]


def test_a_sample_is_of_the_whole_corpus_and_the_same_each_time(tmp_path: Path) -> None:
    corpus = write(tmp_path / "in.jsonl", *({"id": n, "text": str(n)} for n in range(100)))
    found = [row.doc_id for row in sample_rows([corpus], 10, layout_named("text"))]
    assert found == [row.doc_id for row in sample_rows([corpus], 10, layout_named("text"))]
    assert len(set(found)) == 10
    assert max(map(int, found)) > 50
    assert len(sample_rows([corpus], 1000, layout_named("text"))) == 100


def test_rows_that_do_not_fit_are_told_with_their_place(tmp_path: Path) -> None:
    corpus = write(tmp_path / "in.jsonl", {"text": "a"}, {"text": 5})
    with pytest.raises(ToEditError, match=r"in\.jsonl, row 2: the text is of type int, not a string"):
        list(read_texts([corpus]))
    with pytest.raises(ToEditError, match=r"row 1: there is no column 'output'.*--text-column names it"):
        list(read_texts([write(tmp_path / "b.jsonl", {"instruction": "a"})], layout_named("alpaca")))


def test_a_perplexity_that_is_no_number_is_none() -> None:
    assert perplexity(np.log(np.array([np.nan, 0.25, 1.0]))) == pytest.approx(2.0)
    assert perplexity(np.array([np.nan])) is None
    assert perplexity(np.array([-np.inf])) is None
    assert perplexity(np.array([-1e4])) is None
