from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lmlab import tokenizers as laboratory
from lmlab.errors import SettingsError
from lmlab.tokenizers import (
    END_OF_TEXT,
    encode,
    even_sample,
    token_bytes,
    tokenizer_fingerprint,
    tokenizer_for,
    train_tokenizer,
)

TEXTS = [
    f"The {a} {b}s were counted, été {a * 3}." for a in ("old", "new", "red") for b in ("cat", "dog")
] * 5


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 280)


@given(st.text())
def test_any_text_comes_back(tokenizer: PreTrainedTokenizerFast, text: str):
    assert tokenizer.decode(encode(tokenizer, [text])[0]) == text
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@given(st.text())
def test_the_tokens_bytes_add_up_to_the_texts(tokenizer: PreTrainedTokenizerFast, text: str):
    sizes = token_bytes(tokenizer)
    assert sizes is not None
    assert sizes[encode(tokenizer, [text])[0]].sum() == len(text.encode())


def test_every_token_stands_for_its_bytes(tokenizer: PreTrainedTokenizerFast):
    sizes = token_bytes(tokenizer)
    assert sizes is not None
    assert sizes.shape == (len(tokenizer),)
    assert sizes[tokenizer.eos_token_id] == 0
    assert np.count_nonzero(sizes == 1) == 256
    assert sizes[tokenizer.get_vocab()["Ã©"]] == 2  # é: each of its bytes is written as a character


def test_what_looks_like_the_end_of_text_is_text(tokenizer: PreTrainedTokenizerFast):
    ids = encode(tokenizer, [f"a{END_OF_TEXT}b"])[0]
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids) == f"a{END_OF_TEXT}b"
    # and the tokenizer itself is left as it was
    assert tokenizer.eos_token_id in tokenizer(f"a{END_OF_TEXT}b")["input_ids"]


def test_truncation_and_padding_of_an_earlier_call_are_not_obeyed(tokenizer: PreTrainedTokenizerFast):
    texts = ["The old cat " * 20, "a"]
    ids, name = encode(tokenizer, texts), tokenizer_fingerprint(tokenizer)
    tokenizer(texts, truncation=True, max_length=8, padding="max_length")
    backend = tokenizer.backend_tokenizer
    left = (backend.truncation, backend.padding)
    assert all(left)
    assert encode(tokenizer, texts) == ids
    assert tokenizer_fingerprint(tokenizer) == name
    assert (backend.truncation, backend.padding) == left
    backend.no_truncation()
    backend.no_padding()


def test_one_special_token_begins_ends_and_pads(tokenizer: PreTrainedTokenizerFast):
    assert tokenizer.bos_token == tokenizer.eos_token == tokenizer.pad_token == END_OF_TEXT
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == tokenizer.bos_token_id == 0


def test_the_vocabulary_has_the_size_asked_for_or_what_the_text_gives(tokenizer: PreTrainedTokenizerFast):
    assert len(tokenizer) == 280
    assert len(train_tokenizer(["ab ab"], 300)) == 257 + 2  # "ab" and " ab" are all that repeats
    with pytest.raises(SettingsError, match=r"vocab_size 256 is below 257"):
        train_tokenizer(TEXTS, 256)


def test_the_same_text_gives_the_same_tokenizer(tokenizer: PreTrainedTokenizerFast):
    again = train_tokenizer(iter(TEXTS), 280)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(tokenizer)
    assert tokenizer_fingerprint(train_tokenizer(TEXTS, 279)) != tokenizer_fingerprint(tokenizer)


def test_saved_and_loaded_by_transformers_it_is_the_same(tokenizer: PreTrainedTokenizerFast, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(tokenizer)
    assert (loaded.eos_token_id, len(loaded)) == (0, 280)


def test_a_tokenizer_of_words_has_no_bytes():
    backend = Tokenizer(models.WordLevel(unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(
        ["a b c"], trainers.WordLevelTrainer(special_tokens=["?"], show_progress=False)
    )
    assert token_bytes(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="?")) is None
    backend.decoder = decoders.Sequence([decoders.ByteLevel()])  # a byte-level one need not be alone
    assert token_bytes(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="?")) is not None


def test_the_corpus_tokenizer_is_trained_once(small_corpus: str, monkeypatch: pytest.MonkeyPatch):
    first = tokenizer_for(small_corpus, 320)

    def refuse(texts: Iterator[str], vocab_size: int) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(laboratory, "train_tokenizer", refuse)
    assert tokenizer_fingerprint(tokenizer_for(small_corpus, 320)) == tokenizer_fingerprint(first)
    with pytest.raises(AssertionError, match="trained again"):
        tokenizer_for(small_corpus, 321)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40)), st.integers(0, 600))
def test_a_sample_is_within_its_size_and_in_order(texts: list[str], most: int):
    sample = list(even_sample(texts, most))
    assert sum(len(piece.encode()) for piece in sample) <= most
    rest = iter(texts)
    assert all(piece in rest for piece in sample)  # a subsequence
    if sum(len(text.encode()) for text in texts) <= most:
        assert sample == [text for text in texts if text]


def test_a_sample_is_spread_over_the_texts_and_cuts_long_ones():
    texts = [f"{number:04}" for number in range(1000)]
    assert list(even_sample(texts, 400)) == texts[9::10]
    long = "x" * 4096 + "y" * 4096
    assert list(even_sample([long], 5000)) == ["y" * 4096]
