"""`ImplicitPRM`: a policy, its reference and beta; rewards for anyone's responses from their ratio."""

from __future__ import annotations

from implicit_prm.responses import ScoredResponse

__all__ = ["ScoredResponse"]
