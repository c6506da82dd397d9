"""Tables 1, 4, 5, 6 and 8 of the paper (arXiv 2501.18362v3), as printed: accuracies in %."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FULL = (1861, 589, 1446, 554)
SAMPLED = (186, 58, 144, 55)
"""Questions by cell: Text Reasoning, Text Understanding, MM Reasoning, MM Understanding."""

CELLS = ("text_reasoning", "text_understanding", "mm_reasoning", "mm_understanding")
COLUMNS: dict[str, tuple[int, ...]] = {
    "text_reasoning": (0,),
    "text_understanding": (1,),
    "text": (0, 1),
    "mm_reasoning": (2,),
    "mm_understanding": (3,),
    "mm": (2, 3),
    "reasoning": (0, 2),
    "understanding": (1, 3),
    "average": (0, 1, 2, 3),
}
"""Which cells a column pools, in the order of Table 4; Table 5 has the first three."""

CONSTRUCTION = {
    "collected": (10868, 26675),
    "human filter": (5133, 5013),
    "AI filter": (2125, 2612),
    "edit distance": (2121, 2592),
    "semantic similarity": (2105, 2578),
    "expert review": (2005, 2455),
}
"""Table 1: questions (MM, Text) that each stage left."""


@dataclass(frozen=True)
class Published:
    """One row: the model, the table, the printed percentages by column, and how many questions a cell has."""

    model: str
    table: int
    percents: Mapping[str, float] = field(hash=False)
    sizes: tuple[int, int, int, int] = FULL


def _row(model: str, *percents: float, sizes: tuple[int, int, int, int] = FULL) -> Published:
    return Published(model, 4 if len(percents) == 9 else 5, dict(zip(COLUMNS, percents, strict=False)), sizes)


HUMAN = _row("Expert (pre-licensed)", 41.74, 45.44, 42.60, 45.76, 44.97, 45.53, 43.48, 45.20, 43.92)
"""A mean of shares of exam takers, so no count of right answers stands behind it."""

MODELS = (
    _row("o1", 46.24, 39.66, 44.67, 52.78, 65.45, 56.28, 49.09, 52.21, 49.89, sizes=SAMPLED),
    _row("QVQ-72B-Preview", 22.08, 20.71, 21.76, 33.54, 33.57, 33.55, 27.09, 26.95, 27.06),
    _row("GPT-4o", 30.63, 29.54, 30.37, 40.73, 48.19, 42.80, 35.05, 38.58, 35.96),
    _row("Claude-3.5-Sonnet", 19.88, 25.81, 21.31, 33.33, 32.85, 33.20, 25.76, 29.22, 26.65),
    _row("Gemini-1.5-Pro", 19.18, 21.22, 19.67, 32.85, 37.36, 34.10, 25.16, 29.05, 26.16),
    _row("GPT-4o-mini", 17.09, 20.20, 17.84, 28.22, 27.62, 28.05, 21.95, 23.80, 22.43),
    _row("Gemini-2.0-Flash", 20.53, 20.71, 20.57, 35.48, 41.70, 37.20, 27.06, 30.88, 28.04),
    _row("Qwen2.5-VL-72B", 17.89, 18.17, 17.96, 29.53, 31.05, 29.95, 22.98, 24.41, 23.35),
    _row("Qwen2-VL-72B", 16.39, 18.68, 16.94, 25.86, 34.84, 28.35, 20.53, 26.51, 22.07),
    _row("o3-mini", 37.63, 36.21, 37.30, sizes=SAMPLED),
    _row("DeepSeek-R1", 37.88, 37.35, 37.76),
    _row("QwQ-32B-Preview", 18.70, 15.79, 18.00),
    _row("DeepSeek-V3", 23.91, 24.96, 24.16),
    _row("Claude-3.5-Haiku", 16.71, 21.05, 17.76),
    _row("LLaMA-3.3-70B", 23.86, 26.49, 24.49),
    _row("LLaMA-3-70B-UltraMedical", 20.03, 21.05, 21.80),
    _row("Qwen2.5-72B", 18.54, 20.03, 18.90),
    _row("Qwen2.5-32B", 14.02, 18.34, 15.06),
)
"""The models of Table 4, then those of Table 5 (Text alone)."""

LEAKAGE = {
    "perplexity": (1.03e218, 1.35e247),
    "ROUGE-L": (0.1893, 0.1664),
    "edit similarity": (0.2691, 0.2416),
}
"""Table 6: GPT-4o on the questions (before, after rewriting).

The perplexities are those of whole outputs: `medxpertqa.leakage` gives them as logarithms.
"""

OTHER_BENCHMARKS = {
    "MedQA": (72.70, 84.40, 96.00, 92.38),
    "MMLU-Med": (89.62, 91.90, 95.30, 94.12),
    "MedMCQA-dev": (66.20, 76.40, 83.90, 79.12),
    "MedXpertQA Text": (18.90, 30.37, 44.67, 37.76),
}
"""Table 8: accuracies of Qwen2.5-72B, GPT-4o, o1 (elsewhere o1-preview) and DeepSeek-R1."""
