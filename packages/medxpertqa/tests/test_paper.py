from __future__ import annotations

import pytest
from scipy.stats import binomtest

from medxpertqa import paper

ROWS = {row.model: row for row in paper.check_tables()}
VERDICTS = {(found.model, found.subset): found for found in paper.check_claims()}


def test_seventeen_rows_have_exactly_one_solution() -> None:
    assert len(ROWS) == 18
    assert [name for name, row in ROWS.items() if row.counts is None] == ["LLaMA-3-70B-UltraMedical"]
    assert ROWS["GPT-4o"].counts == (570, 174, 589, 267)
    assert ROWS["o1"].counts == (86, 23, 76, 36)
    assert ROWS["DeepSeek-R1"].counts == (705, 220)


def test_table_8_has_the_text_accuracies_of_tables_4_and_5() -> None:
    text = {row.model: row.percents["text"] for row in paper.MODELS}
    models = ("Qwen2.5-72B", "GPT-4o", "o1", "DeepSeek-R1")
    assert paper.OTHER_BENCHMARKS["MedXpertQA Text"] == tuple(text[model] for model in models)


def test_table_6_falls_in_likeness_where_perplexity_rises() -> None:
    before, after = zip(*paper.LEAKAGE.values(), strict=True)
    assert [one < two for one, two in zip(before, after, strict=True)] == [True, False, False]


def test_the_impossible_row_has_one_repair() -> None:
    row = ROWS["LLaMA-3-70B-UltraMedical"]
    assert not row.consistent
    assert row.repairs == (paper.Repair("text_reasoning", 22.03, 410, 1861),)


def test_the_claims_are_judged_as_listed() -> None:
    by_verdict: dict[str, int] = {}
    for found in VERDICTS.values():
        by_verdict[found.verdict] = by_verdict.get(found.verdict, 0) + 1
    assert by_verdict == {"supported": 7, "not shown": 3, "contradicted": 4}


@pytest.mark.parametrize(
    ("model", "p_value"),
    [
        ("GPT-4o", 0.032),
        ("Claude-3.5-Sonnet", 0.023),
        ("Gemini-1.5-Pro", 0.010),
        ("GPT-4o-mini", 0.20),
        ("Gemini-2.0-Flash", 0.013),
        ("Qwen2.5-VL-72B", 0.33),
    ],
)
def test_pooled_gaps_have_the_listed_p_values(model: str, p_value: float) -> None:
    found = VERDICTS[model, "both"]
    assert found.value > 0
    assert found.p_value == pytest.approx(p_value, abs=0.0051 if p_value > 0.1 else 0.00051)


@pytest.mark.parametrize(
    ("model", "subset", "gap"),
    [("GPT-4o", "Text", -1.09), ("Claude-3.5-Sonnet", "MM", -0.48), ("GPT-4o-mini", "MM", -0.60)],
)
def test_three_cells_go_the_other_way(model: str, subset: str, gap: float) -> None:
    found = VERDICTS[model, subset]
    assert (found.verdict, round(found.value, 2)) == ("contradicted", gap)


@pytest.mark.parametrize(
    ("model", "subset", "value", "low", "high"),
    [
        ("QwQ-32B-Preview vs Qwen2.5-32B", "Text", 7.22, 2.32, 12.13),
        ("QVQ-72B-Preview vs Qwen2-VL-72B", "MM", 8.94, 2.44, 15.44),
        ("DeepSeek-R1 vs DeepSeek-V3", "Text", 1.58, -4.4, 7.6),
    ],
)
def test_differences_of_differences(model: str, subset: str, value: float, low: float, high: float) -> None:
    found = VERDICTS[model, subset]
    assert found.value == pytest.approx(value, abs=0.0051)
    assert found.ci == pytest.approx((low, high), abs=0.051)


def test_qwen_is_not_at_chance() -> None:
    found = VERDICTS["Qwen2.5-32B", "Text"]
    assert found.value == pytest.approx(100 * 261 / 1861)
    assert found.ci == pytest.approx((12.5, 15.7), abs=0.051)
    assert found.p_value == pytest.approx(binomtest(261, 1861, 0.1).pvalue)


def test_the_construction_table_adds_up() -> None:
    totals = [sum(counts) for counts in paper.CONSTRUCTION.values()]
    assert totals == [37543, 10146, 4737, 4713, 4683, 4460]
