"""What is shipped and what is known to be sound are the same, before anything is compiled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden_kernels.json"


def test_every_tile_is_in_the_golden_table() -> None:
    script = (
        "import json; from implicit_prm_triton.aot import entries;"
        "print(json.dumps([[s.name, s.dtype, s.head_dim, s.target] for s in entries()]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shipped = [tuple(key) for key in json.loads(done.stdout)]
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["rows"]
    assert len(shipped) == len(set(shipped))
    assert set(shipped) == {(row["kernel"], row["dtype"], row["head_dim"], row["target"]) for row in golden}
    assert all(row["spill_bytes"] == 0 for row in golden)
    products = [row for row in golden if row["kernel"] == "log_sum_exp" and row["dtype"] != "fp32"]
    assert all(row["tensor_core"] for row in products)
