"""The paper's numbers, each with where it is from.

The abstract was read, and all of these stand in it; the claims take theirs from here. The full text was not
at hand: no number of its tables is here, and none of these has been compared with them. Who has the tables
corrects them here and sets `verified`.
"""

from __future__ import annotations

from dataclasses import dataclass

_ABSTRACT = "abstract of arXiv 2411.02063"


@dataclass(frozen=True)
class PaperNumber:
    """A number of the paper; `verified` once somebody has compared it with the paper's tables."""

    statement: str
    value: float
    unit: str
    source: str
    verified: bool = False


PAPER_NUMBERS = {
    "training_time_saved": PaperNumber("training time saved by LPA, at most", 12.4, "%", _ABSTRACT),
    "perplexity_gain": PaperNumber(
        "better test perplexity and downstream results than the Transformer, about", 5.0, "%", _ABSTRACT
    ),
    "smallest_model": PaperNumber("parameters of the smallest model", 130e6, "", _ABSTRACT),
    "middle_model": PaperNumber("parameters of the middle model", 370e6, "", _ABSTRACT),
    "largest_model": PaperNumber("parameters of the largest model", 3e9, "", _ABSTRACT),
}
