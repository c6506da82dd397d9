"""E2: the published tables solved in whole answers, and the paper's statements against the listed verdicts.

`LISTED` is section 1.3 of the specification, older than this package; a number agrees if it has the listed
digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from medxpertqa.paper import Verdict, check_claims, check_tables

REPAIRED = "LLaMA-3-70B-UltraMedical"


@dataclass(frozen=True)
class Listed:
    """A statement's verdict and the printed numbers: gap or accuracy in %, its interval, and p."""

    model: str
    subset: str
    verdict: str
    value: str = ""
    low: str = ""
    high: str = ""
    p_value: str = ""

    def agrees(self, found: Verdict) -> bool:
        """Whether the verdict is this one, and every number that is listed has these digits."""
        numbers = (
            (self.value, found.value),
            (self.low, found.ci.low),
            (self.high, found.ci.high),
            (self.p_value, found.p_value),
        )
        return self.verdict == found.verdict and all(same_digits(shown, ours) for shown, ours in numbers)


LISTED = (
    Listed("GPT-4o", "both", "supported", p_value="0.032"),
    Listed("Claude-3.5-Sonnet", "both", "supported", p_value="0.023"),
    Listed("Gemini-1.5-Pro", "both", "supported", p_value="0.010"),
    Listed("GPT-4o-mini", "both", "not shown", p_value="0.20"),
    Listed("Gemini-2.0-Flash", "both", "supported", p_value="0.013"),
    Listed("Qwen2.5-VL-72B", "both", "not shown", p_value="0.33"),
    Listed("Qwen2-VL-72B", "both", "supported", p_value="< 0.0001"),
    Listed("GPT-4o", "Text", "contradicted", "-1.09"),
    Listed("Claude-3.5-Sonnet", "MM", "contradicted", "-0.48"),
    Listed("GPT-4o-mini", "MM", "contradicted", "-0.60"),
    Listed("QwQ-32B-Preview vs Qwen2.5-32B", "Text", "supported", "7.22", "2.32", "12.13"),
    Listed("QVQ-72B-Preview vs Qwen2-VL-72B", "MM", "supported", "8.94", "2.44", "15.44"),
    Listed("DeepSeek-R1 vs DeepSeek-V3", "Text", "not shown", "1.58", "-4.4", "7.6"),
    Listed("Qwen2.5-32B", "Text", "contradicted", "14.02", "12.5", "15.7", "4E-8"),
)


def same_digits(shown: str, value: float) -> bool:
    """Whether a number reads as shown, to the shown digits; "< x" holds below x, and "" for any number."""
    if shown.startswith("<"):
        return value < float(shown[1:])
    if not shown:
        return True
    return Decimal(value).quantize(Decimal(shown)) == Decimal(shown)


def audit_metrics() -> dict[str, float]:
    """How many rows have one solution, how many none, the repair; in how many statements we differ."""
    rows = check_tables()
    repairs = [repair.percent for row in rows if row.model == REPAIRED for repair in row.repairs]
    found = {(verdict.model, verdict.subset): verdict for verdict in check_claims()}
    listed = {(entry.model, entry.subset): entry for entry in LISTED}
    wrong = set(found) ^ set(listed)
    wrong |= {key for key in set(found) & set(listed) if not listed[key].agrees(found[key])}
    return {
        "unique_rows": sum(row.counts is not None for row in rows),
        "impossible_rows": sum(not row.consistent for row in rows),
        "ultramedical_repair": repairs[0] if len(repairs) == 1 else float("nan"),
        "claim_table_entries": len(listed),
        "claim_table_differences": len(wrong),
    }
