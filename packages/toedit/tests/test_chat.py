from __future__ import annotations

import numpy as np
import pytest

from toedit import EditConfig, Editor, ToEditError
from toedit.chat import completion, conversation
from toedit.documents import EditResult
from toedit.layouts import PromptCompletionLayout
from toedit.splicing import Edit, apply_edits
from toedit.statistics import EditStats

MESSAGES = [
    {"role": "system", "content": "hello"},
    {"role": "user", "content": "the cat, the hat?"},
    {"role": "assistant", "content": "  the cat in the hat\n", "weight": 1},
    {"role": "user", "content": "hat"},
    {"role": "assistant", "content": "the hat"},
]


def test_the_replies_are_found_where_the_template_puts_them(tokenizer):
    chat = conversation(MESSAGES, tokenizer, "a")
    assert chat.document.text == tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    texts = [(index, chat.document.text[start:end]) for index, start, end in chat.replies]
    assert texts == [(2, "the cat in the hat"), (4, "the hat")]
    assert chat.document.editable == tuple((start, end) for _, start, end in chat.replies)
    before = chat.document.text[: chat.replies[1][1]]
    assert before.endswith("hat<|im_end|>\n<|im_start|>assistant\n")


def test_edited_replies_go_back_and_keep_what_the_template_strips(tokenizer):
    chat = conversation(MESSAGES, tokenizer, "a")
    (_, first, _), (_, second, end) = chat.replies
    edits = [
        Edit(first + 3, first + 7, " cat", " dog", 1.0, 0.0),
        Edit(second, second + 3, "the", "a", 1.0, 0.0),
        Edit(end - 4, end, " hat", "", 1.0, 0.0),
    ]
    text = apply_edits(chat.document.text, edits)
    assert [(index, edit.start, edit.old) for index, edit in chat.placed(edits)] == [
        *((2, 5, " cat"), (4, 0, "the"), (4, 3, " hat"))
    ]
    new = chat.updated(EditResult("a", text, np.array([]), edits, EditStats()))
    assert [m["content"] for m in new] == ["hello", "the cat, the hat?", "  the dog in the hat\n", "hat", "a"]
    assert new[2]["weight"] == 1
    assert MESSAGES[2]["content"] == "  the cat in the hat\n"
    assert tokenizer.apply_chat_template(new, tokenize=False) == text


def test_only_replies_are_edited_and_no_token_of_the_template(tokenizer, tiny_llama):
    cfg = EditConfig(threshold=1e-9, exclude_original=True)
    editor = Editor(tiny_llama(), tokenizer, cfg)
    replies = set()
    for doc_id in range(6):
        new, result = editor.edit_chat(MESSAGES, doc_id)
        assert result.n_changed == len(result.edits) > 0
        for index in (0, 1, 3):
            assert new[index] == MESSAGES[index]
        assert tokenizer.apply_chat_template(new, tokenize=False) == result.text
        assert result.text.count("<|im_end|>") == 5
        replies |= {(index, new[index]["content"]) for index in (2, 4)}
    assert len([text for index, text in replies if index == 2]) > 2
    assert len([text for index, text in replies if index == 4]) > 2


def test_of_a_pair_only_the_answer_is_edited(tokenizer, tiny_llama):
    cfg = EditConfig(threshold=1e-9, exclude_original=True)
    editor = Editor(tiny_llama(), tokenizer, cfg)
    prompt, answer = "hello the cat the cat ", "in the hat in the hat"
    document = completion(prompt, answer, "a")
    result = editor.edit(document.text, "a", document.editable)
    assert result.text.startswith(prompt)
    assert result.text[len(prompt) :] != answer
    assert all(edit.start >= len(prompt) for edit in result.edits)


def test_a_prompt_stays_where_offsets_leave_out_the_space_at_its_end(trimmed, tiny_llama):
    editor = Editor(tiny_llama(), trimmed, EditConfig(threshold=1e-9, exclude_original=True))
    row = {"prompt": "hello the cat the cat ", "completion": "in the hat in the hat"}
    for doc_id in range(6):
        task = PromptCompletionLayout().task(row, doc_id, trimmed)
        result = editor.edit(task.document.text, doc_id, task.document.editable)
        assert result.n_changed > 0
        assert result.text == row["prompt"] + task.updated(result)["completion"]
        chat, _ = editor.edit_chat(MESSAGES, doc_id)
        assert [chat[index] for index in (0, 1, 3)] == [MESSAGES[index] for index in (0, 1, 3)]


def test_a_call_of_a_tool_has_no_reply_to_edit(tokenizer):
    messages = [{"role": "user", "content": "hat"}, {"role": "assistant", "content": None}]
    chat = conversation(messages, tokenizer, "a")
    assert chat.replies == ()
    assert chat.document.editable == ()


def test_what_cannot_be_put_back_is_refused(tokenizer):
    with pytest.raises(ToEditError, match="message 0 is not a dictionary"):
        conversation(["hello"], tokenizer, "a")
    with pytest.raises(ToEditError, match="content of message 0 is of type list"):
        conversation([{"role": "assistant", "content": [{"type": "text"}]}], tokenizer, "a")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0]['content'] | upper }}", "does not repeat the assistant's replies"),
        ("{{ messages[0]['content'].split('cat')[-1] }}", "does not repeat the assistant's replies"),
        ("nothing", "does not repeat the assistant's replies"),
        ("{{ raise_exception('no system') }}", "does not take these messages"),
        (None, "has no chat template"),
    ],
)
def test_templates_that_do_not_serve_are_refused(tokenizer, monkeypatch, template, message):
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(ToEditError, match=message):
        conversation([{"role": "assistant", "content": "the cat sat"}], tokenizer, "a")
