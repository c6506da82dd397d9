from __future__ import annotations

import pytest

from toedit import EditConfig, Editor, ToEditError

datasets = pytest.importorskip("datasets")

ROWS = [{"name": f"n{i}", "body": "0123456789" * i, "other": i} for i in range(12)]


@pytest.fixture
def editor(tokenizer, counting):
    return Editor(counting(), tokenizer, EditConfig(temperature=5.0))


@pytest.fixture
def expected(editor):
    results = editor.edit_batch([row["body"] for row in ROWS], [row["name"] for row in ROWS])
    assert sum(result.n_changed for result in results) > 5
    return [row | {"body": result.text} for row, result in zip(ROWS, results, strict=True)]


def test_a_dataset_comes_back_with_the_same_columns_and_the_edits_of_edit(editor, expected):
    source = datasets.Dataset.from_list(ROWS)
    edited = editor.map(source, "body", "name", batch_size=5)
    assert edited.to_list() == expected
    assert edited.features == source.features
    assert source.to_list() == ROWS


def test_a_stream_is_edited_as_it_is_read_and_can_be_read_again(editor, expected):
    source = datasets.Dataset.from_list(ROWS).to_iterable_dataset(num_shards=3)
    edited = editor.map(source, "body", "name", batch_size=4)
    assert list(edited) == expected
    assert list(edited) == expected
    assert list(edited.column_names) == ["name", "body", "other"]


@pytest.mark.parametrize("stream", [False, True])
def test_provenance_lists_every_edit(editor, expected, stream):
    source = datasets.Dataset.from_list(ROWS)
    source = source.to_iterable_dataset() if stream else source
    edited = list(editor.map(source, "body", "name", provenance=True, batch_size=1))
    assert edited[0]["toedit_edits"] == []  # the type of the column must not hang on the first batch
    for row, source, new in zip(edited, ROWS, expected, strict=True):
        assert row["body"] == new["body"]
        assert row["toedit_changed"] == len(row["toedit_edits"]) <= row["toedit_candidates"]
        for edit in row["toedit_edits"]:
            assert source["body"][edit["start"] : edit["end"]] == edit["old"]
            assert edit["message"] is None


def test_without_ids_equal_texts_get_equal_edits(editor):
    edited = editor.map(datasets.Dataset.from_dict({"text": ["0123456789" * 9] * 3}), id_column=None)
    assert len(set(edited["text"])) == 1
    assert edited["text"][0] != "0123456789" * 9


@pytest.mark.parametrize("stream", [False, True])
def test_ids_that_come_twice_are_refused(editor, stream):
    source = datasets.Dataset.from_dict({"text": ["1", "2", "3"], "id": ["a", "b", "a"]})
    source = source.to_iterable_dataset() if stream else source
    with pytest.raises(ToEditError, match="'a' is there twice"):
        list(editor.map(source, batch_size=1))


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_that_is_none_is_told_without_ids_too(editor, stream):
    source = datasets.Dataset.from_dict({"text": ["0", "1", None]})
    source = source.to_iterable_dataset() if stream else source
    with pytest.raises(ToEditError, match=r"the text of row 2 \(the first is 0\) is of type NoneType, not a"):
        list(editor.map(source, id_column=None, batch_size=2))


def test_missing_columns_are_told_with_those_that_are_there(editor):
    source = datasets.Dataset.from_list(ROWS)
    with pytest.raises(ToEditError, match="no column 'text'; there are: name, body, other"):
        editor.map(source)
    with pytest.raises(ToEditError, match="no column 'id'"):
        editor.map(source.to_iterable_dataset(), "body")
    with pytest.raises(ToEditError, match="not DatasetDict; of a dictionary of splits, map each"):
        editor.map(datasets.DatasetDict({"train": source}))
