"""The guard: whether a text says of the result tables what is in them, whoever wrote it (section 2.8).

`check("PIGR is increased 3.5-fold (q = 0.013).", {"de": table}).status` is "verified", "contradicted",
"unsupported" or "no_claims". For many texts on the same tables make one `Guard`.
"""

from proteus_omics.hypotheses.guard.checking import Guard, GuardReport, check

__all__ = ["Guard", "GuardReport", "check"]
