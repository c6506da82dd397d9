from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from toedit.editing import DROPPED, EditedTokens
from toedit.protection import protected_tokens
from toedit.splicing import apply_edits, splice
from toedit.tokenization import TextTokenizer

WORDS = ["▁the", "▁cat", "▁Hat", "the", "▁", "!", "<unk>", "s"]


def edit(text, changes, encode, decode):
    """Splice `changes` {token position: new id or DROPPED} into the text."""
    ids, offsets = encode(text)
    new = ids.copy()
    for at, token in changes.items():
        new[at] = token
    changed = (new != ids) & (new != DROPPED)
    log_p = np.log(np.full(len(ids), 0.9, np.float32))
    p_new = np.where(changed, 0.1, 0.9)
    return splice(text, ids, offsets, EditedTokens(new, new != ids, changed, p_new), log_p, decode), ids


@pytest.fixture
def bytes_bpe(tokenizer):
    text = TextTokenizer(tokenizer, 320)

    def change(words, changes):
        def encode(words):
            return text.encode([words])[0]

        vocabulary = tokenizer.get_vocab()
        changes = {at: vocabulary.get(token, token) for at, token in changes.items()}
        return edit(words, changes, encode, text.decode)

    return change


def test_an_edit_replaces_its_token_and_nothing_else(bytes_bpe):
    done, ids = bytes_bpe("hello the\u00a0hat\r\n", {1: "Ġcat"})
    assert done.text == "hello cat\u00a0hat\r\n"
    (only,) = done.edits
    assert (only.start, only.end, only.old, only.new) == (5, 9, " the", " cat")
    assert (only.p_old, only.p_new) == (pytest.approx(0.9), 0.1)
    assert done.n_skipped == 0
    assert (done.edited.ids != ids).sum() == 1


def test_a_dropped_token_leaves_nothing_and_has_no_new_probability(bytes_bpe):
    done, _ = bytes_bpe("hello the hat", {1: DROPPED})
    assert done.text == "hello hat"
    assert done.edits[0].new == ""


def test_a_token_that_is_part_of_a_character_stays_and_is_counted(bytes_bpe):
    text = "the 😀 hat"
    for at in range(2, 6):
        for new in ("Ġcat", DROPPED):
            done, ids = bytes_bpe(text, {at: new})
            assert done.text == text
            assert done.edits == []
            assert done.n_skipped == 1
            assert (done.edited.ids == ids).all()
            assert not done.edited.changed_mask.any()
            assert done.edited.p_new[at] == pytest.approx(0.9)


def test_a_new_token_that_is_part_of_a_character_is_not_put_in(bytes_bpe):
    done, _ = bytes_bpe("hello the hat", {0: "ð", 1: "Ġcat"})
    assert done.text == "hello cat hat"
    assert done.n_skipped == 1
    assert done.edited.changed_mask.tolist() == [False, True, False]


def test_text_beside_a_split_character_can_be_edited(bytes_bpe):
    done, _ = bytes_bpe("hello😀hello", {0: "Ġcat", 5: "hat"})
    assert done.text == " cat😀hat"
    assert done.n_skipped == 0


@settings(deadline=None)
@given(text=st.text(max_size=30), data=st.data())
def test_the_listed_edits_are_the_only_difference(tokenizer, text, data):
    tokens = TextTokenizer(tokenizer, 320)
    ids, _ = tokens.encode([text])[0]
    new = data.draw(st.lists(st.none() | st.integers(-1, 299), min_size=len(ids), max_size=len(ids)))
    changes = {at: token for at, token in enumerate(new) if token is not None and token < len(tokenizer)}
    done, _ = edit(text, changes, lambda text: tokens.encode([text])[0], tokens.decode)
    assert apply_edits(text, done.edits) == done.text
    assert all(text[e.start : e.end] == e.old for e in done.edits)
    assert len(done.edits) + done.n_skipped == sum(ids[at] != token for at, token in changes.items())
    if not changes:
        assert done.text == text
    assert tokens.decode(done.edited.ids[done.edited.ids >= 0].tolist()) == done.text


def metaspace(**options):
    words = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def with_tokenizer(tokenizer, text, changes):
    def encode(text):
        found = tokenizer.encode(text)
        return np.array(found.ids), np.array(found.offsets).reshape(-1, 2)

    return edit(text, changes, encode, lambda ids: tokenizer.decode(ids, skip_special_tokens=False))[0]


def test_a_tokenizer_that_marks_the_beginning_of_words_gives_their_spaces_back():
    done = with_tokenizer(metaspace(), "the cat the", {0: WORDS.index("▁Hat"), 1: WORDS.index("▁Hat")})
    assert done.text == "Hat Hat the"
    assert [(e.old, e.new) for e in done.edits] == [("the", "Hat"), (" cat", " Hat")]


def test_offsets_without_the_space_of_a_word_are_widened_to_it(trimmed):
    words = trimmed.backend_tokenizer
    assert words.encode("hello the").offsets[1] == (6, 9)
    done = with_tokenizer(words, "hello the hat", {1: words.token_to_id("Ġcat")})
    assert done.text == "hello cat hat"
    assert done.edits[0].old == " the"
    assert with_tokenizer(words, "hello the hat", {1: DROPPED}).text == "hello hat"


def test_a_word_is_protected_with_the_space_that_its_edit_would_take_along(trimmed):
    text = "hello the hat sat"
    ids, offsets = TextTokenizer(trimmed, 320).encode([text])[0]
    assert offsets[:3].tolist() == [[0, 5], [6, 9], [10, 13]]
    assert protected_tokens(text, ids, offsets, (), ((6, 17),))[:3].tolist() == [True, True, False]
    assert protected_tokens(text, ids, offsets, (), ((5, 17),))[:3].tolist() == [True, False, False]


def test_where_a_normalizer_has_rewritten_the_text_nothing_is_edited():
    tokenizer = metaspace()
    tokenizer.normalizer = normalizers.Lowercase()
    done = with_tokenizer(tokenizer, "THE the", {0: WORDS.index("▁cat"), 1: WORDS.index("▁cat")})
    assert done.text == "THE cat"
    assert done.n_skipped == 1


def test_a_slice_of_the_text_takes_the_edits_inside_it(bytes_bpe):
    text = "hello the hat the"
    done, _ = bytes_bpe(text, {1: "Ġcat", 3: "Ġcat"})
    assert apply_edits(text, done.edits, 9, 17) == " hat cat"
    assert apply_edits(text, done.edits, 0, 9) == "hello cat"
    assert apply_edits(text, done.edits, 6, 13) == "the hat"  # the first edit begins before
