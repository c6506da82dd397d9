"""The guard: what it makes of sentences, and how many changed sentences get past it."""

from __future__ import annotations

import pandas as pd
import pytest

from proteus_omics.hypotheses.guard import check
from proteus_omics.hypotheses.guard.numbers import numbers, states

DE = pd.DataFrame(
    {
        "protein": ["P01833", "O95445", "P02790", "P13671", "P01024"],
        "gene": ["PIGR", "APOM", "HPX", "C6", "C3"],
        "contrast": "cirrhosis_vs_healthy",
        "log2fc": [1.8234, -0.53, -0.2, 0.9, -1.2],
        "ci_low": [0.1, -0.9, -0.7, 0.0, -2.1],
        "ci_high": [2.2, -0.2, 0.3, 1.8, -0.3],
        "p_value": [0.0004, 0.0001, 0.4, 0.01, 0.002],
        "q_value": [0.0131, 0.0048, 0.6, 0.049, 0.02],
    }
)
GSEA = pd.DataFrame(
    {
        "term": ["COAGULATION", "GO:0006955"],
        "contrast": "cirrhosis_vs_healthy",
        "nes": [-1.68, 1.21],
        "p_value": [0.001, 0.2],
        "q_value": [0.01, 0.4],
    }
)
SENTENCES = [
    ("PIGR is increased 3.5-fold (q = 0.013).", "verified"),
    ("PIGR is increased 3.6-fold (q = 0.013).", "contradicted"),
    ("PIGR is decreased 3.5-fold.", "contradicted"),
    ("PIGR is not increased.", "contradicted"),
    ("APOM is decreased by 31 % in cirrhosis.", "verified"),
    ("APOM is lower in cirrhosis than in healthy (log2 fold change \u22120.53).", "verified"),
    ("APOM is lower in healthy than in cirrhosis.", "contradicted"),
    ("APOM is higher in healthy.", "verified"),
    ("C6 is up (0.90 log2, q = 0.049).", "verified"),
    ("HPX is not significantly changed.", "verified"),
    ("HPX is significantly decreased.", "contradicted"),
    ("The most increased protein is PIGR.", "verified"),
    ("The most decreased protein is APOM.", "contradicted"),
    ("The most decreased protein is C3.", "verified"),
    ("The most significant protein is APOM.", "verified"),
    ("The most significant protein is PIGR.", "contradicted"),
    ("PIGR is increased while APOM is decreased (q = 0.0048).", "verified"),
    ("PIGR is increased while APOM is decreased (q = 0.0131).", "contradicted"),
    ("Two proteins are increased and 2 proteins are decreased in cirrhosis at q < 0.05.", "verified"),
    ("3 proteins are increased in cirrhosis.", "contradicted"),
    ("PIGR is increased (log2 fold change 1.82, 95 % CI 0.1 to 2.2, q = 1.3 x 10^-2).", "verified"),
    ("The gene set COAGULATION is lower in cirrhosis (NES -1.68, q = 0.010).", "verified"),
    ("The gene set GO:0006955 is higher in cirrhosis (NES -1.68).", "contradicted"),
    ("PIGR is increased tenfold (q = 0.013).", "contradicted"),
    ("PIGR is increased ten-fold (q = 0.013).", "contradicted"),
    ("PIGR is increased fourfold (q = 0.013).", "verified"),
    ("PIGR is four times as high in cirrhosis as in healthy.", "verified"),
    ("PIGR is doubled in cirrhosis (q = 0.013).", "contradicted"),
    ("PIGR is tripled in cirrhosis (q = 0.013).", "contradicted"),
    ("C3 is halved in cirrhosis (q = 0.020).", "verified"),
    ("C3 is doubled in cirrhosis (q = 0.020).", "contradicted"),
    ("C6 is twice as high in cirrhosis (q = 0.049).", "verified"),
    ("PIGR is increased in step 9 (q = 0.013).", "unsupported"),
    ("PIGR is increased in analysis 9.87 (q = 0.013).", "unsupported"),
    ("PIGR is increased (log 9.87, q = 0.013).", "unsupported"),
    ("PIGR is increased (57 % CI 0.1 to 2.2, q = 0.013).", "contradicted"),
    ("PIGR is increased (Figure 2 and table 3, log 2 fold change 1.82, q = 0.013).", "verified"),
    ("TP53 is increased.", "unsupported"),
    ("PIGR has a half life of 4.5 days in cirrhosis and is increased.", "unsupported"),
    ("PIGR is increased and causes cirrhosis.", "unsupported"),
    ("PIGR, increased here, is a receptor.", "unsupported"),
    ("The samples were measured with care.", "no_claims"),
]


@pytest.mark.parametrize(("text", "status"), SENTENCES)
def test_the_verdict_on_a_sentence(text: str, status: str) -> None:
    report = check(text, {"de": DE, "gsea": GSEA})
    assert report.status == status, report.findings


def test_a_verified_number_names_its_cell() -> None:
    (finding,) = [one for one in check("PIGR: q = 0.013.", {"de": DE}).findings if one.ref is not None]
    assert str(finding.ref) == "de:P01833|cirrhosis_vs_healthy:q_value"
    assert finding.claim == "0.013"


def test_digits_of_names_and_thresholds_are_no_numbers() -> None:
    text = "C6, GO:0006955 and log2 values at q < 0.05 with a 95 % CI: 1,234 of 2.1 x 10^-6 and \u22123.5"
    covered = [(0, 2), (4, 14)]
    assert [one.value for one in numbers(text, covered)] == [0.05, 1234, 2.1e-6, -3.5]


def test_a_value_may_be_rounded_half_up_or_half_even() -> None:
    (number,) = numbers("1.22", [])
    assert [states(number, value) for value in (1.215, 1.225, 1.2249, 1.2251, 1.21)] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_references_that_did_not_resolve_are_unsupported() -> None:
    report = check("PIGR is increased.", {"de": DE}, unresolved=["de has no row 'TP53'"])
    assert report.status == "unsupported"
