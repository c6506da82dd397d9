"""The step under datatrove's local executor gives what the editor gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.writers.disk_base import DiskWriter

from toedit import EditConfig, Editor
from toedit.integrations.datatrove import TokenEditor

CONFIG = EditConfig(threshold=1e-4, temperature=3.0, seed=5)
ROWS: list[dict[str, Any]] = [
    {"id": f"d{n}", "text": f"the cat sat on mat {n}, hello world", "n": n} for n in range(8)
]
BAD: dict[str, Any] = {"id": "bad", "text": "half \ud800", "n": -1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Any, tokenizer: Any) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny_llama().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.iterdir()) for line in file.read_text().splitlines()]


def read(data: Any, rank: int, world_size: int) -> Iterator[Document]:
    """A reader of two files, one a rank; datatrove's for JSON lines need one library more."""
    for row in ((*ROWS[:3], BAD), ROWS[3:])[rank]:
        yield Document(row["text"], row["id"], metadata={"n": row["n"]})


class LinesWriter(DiskWriter):
    """As datatrove's JsonlWriter."""

    name = "lines"
    default_output_filename = "${rank}.jsonl"

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder), mode="wb")

    def _write(self, document: dict[str, Any], file_handler: Any, filename: str) -> None:
        file_handler.write(json.dumps(document).encode() + b"\n")


def test_two_tasks_give_the_texts_of_one_editor_and_run_once(model: str, tmp_path: Path) -> None:
    def run() -> Any:
        excluded = LinesWriter(tmp_path / "excluded")
        executor = LocalPipelineExecutor(
            pipeline=[
                read,
                TokenEditor(model, CONFIG, provenance=True, exclusion_writer=excluded),
                LinesWriter(tmp_path / "out"),
            ],
            tasks=2,
            workers=1,
            logging_dir=str(tmp_path / "logs"),
        )
        return executor.run()

    stats = run()
    results = Editor.from_pretrained(model, CONFIG).edit_batch(
        [str(row["text"]) for row in ROWS], [str(row["id"]) for row in ROWS]
    )
    found = rows_of(tmp_path / "out")
    assert [(row["id"], row["text"]) for row in found] == [(r.doc_id, r.text) for r in results]
    assert [row["metadata"]["n"] for row in found] == list(range(8))
    assert [len(row["metadata"]["toedit_edits"]) for row in found] == [len(r.edits) for r in results]
    counted = stats.stats[0].stats
    assert counted["n_changed"].total == sum(r.n_changed for r in results) > 0
    assert counted["n_failed"].total == 1
    (bad,) = rows_of(tmp_path / "excluded")
    assert "no valid Unicode" in bad["metadata"]["toedit_error"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    run()  # the completion markers of the first run say that nothing is to do
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
