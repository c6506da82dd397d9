"""The README's example runs as it stands, and does what plain attention does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from fope import apply_fope

README = Path(__file__).parents[1] / "README.md"


def test_the_example() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(code, names)
    cos, sin = names["cos"][:, :10], names["sin"][:, :10]
    k = apply_fope(names["k"].transpose(0, 1), cos, sin, 1.0)
    last = [table[:, 9:].repeat_interleave(4, 0) for table in (cos, sin)]
    q = apply_fope(names["q"].transpose(0, 1), *last, 1.0)
    k, v = (x.repeat_interleave(4, 0) for x in (k, names["v"].transpose(0, 1)))
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(names["out"], expected.transpose(0, 1), atol=2e-6, rtol=1e-5)
