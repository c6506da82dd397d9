import itertools
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from lmlab import CorpusError, TokenBlocks, documents, pack
from lmlab.errors import SettingsError
from lmlab.tokenizers import END_OF_TEXT, tokenizer_for


@pytest.fixture(scope="module")
def tokenizer(small_corpus: str) -> PreTrainedTokenizerFast:
    return tokenizer_for(small_corpus, 400)


@pytest.fixture(scope="module")
def blocks(small_corpus: str, tokenizer: PreTrainedTokenizerFast) -> TokenBlocks:
    return pack(small_corpus, "train", tokenizer, 32)


def text_of(blocks: TokenBlocks, tokenizer: PreTrainedTokenizerFast) -> str:
    return tokenizer.decode(np.concatenate([block["input_ids"] for block in blocks]))


def test_the_blocks_are_the_documents_each_with_an_end(
    small_corpus: str, tokenizer: PreTrainedTokenizerFast, blocks: TokenBlocks
):
    whole = "".join(text + END_OF_TEXT for text in documents(small_corpus, "train")["text"])
    assert len(tokenizer(whole)["input_ids"]) // 32 == len(blocks)  # only the part of a block is missing
    assert whole.startswith(text_of(blocks, tokenizer).rstrip("\ufffd"))  # a cut may fall inside a character


def test_a_block_is_its_own_labels(blocks: TokenBlocks):
    block = blocks[3]
    assert set(block) == {"input_ids", "labels"}
    assert torch.equal(block["input_ids"], block["labels"])
    assert block["input_ids"].dtype == torch.int64
    assert block["input_ids"].shape == (32,)
    block["input_ids"][0] = -1  # what a caller does to a block stays with the caller
    assert block["labels"][0] != -1
    assert blocks[3]["input_ids"][0] != -1


def test_tokens_are_the_blocks_in_a_row_on_disk(blocks: TokenBlocks):
    assert isinstance(blocks.tokens, np.memmap)
    assert blocks.tokens.dtype == np.uint16
    assert blocks.tokens.shape == (len(blocks) * 32,)
    np.testing.assert_array_equal(blocks.tokens[64:96], blocks[2]["input_ids"])


def test_bytes_are_counted_without_the_ends_of_documents(
    blocks: TokenBlocks, tokenizer: PreTrainedTokenizerFast
):
    end = next(i for i in range(32 * len(blocks)) if blocks.tokens[i] == tokenizer.eos_token_id)
    part = blocks.slice(0, end // 32 + 1)
    raw = sum(
        len(tokenizer.convert_ids_to_tokens(int(token)))  # a character a byte
        for token in part.tokens
        if token != tokenizer.eos_token_id
    )
    assert part.num_bytes == raw
    assert part.bytes_per_token == raw / (32 * len(part))


def test_bytes_of_slices_add_up(blocks: TokenBlocks):
    cuts = [0, 1, 7, len(blocks)]
    parts = [blocks.slice(a, b) for a, b in itertools.pairwise(cuts)]
    assert sum(part.num_bytes for part in parts) == blocks.num_bytes
    assert blocks.slice(5, 5).num_bytes == 0
    assert blocks.slice(5, 5).bytes_per_token is None


def test_all_bytes_are_there(small_corpus: str, tokenizer: PreTrainedTokenizerFast):
    texts = documents(small_corpus, "valid")["text"]
    blocks = pack(small_corpus, "valid", tokenizer, 2)  # at most one token is left out, here an end
    assert blocks.num_bytes == sum(len(text.encode()) for text in texts)


def test_halves_share_no_block(blocks: TokenBlocks):
    half = len(blocks) // 2
    first, second = blocks.halves(3, 10**6)
    assert (len(first), len(second)) == (3, half)
    assert torch.equal(first[0]["input_ids"], blocks[0]["input_ids"])
    assert torch.equal(second[0]["input_ids"], blocks[half]["input_ids"])
    assert [len(part) for part in blocks.halves(10**6, 0)] == [half, 0]


def test_slices(blocks: TokenBlocks):
    part = blocks.slice(4, 9).slice(1, 3)
    assert len(part) == 2
    assert torch.equal(part[0]["input_ids"], blocks[5]["input_ids"])
    assert torch.equal(part[-1]["input_ids"], blocks[6]["input_ids"])
    assert len(list(part)) == 2
    for start, stop in [(-1, 2), (3, 2), (0, len(blocks) + 1)]:
        with pytest.raises(IndexError, match=f"blocks {start} to {stop} of {len(blocks)}"):
            blocks.slice(start, stop)
    with pytest.raises(IndexError, match="block 2 of 2"):
        part[2]


def test_a_copy_maps_the_same_file(blocks: TokenBlocks):
    part = blocks.slice(2, 6)
    assert len(pickle.dumps(part)) < 1000
    copy = pickle.loads(pickle.dumps(part))
    assert copy.tokens.filename == part.tokens.filename
    np.testing.assert_array_equal(copy.tokens, part.tokens)


@pytest.mark.slow
def test_batches_come_from_spawned_processes(blocks: TokenBlocks):
    loader = torch.utils.data.DataLoader(
        blocks.slice(0, 6), batch_size=3, num_workers=1, multiprocessing_context="spawn"
    )
    rows = torch.cat([batch["input_ids"] for batch in loader])
    np.testing.assert_array_equal(rows.flatten(), blocks.slice(0, 6).tokens)


def test_all_context_lengths_share_one_file(
    small_corpus: str, tokenizer: PreTrainedTokenizerFast, blocks: TokenBlocks
):
    longer = pack(small_corpus, "train", tokenizer, 48)
    assert longer.folder == blocks.folder
    np.testing.assert_array_equal(longer[0]["input_ids"][:32], blocks[0]["input_ids"])
    assert len(longer) == len(np.load(blocks.folder / "tokens.npy")) // 48


def test_another_tokenizer_or_split_has_its_own_file(small_corpus: str, blocks: TokenBlocks):
    other = pack(small_corpus, "train", tokenizer_for(small_corpus, 401), 32)
    assert other.folder != blocks.folder
    assert pack(small_corpus, "valid", tokenizer_for(small_corpus, 400), 32).folder != blocks.folder


def word_tokenizer(words: int) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel(unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=words, special_tokens=["?"], show_progress=False)
    backend.train_from_iterator([" ".join(f"w{number}" for number in range(words - 1))], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="?")


@pytest.mark.parametrize(("size", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)])
def test_large_vocabularies_take_four_bytes(small_corpus: str, size: int, dtype: type):
    words = word_tokenizer(size)
    assert len(words) == size
    blocks = pack(small_corpus, "valid", words, 8)
    assert blocks.tokens.dtype == dtype
    assert blocks.num_bytes is None  # words and bytes do not match up
    assert blocks.bytes_per_token is None


def test_text_shorter_than_a_block_is_an_error_with_both_numbers(
    small_corpus: str, tokenizer: PreTrainedTokenizerFast
):
    have = len(np.load(pack(small_corpus, "valid", tokenizer, 2).folder / "tokens.npy"))
    with pytest.raises(CorpusError, match=rf"has {have} tokens, fewer than one block of 1000000"):
        pack(small_corpus, "valid", tokenizer, 1_000_000)


def test_impossible_requests(small_corpus: str, tokenizer: PreTrainedTokenizerFast):
    with pytest.raises(SettingsError, match="context_length is 1"):
        pack(small_corpus, "train", tokenizer, 1)
    with pytest.raises(CorpusError, match=r"no split 'heldout'; it has train, valid"):
        pack(small_corpus, "heldout", tokenizer, 32)
    without = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(SettingsError, match="no eos_token"):
        pack(small_corpus, "train", without, 32)
    with pytest.raises(SettingsError, match="ByT5Tokenizer is not a fast tokenizer"):
        pack(small_corpus, "train", ByT5Tokenizer(), 32)


def test_blank_documents_are_left_out(tmp_path: Path, empty_cache: Path, tokenizer: PreTrainedTokenizerFast):
    texts = [f"text {number}" for number in range(9)] + [" " * number + "\n" for number in range(9)]
    path = tmp_path / "blank.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    train = [text.strip() for text in documents(f"file:{path}", "train")["text"]]
    assert "" in train
    tokens = np.load(pack(f"file:{path}", "train", tokenizer, 2).folder / "tokens.npy")
    assert np.count_nonzero(tokens == tokenizer.eos_token_id) == len([text for text in train if text])
