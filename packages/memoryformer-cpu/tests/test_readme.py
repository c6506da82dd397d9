"""The README's example runs as it stands, and gives what the definition does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

README = Path(__file__).parents[1] / "README.md"


def test_the_example() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(code, names)
    z, tables = names["z"].detach(), names["tables"].detach()
    # The signs of a chunk are its row's number, the first the highest bit; its weight is the product of
    # sigmoid(2 |z|), times the sum of |z| (score "scaled", the default).
    rows = ((z >= 0) * 2 ** torch.arange(7, -1, -1)).sum(-1)
    weights = torch.sigmoid(2 * z.abs()).prod(-1) * z.abs().sum(-1)
    wanted = torch.stack([w @ tables[torch.arange(96), row] for w, row in zip(weights, rows, strict=True)])
    torch.testing.assert_close(names["y"].detach(), wanted, atol=1e-4, rtol=1e-5)
    fetched = torch.zeros(96, 2**8, dtype=torch.bool)
    fetched[torch.arange(96), rows] = True
    assert torch.equal(names["tables"].grad.abs().sum(-1) > 0, fetched)
