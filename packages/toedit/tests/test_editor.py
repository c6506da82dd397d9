from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import PreTrainedTokenizerFast, T5Config

import toedit
from toedit import Document, EditConfig, EditFailure, Editor, ToEditError
from toedit.documents import or_raise
from toedit.splicing import apply_edits

DIGITS = "01234567890123456789"
WORDS = "hello world, the cat in the hat sat on the mat <|im_end|> 😀 e\u0301\r\n"
LOOSE = {"threshold": 0.004, "temperature": 5.0, "window": 64, "overlap": 16}


@pytest.fixture(scope="module")
def editor(tokenizer, tiny_llama):
    """Random weights, so that hardly a token has more than 1 %; the threshold is as low."""
    return Editor(tiny_llama(), tokenizer, EditConfig(**LOOSE))


def as_dict(result):
    return {**asdict(result), "ids": result.ids.tolist()}


def texts(count):
    random = np.random.default_rng(0)
    words = WORDS.split(" ")
    return [" ".join(random.choice(words, random.integers(1, 60))) for _ in range(count)]


def test_the_logits_before_a_token_score_it(tokenizer, counting):
    text = "0123 45 99 10 901"
    editor = Editor(counting(), tokenizer, EditConfig(threshold=0.99))
    (scored,) = editor.score([text])
    pairs = {f"{digit}{(digit + 1) % 10}" for digit in range(10)}
    follows = [text[max(0, at - 1) : at + 1] in pairs for at in range(len(text))]
    assert [text[start:end] for start, end in scored.offsets] == list(text)
    assert np.flatnonzero(follows).tolist() == scored.scores.rows.tolist() == [1, 2, 3, 6, 15, 16]
    assert np.exp(scored.log_p[scored.scores.rows]) == pytest.approx(0.995)
    assert np.isnan(scored.log_p[0])


def test_the_first_token_is_a_candidate_only_after_a_bos(tokenizer, counting):
    cfg = EditConfig(threshold=0.05, condition="ge", top_k=8)
    without = Editor(counting(), tokenizer, cfg).score(["4"])[0]
    with_bos = Editor(counting(), tokenizer, cfg.replace(add_bos=True)).score(["4"])[0]
    assert without.scores.rows.tolist() == []
    assert with_bos.scores.rows.tolist() == [0]
    assert with_bos.log_p == pytest.approx([math.log(0.1)])


def test_auto_adds_a_bos_where_the_tokenizer_does(tokenizer, counting):
    adding = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token="<|endoftext|>")
    assert Editor(counting(), adding).bos is None
    adding.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    try:
        assert Editor(counting(), adding).bos == 0
        assert Editor(counting(), adding, EditConfig(add_bos=False)).bos is None
        assert len(Editor(counting(), adding).edit("12", "a").ids) == 2
    finally:
        adding.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="$A", special_tokens=[]
        )


def test_a_demanded_bos_that_the_tokenizer_lacks_is_an_error(tokenizer, counting):
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(ToEditError, match="no beginning-of-text token"):
        Editor(counting(), bare, EditConfig(add_bos=True))


HARD = st.lists(st.sampled_from(["<|im_end|>", "\r\n", "\u00a0", "👩\u200d👧", "e\u0301", "שלום", "\x00"]))


@settings(deadline=None)
@given(text=st.text(max_size=200) | HARD.map("".join))
def test_with_editing_off_any_text_comes_back_as_it_was(tokenizer, counting, text):
    result = Editor(counting(), tokenizer, EditConfig(threshold=2.0)).edit(text, "a")
    assert result.text == text
    assert result.edits == []
    assert result.n_candidates == result.n_changed == result.stats.n_skipped == 0


def test_the_listed_edits_make_the_new_text(editor):
    text = WORDS * 30
    result = editor.edit(text, "a")
    assert result.n_changed == len(result.edits) > 20
    assert result.stats.n_skipped > 0  # random weights like parts of characters
    assert result.n_candidates >= result.n_changed + result.stats.n_skipped
    assert apply_edits(text, result.edits) == result.text
    for edit in result.edits:
        assert text[edit.start : edit.end] == edit.old != edit.new
        assert edit.p_old >= 0.004
        assert 0 < edit.p_new < 1
    assert result.text.count("<|im_end|>") == 30
    assert editor.tokenizer.decode(result.ids.tolist()) == result.text


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_edits_do_not_depend_on_batches_order_or_padding(editor, data):
    documents = [Document(f"doc {i}", text) for i, text in enumerate(texts(12))]
    alone = {d.doc_id: as_dict(editor.edit(d.text, d.doc_id)) for d in documents}
    assert sum(len(result["edits"]) for result in alone.values()) > 20
    order = data.draw(st.permutations(documents))
    editor.backend.batch_tokens = data.draw(st.integers(1, 2000))
    editor.backend.head_rows = data.draw(st.integers(1, 300))
    buffer = data.draw(st.integers(1, 12))
    together = [as_dict(or_raise(result)) for result in editor.edit_stream(order, buffer)]
    assert [result["doc_id"] for result in together] == [document.doc_id for document in order]
    for result in together:
        expected = alone[result["doc_id"]]
        assert {k: v for k, v in result.items() if k not in ("stats", "edits")} == {
            k: v for k, v in expected.items() if k not in ("stats", "edits")
        }
        assert [(e["start"], e["new"]) for e in result["edits"]] == [
            (e["start"], e["new"]) for e in expected["edits"]
        ]


def test_the_side_that_the_tokenizer_pads_on_does_not_matter(tokenizer, editor, monkeypatch):
    before = editor.edit_batch(texts(5), range(5))
    monkeypatch.setattr(tokenizer, "padding_side", "left")
    again = Editor(editor.backend.model, tokenizer, editor.config)
    assert [r.text for r in again.edit_batch(texts(5), range(5))] == [r.text for r in before]


@pytest.mark.parametrize(("window", "overlap"), [(5, 1), (7, 3), (16, 0), (1000, 10)])
def test_windows_change_nothing_where_the_context_is_equal(tokenizer, counting, window, overlap):
    """The prior looks at one token only, so that every window has all of its context."""
    text = (DIGITS + " x 7 ") * 9
    cfg = EditConfig(temperature=3.0)
    whole = Editor(counting(), tokenizer, cfg).edit(text, "a")
    cut = Editor(counting(), tokenizer, cfg.replace(window=window, overlap=overlap)).edit(text, "a")
    assert whole.n_changed > 5
    assert as_dict(cut) == as_dict(whole)


def test_a_document_longer_than_the_model_takes_is_scored_to_its_end(tokenizer, tiny_llama):
    editor = Editor(tiny_llama(max_position_embeddings=64), tokenizer, EditConfig(overlap=16))
    assert editor.window == 64
    (scored,) = editor.score(["hello the cat " * 100])
    assert len(scored.ids) > 300
    assert np.isnan(scored.log_p).sum() == 1
    assert editor.backend.workload.n_tokens > len(scored.ids)
    with pytest.raises(ToEditError, match="overlap is 256, but a window holds 64"):
        Editor(tiny_llama(max_position_embeddings=64), tokenizer)


def test_a_model_in_double_precision_is_scored_in_it(tokenizer, tiny_llama):
    editor = Editor(tiny_llama().double(), tokenizer, EditConfig(**LOOSE))
    (scored,) = editor.score([WORDS * 9])
    assert scored.log_p.dtype == np.float64
    assert len(scored.scores.rows) > 20
    assert editor.edit(WORDS * 9, "a").n_candidates > 20


def test_the_number_of_changes_is_the_expected_one(tokenizer, counting):
    editor = Editor(counting(), tokenizer, EditConfig(temperature=3.0))
    text = DIGITS * 100
    (expected,) = editor.expected_changes([text])
    q = 0.995 ** (1 / 3)
    rest = 7 * (0.005 / 9) ** (1 / 3)
    assert expected == pytest.approx(1999 * rest / (q + rest), rel=1e-5)
    changed = np.mean([editor.edit(text, seed).n_changed for seed in range(5)])
    deviation = math.sqrt(expected * (1 - expected / 1999) / 5)
    assert abs(changed - expected) < 4 * deviation
    assert editor.edit(text, 0).stats.expected_changes == pytest.approx(expected)


def test_protected_tokens_and_texts_outside_the_ranges_stay(tokenizer, counting):
    cfg = EditConfig(temperature=20.0)
    text = "01234 56789 01234"
    free = Editor(counting(), tokenizer, cfg)
    assert free.edit(text, "a").text != text
    assert Editor(counting(), tokenizer, cfg.replace(protect=("numbers",))).edit(text, "a").text == text
    for doc_id in range(5):
        result = free.edit(text, doc_id, [(6, 11)])
        assert (result.text[:6], result.text[11:]) == (text[:6], text[11:])
    assert free.edit(text, "a", []).text == text


def test_dropped_tokens_leave_the_text(tokenizer, counting):
    editor = Editor(counting(0.9995), tokenizer, EditConfig.preset("filter", low_threshold=0.01))
    result = editor.edit("0123 7456 4789", "a")
    # A space has no chance; the digit after it one in ten; 4 after 7, and 7 after 4, one in 18,000.
    assert result.text == "0123756489"
    assert result.stats.n_dropped == 4
    assert [(edit.old, edit.new) for edit in result.edits] == [(" ", ""), ("4", ""), (" ", ""), ("7", "")]
    assert all(math.isnan(edit.p_new) for edit in result.edits)
    assert len(result.ids) == 10
    assert result.n_changed == 0


@pytest.mark.parametrize("text", ["", " ", "\n\t \u00a0"])
def test_texts_without_a_word_pass_through_and_are_counted(tokenizer, counting, text):
    editor = Editor(counting(), tokenizer)
    result = editor.edit(text, "a")
    assert result.text == text
    assert result.stats.n_empty == result.stats.n_documents == 1
    assert result.stats.n_scored == 0
    assert editor.edit("1", "a").stats.n_empty == 0


def test_a_text_whose_edit_is_tokenized_otherwise_is_counted(tokenizer, counting):
    vocabulary = tokenizer.get_vocab()
    assert "he" in vocabulary or tokenizer.tokenize("he") != ["h", "e"]
    model = counting()
    model.table.fill_(-torch.inf)
    model.table[:, vocabulary["!"]], model.table[:, vocabulary["e"]] = math.log(0.6), math.log(0.4)
    editor = Editor(model, tokenizer, EditConfig(threshold=0.5, top_k=2, exclude_original=True))
    result = editor.edit("h!", "a")
    assert result.text == "he"
    assert result.ids.tolist() == [vocabulary["h"], vocabulary["e"]]
    assert result.retokenized
    assert not editor.edit("hat", "a").retokenized


def test_scores_of_texts_are_log_probabilities_of_their_tokens(tokenizer, counting, tiny_llama):
    model = tiny_llama()
    (log_p,) = toedit.score(["hello the cat"], Editor(model, tokenizer))
    ids = torch.tensor([tokenizer("hello the cat")["input_ids"]])
    with torch.inference_mode():
        expected = model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
    assert log_p[1:] == pytest.approx(expected.numpy(), abs=1e-5)
    assert np.isnan(log_p[0])
    assert toedit.score([], Editor(model, tokenizer)) == []


def test_options_for_a_backend_that_is_made_already_are_refused(tokenizer, counting):
    made = Editor(counting(), tokenizer, batch_tokens=64).backend
    with pytest.raises(
        ToEditError, match="TransformersBackend is a backend that is made already; give batch_tokens"
    ):
        Editor(made, tokenizer, batch_tokens=64)


def test_one_document_without_numbers_leaves_the_others_alone(tokenizer, counting):
    model = counting()
    model.table[tokenizer.get_vocab()["!"]] = torch.nan
    editor = Editor(model, tokenizer)
    documents = [Document(i, text) for i, text in enumerate([DIGITS, "12!3", DIGITS, "\ud800", DIGITS])]
    outcomes = list(editor.edit_stream(documents))
    reasons = {o.doc_id: o.reason for o in outcomes if isinstance(o, EditFailure)}
    assert set(reasons) == {1, 3}
    assert "logits for token 3 are NaN" in reasons[1]
    assert reasons[1].endswith("computed in float32; its weights may be damaged")
    assert "no valid Unicode: character 0" in reasons[3]
    for outcome in outcomes:
        if not isinstance(outcome, EditFailure):
            assert as_dict(outcome) == as_dict(editor.edit(DIGITS, outcome.doc_id))
    with pytest.raises(ToEditError, match="document 1: the model's logits for token 3"):
        editor.edit_batch(["12", "12!3"], [0, 1])


def test_a_text_of_another_type_is_a_failure_with_its_type(tokenizer, counting):
    (outcome,) = Editor(counting(), tokenizer).edit_stream([Document(7, None)])
    assert outcome == EditFailure(7, "the text is of type NoneType, not a string")


def test_a_single_text_is_not_taken_for_a_list_of_letters(tokenizer, counting):
    editor = Editor(counting(), tokenizer)
    for call in (
        lambda: editor.score("abc 123"),
        lambda: editor.expected_changes("abc 123"),
        lambda: editor.edit_batch("abc", range(3)),
        lambda: toedit.score("abc 123", editor),
    ):
        with pytest.raises(ToEditError, match="texts is a single str; give a list of texts"):
            call()
    with pytest.raises(ToEditError, match="texts is a single Document"):
        editor.score(Document(1, "abc"))


def test_ids_must_differ_and_be_as_many_as_the_texts(tokenizer, counting):
    editor = Editor(counting(), tokenizer)
    with pytest.raises(ToEditError, match="'1' is there twice"):
        editor.edit_batch(["a", "b", "c"], [1, 2, "1"])
    with pytest.raises(ToEditError, match="2 doc_ids for 1 texts"):
        editor.edit_batch(["a"], [1, 2])


def test_the_stream_reads_no_further_ahead_than_two_buffers(tokenizer, counting):
    read = []

    def endless():
        for number in range(10**9):
            read.append(number)
            yield Document(number, "0123")

    stream = Editor(counting(), tokenizer).edit_stream(endless(), buffer=4)
    assert next(stream).doc_id == 0
    assert len(read) <= 8
    stream.close()


def test_what_does_not_belong_together_is_refused(tokenizer, counting, tiny_llama):
    with pytest.raises(ToEditError, match="the tokenizer has 283 tokens and the model 100"):
        Editor(tiny_llama(vocab_size=100), tokenizer)
    with pytest.raises(ToEditError, match="top_k is 321, more than the 320"):
        Editor(counting(), tokenizer, EditConfig(top_k=321))
    with pytest.raises(ToEditError, match="no backend 'tpu'; there are: transformers, vllm, llama_cpp"):
        Editor(counting(), tokenizer, backend="tpu")

    class Slow:
        is_fast = False

    with pytest.raises(ToEditError, match="Slow gives no offsets"):
        Editor(counting(), Slow())
    model = counting()
    model.config = T5Config()
    with pytest.raises(ToEditError, match="is an encoder-decoder"):
        Editor(model, tokenizer)
