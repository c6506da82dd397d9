"""The README's example runs as it stands, and gives what the definition does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from implicit_prm_triton import reference

README = Path(__file__).parents[1] / "README.md"


def test_the_example() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(code, names)
    hidden, weight = (names[name].detach() for name in ("hidden", "weight"))
    wanted = reference.linear_log_probs(hidden, weight, names["targets"])
    torch.testing.assert_close(names["log_probs"].detach(), wanted, atol=1e-5, rtol=1e-5)
    assert names["weight"].grad.shape == weight.shape
