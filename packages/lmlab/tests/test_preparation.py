import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmlab import CorpusError, documents, prepare
from lmlab.tokenizers import tokenizer_fingerprint


def test_everything_for_a_training_run(small_corpus: str):
    corpus = prepare(small_corpus, vocab_size=400, context_length=64)
    assert (corpus.name, corpus.context_length, len(corpus.tokenizer)) == (small_corpus, 64, 400)
    assert corpus.heldout is None
    assert corpus.train[0]["input_ids"].shape == (64,)
    start = documents(small_corpus, "train")[0]["text"][:100]
    assert corpus.tokenizer.decode(corpus.train[0]["input_ids"]).startswith(start[:50])
    assert len(corpus.valid) < len(corpus.train)
    started = time.monotonic()
    again = prepare(small_corpus, vocab_size=400, context_length=64)
    assert time.monotonic() - started < 1
    assert tokenizer_fingerprint(again.tokenizer) == tokenizer_fingerprint(corpus.tokenizer)


PREPARE = """
import sys
from lmlab import prepare
sys.stdin.readline()
corpus = prepare(sys.argv[1], 400, 64)
print(corpus.train.folder.stat().st_ino, int(corpus.train.tokens.sum(dtype="int64")), corpus.valid.num_bytes)
"""


def test_processes_that_ask_at_once_get_the_same(small_file: Path, empty_cache: Path):
    command = [sys.executable, "-c", PREPARE, f"file:{small_file}"]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = [process.communicate("\n")[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert answers[0] == answers[1] != ""
    kinds = {folder.name: list(folder.glob("[!.]*")) for folder in (empty_cache / "lmlab").iterdir()}
    assert {kind: len(folders) for kind, folders in kinds.items()} == {
        "corpora": 1,
        "tokenizers": 1,
        "tokens": 2,
    }
    assert all("small-jsonl" in folder.name for folders in kinds.values() for folder in folders)
    assert list(empty_cache.glob("lmlab/*/.*.partial")) == []


def test_a_changed_file_is_read_again(tmp_path: Path, empty_cache: Path):
    path = tmp_path / "mine.txt"
    texts = [
        "The first text, of no great length.\n\n" * 200,
        "Another text. It is a bit different.\n\n" * 200,
    ]
    found = []
    for text in texts:
        path.write_text(text)
        corpus = prepare(f"file:{path}", 300, 16)
        found.append(corpus.tokenizer.decode(corpus.train.tokens[:64].tolist()))
    assert found[0].startswith("The first text")
    assert found[1].startswith("Another text.")


def test_a_corpus_without_training_text_cannot_be_prepared():
    with pytest.raises(CorpusError, match=r"wikitext2 has no split 'train'; it has valid, heldout"):
        prepare("wikitext2", 300, 16)
