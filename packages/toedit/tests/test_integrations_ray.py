"""Ray Data on this machine, two actors: byte for byte what one process gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toedit import EditConfig, Editor
from toedit.integrations.ray import EditBatch

ray = pytest.importorskip("ray")

CONFIG = EditConfig(threshold=1e-4, temperature=3.0, seed=5)
ROWS = [{"id": f"d{n}", "text": f"the cat sat on mat {n}, hello world " * (1 + n % 4)} for n in range(24)]


@pytest.mark.long  # two processes start torch and transformers
def test_two_actors_give_the_texts_of_one_process(tmp_path: Path, tiny_llama: Any, tokenizer: Any) -> None:
    import ray.data

    tiny_llama().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        edited = ray.data.from_items(ROWS, override_num_blocks=4).map_batches(
            EditBatch,
            fn_constructor_kwargs={"model": str(tmp_path), "config": CONFIG},
            concurrency=2,
            batch_size=6,
        )
        texts = {row["id"]: row["text"].encode() for row in edited.iter_rows()}
    finally:
        ray.shutdown()
    results = Editor.from_pretrained(str(tmp_path), CONFIG).edit_batch(
        [row["text"] for row in ROWS], [row["id"] for row in ROWS]
    )
    assert texts == {result.doc_id: result.text.encode() for result in results}
    assert sum(result.n_changed for result in results) > 20
