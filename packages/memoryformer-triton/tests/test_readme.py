"""The README's example runs as it stands, and gives what the definition does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from memoryformer_triton import reference

README = Path(__file__).parents[1] / "README.md"


def test_the_example() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(code, names)
    z, tables, bias = (names[name].detach() for name in ("z", "tables", "bias"))
    wanted = reference.lookup(z.flatten(0, 1), tables, bias, None, "scaled", 1.0)
    torch.testing.assert_close(names["y"].detach().flatten(0, 1), wanted, atol=1e-5, rtol=1e-5)
    assert names["tables"].grad.shape == tables.shape
