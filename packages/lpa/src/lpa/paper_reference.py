"""The paper's numbers, each with where it is from.

None has been compared with the paper's tables yet: the full text was not at hand. Who has it at hand corrects
them here and sets `verified`; documentation prints no number that is not.
"""

from __future__ import annotations

from dataclasses import dataclass

_ABSTRACT = "abstract of arXiv 2411.02063"


@dataclass(frozen=True)
class PaperNumber:
    """A number of the paper; `verified` once somebody has found it in the paper's own text or tables."""

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
