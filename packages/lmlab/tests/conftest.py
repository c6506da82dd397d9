import json
from pathlib import Path

import pytest

WORDS = ["river", "stone", "model", "vector", "light", "window"]
WORDS += ["matrix", "garden", "signal", "number", "theory", "market"]


def sentence(number: int) -> str:
    """A sentence that no other number gives: the number in base 12, a digit a word."""
    digits = [number // 12**place % 12 for place in range(9)]
    return f"Case {number}: " + " ".join(WORDS[digit] for digit in digits) + "."


def document(number: int) -> str:
    return " ".join(sentence(7919 * number + row) for row in range(6)) + "\nÉté ☃ end."


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "small.jsonl"
    rows = [json.dumps({"text": document(number)}) for number in range(200)]
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return path


@pytest.fixture(scope="session")
def small_corpus(small_file: Path, tmp_path_factory: pytest.TempPathFactory):
    """The name of a small corpus, with a cache that all tests of a session share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENFOLD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield f"file:{small_file}"
