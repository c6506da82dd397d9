"""Generations: each edits what the one before gave, with draws of its own."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset

from toedit import EditConfig, Editor, ToEditError, generations

CONFIG = EditConfig(threshold=1e-4, temperature=3.0, seed=7)
ROWS = [{"n": n / 2, "text": f"the cat sat on mat {n}, hello world", "id": f"d{n}"} for n in range(8)]


@pytest.fixture(scope="module")
def editor(tiny_llama: Any, tokenizer: Any) -> Editor:
    return Editor(tiny_llama(), tokenizer, CONFIG)


def test_a_generation_is_an_edit_of_the_one_before_with_the_next_seed(
    editor: Editor, tiny_llama: Any, tokenizer: Any
) -> None:
    found = generations(Dataset.from_list(ROWS), 3, editor)
    assert [generation.number for generation in found] == [1, 2, 3]
    texts = [row["text"] for row in ROWS]
    for generation in found:
        config = CONFIG.replace(seed=6 + generation.number)
        results = Editor(tiny_llama(), tokenizer, config).edit_batch(texts, [row["id"] for row in ROWS])
        texts = [result.text for result in results]
        assert generation.data["text"] == texts
        assert generation.stats.n_changed == sum(result.n_changed for result in results) > 0
        assert generation.stats.n_candidates == sum(result.n_candidates for result in results)
    assert found[2].data.column_names == ["n", "text", "id"]
    assert found[2].data["n"] == [row["n"] for row in ROWS]
    assert editor.config == CONFIG


def test_plain_texts_are_known_by_what_they_were_in_the_beginning(editor: Editor) -> None:
    texts = [row["text"] for row in ROWS]
    calls: list[tuple[int, int]] = []
    found = generations(texts, 2, editor, on_progress=lambda *done: calls.append(done))
    rows = Dataset.from_list(ROWS)
    assert [g.data for g in found] == [g.data["text"] for g in generations(rows, 2, editor, id_column=None)]
    assert calls[-1] == (16, 16)


def test_what_cannot_be_iterated_is_refused(editor: Editor) -> None:
    rows = Dataset.from_list(ROWS)
    for data, n, column, message in (
        (rows, 0, "text", "n is 0"),
        (rows, 1, "body", "there is no column 'body'; there are: n, text, id"),
        (Dataset.from_list(ROWS * 2), 1, "text", "document id 'd0' is there twice"),
        ("text", 1, "text", "a datasets.Dataset or a sequence of texts, not str"),
        (["a", None], 1, "text", "the text of row 1 .* is of type NoneType, not a string"),
    ):
        with pytest.raises(ToEditError, match=message):
            generations(data, n, editor, column)
