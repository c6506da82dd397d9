"""References find their cell, by accession or gene, and say what is not there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from proteus_omics.errors import DataError
from proteus_omics.hypotheses.references import Tables
from proteus_omics.hypotheses.rendering import render
from proteus_omics.models import Ref


@pytest.fixture
def tables() -> Tables:
    de = pd.DataFrame(
        {
            "protein": ["P01833", "P01833", "O95445", "Q1", "Q2"],
            "gene": ["PIGR", "PIGR", "APOM", "TWIN", "TWIN"],
            "contrast": ["cirrhosis_vs_healthy", "nafld_vs_healthy", *["cirrhosis_vs_healthy"] * 3],
            "log2fc": [1.8234, 1.54, -0.53, 0.1, np.nan],
            "q_value": [0.0131, 0.21, 0.0048, 0.9, np.nan],
        }
    )
    gsea = pd.DataFrame({"term": ["GO:0006955"], "contrast": ["a_vs_b"], "nes": [1.5], "q_value": [0.01]})
    return Tables({"de": de, "gsea": gsea})


def test_a_reference_is_found_by_accession_gene_and_contrast_alike(tables: Tables) -> None:
    expected = Ref(table="de", row="P01833|cirrhosis_vs_healthy", column="log2fc")
    for text in (
        "de:P01833|cirrhosis_vs_healthy:log2fc",
        "de:PIGR|cirrhosis_vs_healthy:log2fc",
        "de.cirrhosis_vs_healthy:PIGR:log2fc",
    ):
        assert tables.resolve(text) == expected
    assert tables.value(expected) == 1.8234
    term = tables.resolve("gsea.a_vs_b:GO:0006955:nes")
    assert str(term) == "gsea:GO:0006955|a_vs_b:nes"
    assert tables.resolve(str(term)) == term


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("de", "is no reference"),
        ("xx:PIGR|a:log2fc", "no table 'xx'; there are de, gsea"),
        ("de:PIGR|cirrhosis_vs_healthy:fold", "de has no column 'fold'"),
        ("de.cirrhosis_vs_healthy:APOB:log2fc", "de has no row 'APOB|cirrhosis_vs_healthy'"),
        ("de.cirrhosis_vs_healthy:TWIN:log2fc", "several rows of de are named 'TWIN|cirrhosis_vs_healthy'"),
    ],
)
def test_what_is_not_there_is_said(tables: Tables, text: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        tables.resolve(text)
    assert message in str(error.value)


def test_texts_are_filled_and_their_cells_kept(tables: Tables) -> None:
    found = render(
        "PIGR is up ({{de.cirrhosis_vs_healthy:PIGR:log2fc|.2f}}, "
        "{{de.cirrhosis_vs_healthy:PIGR:log2fc|fold|.1f}}-fold, "
        "q = {{de.cirrhosis_vs_healthy:PIGR:q_value|.2g}}); APOM falls by "
        "{{de.cirrhosis_vs_healthy:APOM:log2fc|percent_change|.0f}} %; "
        "{{count(de.cirrhosis_vs_healthy, q<0.05)}} hits, {{count(de.cirrhosis_vs_healthy, q<0.05, up)}} up.",
        tables,
    )
    assert found.text == "PIGR is up (1.82, 3.5-fold, q = 0.013); APOM falls by 31 %; 2 hits, 1 up."
    assert [str(ref) for ref in found.refs] == [
        "de:P01833|cirrhosis_vs_healthy:log2fc",
        "de:P01833|cirrhosis_vs_healthy:q_value",
        "de:O95445|cirrhosis_vs_healthy:log2fc",
    ]


def test_what_does_not_resolve_stays_and_is_listed(tables: Tables) -> None:
    text = (
        "{{de.cirrhosis_vs_healthy:APOB:log2fc}} {{de.cirrhosis_vs_healthy:Q2:log2fc}} "
        "{{de.cirrhosis_vs_healthy:PIGR:log2fc|cube}}"
    )
    found = render(text, tables)
    assert found.text == text
    expected = ("no row 'APOB", "is empty", "no filter 'cube'")
    for message, part in zip(found.unresolved, expected, strict=True):
        assert part in message
