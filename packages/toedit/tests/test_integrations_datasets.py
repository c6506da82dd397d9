"""Data sets of `datasets`, of TRL and of LLaMA-Factory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, IterableDataset

from toedit import EditConfig, Editor, ToEditError
from toedit.integrations.datasets import edit_dataset
from toedit.integrations.ray import EditBatch
from toedit.integrations.trl import edit_answers
from toedit.layouts import TextLayout

CONFIG = EditConfig(threshold=1e-4, temperature=3.0, seed=5)
ROWS = [{"id": n, "text": f"the cat sat on mat {n}, hello world", "n": n / 2} for n in range(20)]
USER = {"role": "user", "content": "the cat sat on the mat?"}
REPLY = {"role": "assistant", "content": "hello the hat " * 4}


@pytest.fixture(scope="module")
def editor(tiny_llama: Any, tokenizer: Any) -> Editor:
    return Editor(tiny_llama(), tokenizer, CONFIG)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_is_edited_as_by_the_editor_s_own_map(editor: Editor, streaming: bool) -> None:
    rows = Dataset.from_list(ROWS)
    data = rows.to_iterable_dataset(num_shards=2) if streaming else rows
    found = edit_dataset(editor, data, TextLayout(), provenance=True, batch_size=3)
    for row, expected in zip(found, editor.map(rows, provenance=True), strict=True):
        assert list(row) == list(expected)
        for name in ("id", "text", "n", "toedit_candidates", "toedit_changed"):
            assert row[name] == expected[name]
    assert sum(row["toedit_changed"] for row in found) > 20


@pytest.mark.parametrize("streaming", [False, True])
def test_a_first_batch_without_edits_does_not_fix_the_type_of_the_edits(
    editor: Editor, streaming: bool
) -> None:
    rows = Dataset.from_list([{"id": -1 - n, "text": "", "n": 0.0} for n in range(4)] + ROWS)
    data = rows.to_iterable_dataset() if streaming else rows
    found = list(edit_dataset(editor, data, TextLayout(), provenance=True, batch_size=4))
    assert [len(row["toedit_edits"]) for row in found[:4]] == [0] * 4
    assert any(row["toedit_edits"] for row in found)


@pytest.mark.parametrize(
    ("row", "answer", "untouched"),
    [
        ({"messages": [USER, REPLY, USER, REPLY]}, "messages", lambda value: [value[0], value[2]]),
        ({"prompt": USER["content"], "completion": REPLY["content"]}, "completion", lambda value: None),
        ({"prompt": [REPLY, USER], "completion": [REPLY]}, "completion", lambda value: None),
        ({"instruction": "the cat", "input": "", "output": REPLY["content"]}, "output", lambda value: None),
    ],
)
def test_the_answers_of_training_data_are_edited_and_nothing_else(
    editor: Editor, applied: Callable[..., Any], row: dict[str, Any], answer: str, untouched: Any
) -> None:
    data = Dataset.from_list([{**row, "n": n} for n in range(2)])
    found = edit_answers(editor, data)
    assert found.features == data.features
    assert found[0] == {**found[1], "n": 0}  # equal rows are edited alike
    assert found[0][answer] != row[answer]
    assert untouched(found[0][answer]) == untouched(row[answer])
    assert {name: value for name, value in found[0].items() if name != answer} == {
        name: value for name, value in data[0].items() if name != answer
    }
    with_edits = edit_answers(editor, data, provenance=True)
    assert with_edits[answer] == found[answer]
    assert applied(row[answer], with_edits[0]["toedit_edits"]) == found[0][answer]


def test_a_stream_that_does_not_know_its_columns_has_those_of_its_first_row(editor: Editor) -> None:
    rows = [{"messages": [USER, REPLY], "n": n} for n in range(3)]
    stream = IterableDataset.from_generator(lambda: iter(rows))
    assert stream.column_names is None
    assert list(edit_answers(editor, stream)) == list(edit_answers(editor, Dataset.from_list(rows)))
    with pytest.raises(ToEditError, match="the columns of an empty data set are no training data"):
        edit_answers(editor, IterableDataset.from_generator(lambda: iter(())))


def test_data_that_does_not_fit_is_refused(editor: Editor) -> None:
    rows = Dataset.from_list(ROWS)
    for call, message in (
        (
            lambda: edit_answers(editor, rows),
            "the columns id, text, n are no training data; known are",
        ),
        (
            lambda: edit_dataset(editor, rows, TextLayout("body")),
            "there is no column 'body'; there",
        ),
        (lambda: edit_dataset(editor, DatasetDict(a=rows), TextLayout()), "not DatasetDict; of a dictionary"),
        (lambda: edit_dataset(editor, Dataset.from_list(ROWS * 2), TextLayout()), "'id' has an id twice"),
    ):
        with pytest.raises(ToEditError, match=message):
            call()


def test_a_ray_batch_has_the_same_texts_without_ray(
    tmp_path: Any, tiny_llama: Any, tokenizer: Any, editor: Editor
) -> None:
    import numpy as np

    tiny_llama().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    batch = {name: np.array([row[name] for row in ROWS]) for name in ROWS[0]}
    found = EditBatch(str(tmp_path), CONFIG, provenance=True)(batch)
    expected = editor.map(Dataset.from_list(ROWS), provenance=True)
    for name in ("text", "toedit_candidates", "toedit_changed"):
        assert list(found[name]) == list(expected[name])
    assert [len(edits) for edits in found["toedit_edits"]] == list(expected["toedit_changed"])
    assert found["n"] is batch["n"]


def test_a_ray_batch_of_chats_has_its_lists_as_arrays_of_numpy(
    tmp_path: Any, tiny_llama: Any, tokenizer: Any, editor: Editor
) -> None:
    import numpy as np
    import pyarrow as pa

    tiny_llama().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    rows = [[USER, {**REPLY, "tags": ["a", "b"][:n]}] for n in range(1, 3)]
    batch = {"messages": pa.array(rows).to_numpy(zero_copy_only=False), "n": np.arange(2)}
    assert isinstance(batch["messages"][0], np.ndarray)
    for id_column in ("n", None):
        found = EditBatch(str(tmp_path), CONFIG, layout="messages", id_column=id_column)(batch)
        data = Dataset.from_dict({"messages": pa.array(rows).to_pylist(), "n": [0, 1]})
        assert list(found["messages"]) == edit_answers(editor, data, id_column)["messages"]
        assert list(found["messages"]) != pa.array(rows).to_pylist()
