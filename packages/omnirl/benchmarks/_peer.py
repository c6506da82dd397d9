"""xenoverse, the peer of the other scripts."""

from __future__ import annotations

import os
from typing import Any


def load_peer(script: str) -> Any:
    """Return xenoverse's module of tabular tasks, or None with a word on how to have it for `script`."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import xenoverse.anymdp as peer
    except ImportError:
        print(
            "xenoverse is not installed: our own numbers only. To compare, from the folder packages/omnirl: "
            "uv run --no-project --with . --with xenoverse==0.1.14.0 --with attrs --with networkx "
            f"--with matplotlib python benchmarks/{script}"
        )
        return None
    return peer
