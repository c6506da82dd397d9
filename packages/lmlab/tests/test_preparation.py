import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmlab import CorpusError, documents, prepare
from lmlab.cache import built_once
from lmlab.tokenizers import tokenizer_fingerprint


def built_before(kind: str, name: str, key: str, build: Callable[[Path], None]) -> Path:
    return built_once(kind, name, key, lambda folder: pytest.fail(f"{kind} of {name} were built again"))


def test_everything_for_a_training_run(small_corpus: str, monkeypatch: pytest.MonkeyPatch):
    corpus = prepare(small_corpus, vocab_size=400, context_length=64)
    assert (corpus.name, corpus.context_length, len(corpus.tokenizer)) == (small_corpus, 64, 400)
    assert corpus.heldout is None
    assert corpus.train[0]["input_ids"].shape == (64,)
    start = documents(small_corpus, "train")[0]["text"][:100]
    assert corpus.tokenizer.decode(corpus.train[0]["input_ids"]).startswith(start[:50])
    assert len(corpus.valid) < len(corpus.train)
    for module in ("packing", "stored_corpus", "tokenizers"):
        monkeypatch.setattr(f"lmlab.{module}.built_once", built_before)
    again = prepare(small_corpus, vocab_size=400, context_length=64)
    assert tokenizer_fingerprint(again.tokenizer) == tokenizer_fingerprint(corpus.tokenizer)


# One process imports everything, which takes seconds, and becomes two.
PREPARE = """
import os, sys
from lmlab import prepare
other = os.fork()
corpus = prepare(sys.argv[1], 400, 64)
inode, tokens = corpus.train.folder.stat().st_ino, int(corpus.train.tokens.sum(dtype="int64"))
os.write(1, f"{inode} {tokens} {corpus.valid.num_bytes}\\n".encode())
if other:
    sys.exit(os.waitpid(other, 0)[1] != 0)
"""


@pytest.mark.slow
def test_processes_that_ask_at_once_get_the_same(small_file: Path, empty_cache: Path):
    command = [sys.executable, "-c", PREPARE, f"file:{small_file}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    one, two = ended.stdout.splitlines()
    assert one == two
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
