"""What the paper says of its numbers, tested on the counts behind them.

The tests are of independent samples, since who was right on which question is not public: conservative for
models that answered the same questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Literal

from medxpertqa.errors import MedXpertQAError
from medxpertqa.paper.audit import check_tables
from medxpertqa.stats import Difference, Interval, diff_in_diff, two_proportion, wilson

Judgement = Literal["supported", "not shown", "contradicted"]

_VANILLA = (
    "GPT-4o",
    "Claude-3.5-Sonnet",
    "Gemini-1.5-Pro",
    "GPT-4o-mini",
    "Gemini-2.0-Flash",
    "Qwen2.5-VL-72B",
    "Qwen2-VL-72B",
)
_AGAINST = (("GPT-4o", "Text"), ("Claude-3.5-Sonnet", "MM"), ("GPT-4o-mini", "MM"))
_SCALED = (
    ("QwQ-32B-Preview", "Qwen2.5-32B", "Text"),
    ("QVQ-72B-Preview", "Qwen2-VL-72B", "MM"),
    ("DeepSeek-R1", "DeepSeek-V3", "Text"),
)
_EASIER = "Understanding is easier than Reasoning"


@dataclass(frozen=True)
class Verdict:
    """One statement for one model (pair) and subset: the number in percentage points, its interval, and p.

    "supported": in the stated direction with p < .05; "not shown": p is not; "contradicted": the printed
    numbers go the other way, or exclude what is said.
    """

    statement: str
    model: str
    subset: str
    value: float
    ci: Interval
    p_value: float
    verdict: Judgement


def check_claims() -> list[Verdict]:
    """Test the paper's statements about Tables 4 and 5 on the counts that `check_tables` finds."""
    counts = {row.model: (row.counts, row.sizes) for row in check_tables()}

    def share(model: str, places: tuple[int, ...]) -> tuple[int, int]:
        found, sizes = counts[model]
        if found is None:
            raise MedXpertQAError(f"the row of {model} has no single solution")
        return sum(found[place] for place in places), sum(sizes[place] for place in places)

    verdicts = []
    for model in _VANILLA:
        gap = two_proportion(*share(model, (1, 3)), *share(model, (0, 2)))
        verdicts.append(_verdict(_EASIER, model, "both", gap))
    for model, subset in _AGAINST:
        at = 0 if subset == "Text" else 2
        gap = two_proportion(*share(model, (at + 1,)), *share(model, (at,)))
        verdicts.append(_verdict(_EASIER, model, subset, gap))
    for scaled, plain, subset in _SCALED:
        at = 0 if subset == "Text" else 2
        a1, a0, b1, b0 = (share(model, (place,)) for model in (scaled, plain) for place in (at, at + 1))
        gap = diff_in_diff(a1, a0, b1, b0)
        statement = "Inference-time scaling helps Reasoning more"
        verdicts.append(_verdict(statement, f"{scaled} vs {plain}", subset, gap))
    verdicts.append(_at_chance(*share("Qwen2.5-32B", (0,))))
    return verdicts


def _verdict(statement: str, model: str, subset: str, gap: Difference) -> Verdict:
    judged: Judgement = "not shown" if gap.p_value >= 0.05 else "supported"
    if gap.difference < 0:
        judged = "contradicted"
    interval = Interval(100 * gap.ci.low, 100 * gap.ci.high)
    return Verdict(statement, model, subset, 100 * gap.difference, interval, gap.p_value, judged)


def _at_chance(k: int, n: int) -> Verdict:
    """The accuracy in % with Wilson's interval, and the exact binomial test against one in ten options."""
    p_value = _one_in_ten(k, n)
    low, high = wilson(k, n)
    judged: Judgement = "contradicted" if p_value < 0.05 else "not shown"
    statement = "Reasoning is nearly random"
    return Verdict(
        statement, "Qwen2.5-32B", "Text", 100 * k / n, Interval(100 * low, 100 * high), p_value, judged
    )


def _one_in_ten(k: int, n: int) -> float:
    """P of all counts that are no likelier than `k` of `n` at 1/10 each; whole numbers, so exact."""
    weights = [comb(n, i) * 9 ** (n - i) for i in range(n + 1)]
    return sum(weight for weight in weights if weight <= weights[k]) / 10**n
