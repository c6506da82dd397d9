"""Our statistics beside limma 3.54.1 (R 4.2.2) on real tables, made as the data's README says."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from proteus_omics.stats import ContrastFit, lm_fit

DATA = Path(os.environ.get("TENFOLD_DATA", "")) / "proteus"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="$TENFOLD_DATA has no proteus")

COLUMNS = {
    "log2fc": "logFC",
    "ci_low": "CI.L",
    "ci_high": "CI.R",
    "ave_expr": "AveExpr",
    "t": "t",
    "p_value": "P.Value",
    "q_value": "adj.P.Val",
    "b": "B",
    "sigma": "sigma",
}


def golden(name: str) -> pd.DataFrame:
    table = pd.read_csv(DATA / f"golden/{name}.csv.gz")
    return table.set_index("gene" if "gene" in table else "id")


def same(
    ours: pd.DataFrame, theirs: pd.DataFrame, rtol: float = 1e-8, columns: dict[str, str] = COLUMNS
) -> None:
    """Equal values and the same NaN, protein by protein."""
    ours = ours.set_index("protein").loc[theirs.index]
    for own, name in columns.items():
        if name in theirs:
            np.testing.assert_allclose(ours[own], theirs[name], rtol, 1e-10, err_msg=own)


def groups(samples: pd.Index, labels: list[str]) -> pd.DataFrame:
    return pd.get_dummies(pd.Series(labels, index=samples)).astype(float)


@pytest.fixture(scope="module")
def hye() -> ContrastFit:
    table = pd.read_csv(DATA / "hye_lfqbench_ps.tsv.gz", sep="\t", index_col="protein")
    y = np.log2(table.filter(regex="^[AB]_").T)
    return lm_fit(y, groups(y.index, [run[0] for run in y.index])).contrasts({"A_vs_B": {"A": 1, "B": -1}})


@pytest.fixture(scope="module")
def ubi() -> ContrastFit:
    y = pd.read_csv(DATA / "golden/input_ubi_log2.csv.gz", index_col=0).T
    x = groups(y.index, [run.split(".")[-1].split("_")[0] for run in y.index])
    levels = ("Ubi6", "Ubi4", "Ubi1")
    return lm_fit(y, x).contrasts({f"{level}_vs_Ctrl": {level: 1, "Ctrl": -1} for level in levels})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("hye", {}),
        ("hye_trend", {"trend": True}),
        ("hye_robust", {"robust": True}),
        ("hye_tr", {"trend": True, "robust": True}),
    ],
)
def test_spike_in_equals_limma(hye, name, settings):
    fit = hye.ebayes(**settings)
    theirs = golden(f"limma3.54.1_{name}")
    same(fit.top_table(), theirs, rtol=1e-6 if name == "hye_tr" else 1e-8)  # R's root is that good
    place = hye.fit.proteins.get_indexer(theirs.index)
    rtol = 1e-6 if name == "hye_tr" else 1e-10
    np.testing.assert_allclose(np.broadcast_to(fit.prior.df, 3280)[place], theirs["dfp"], rtol)
    np.testing.assert_allclose(np.broadcast_to(fit.prior.s2, 3280)[place], theirs["s2prior"], rtol)
    np.testing.assert_allclose(fit.s2_post[place], theirs["s2post"], rtol)


def test_spike_in_prior_and_treat_equal_limma(hye):
    fit = hye.ebayes()
    assert fit.prior.df == pytest.approx(4.588615, abs=5e-7)
    assert fit.prior.s2 == pytest.approx(0.01511209, abs=5e-9)
    same(fit.treat(0.5), golden("limma3.54.1_hye_treat0.5"))


def test_spike_in_finds_what_was_mixed(hye):
    human = hye.fit.proteins.str.endswith("_HUMAN")
    for table, hits, wrong in ((hye.ebayes().top_table(), 1513, 70), (hye.ebayes().treat(0.5), 1271, 9)):
        found = table[table["q_value"] < 0.05]
        named = found["protein"].isin(hye.fit.proteins[human])
        assert (len(found), named.sum()) == (hits, wrong)
        mixed = {"ECOLI": -1, "YEAST": 1}
        species = found["protein"][~named].str.split("_").str[-1]
        assert (np.sign(found["log2fc"][~named]) == species.map(mixed)).all()


@pytest.mark.parametrize(
    ("name", "settings", "df"),
    [
        ("ubi", {"legacy": True}, 3.898218),
        ("ubi_trend", {"trend": True}, 5.844405),
        ("ubi_robust", {"robust": True}, None),
    ],
)
def test_missing_values_equal_limma_with_the_same_untested_proteins(ubi, name, settings, df):
    fit = ubi.ebayes(**settings)
    theirs = golden(f"limma3.54.1_{name}")
    assert theirs["t"].isna().sum() > 100
    same(fit.top_table("Ubi6_vs_Ctrl"), theirs)
    if df is not None:
        assert fit.prior.df == pytest.approx(df, abs=5e-7)


def test_f_over_three_contrasts_equals_limma(ubi):
    fit = ubi.ebayes(legacy=True)
    columns = {"f": "F", "p_value": "P.Value", "q_value": "adj.P.Val"}
    same(fit.f_test(), golden("limma3.54.1_ubi_F3contrasts"), columns=columns)
    complete = ubi.fit.n_valid == 12  # there the correlations observed are those of the full design
    np.testing.assert_allclose(fit.f_test(observed=True)["f"][complete], fit.f_test()["f"][complete], 1e-9)


def test_the_newer_prior_is_the_optimum_that_limmas_search_stops_short_of(ubi):
    fit = ubi.ebayes()
    assert fit.prior.kind == "limma >= 3.61"
    assert fit.prior.df == pytest.approx(3.983404, abs=5e-7)
    assert fit.prior.s2 == pytest.approx(0.04146692, abs=5e-9)
    table = fit.top_table("Ubi6_vs_Ctrl")
    theirs = golden("pylimma0.2.0_newlimma_ubi")
    same(table, theirs, 1e-4, {"log2fc": "log_fc", "t": "t"})
    same(table, theirs, 1e-3, {"p_value": "p_value", "q_value": "adj_p_value", "b": "b"})
    assert fit.prior.df == pytest.approx(theirs["df_prior"].iloc[0], rel=1e-3)
    assert (table["q_value"] < 0.05).sum() == 156
    assert (ubi.ebayes(legacy=True).top_table("Ubi6_vs_Ctrl")["q_value"] < 0.05).sum() == 140


def test_cirrhosis_against_healthy_equals_limma():
    y = pd.read_csv(DATA / "golden/input_nafld_log2_median_centred.csv.gz", index_col=0)
    copies = y.groupby(level=0).cumcount()
    y.index = [f"{gene}.{copy}" if copy else gene for gene, copy in zip(y.index, copies, strict=True)]
    disease = pd.read_csv(DATA / "golden/input_nafld_groups.csv", index_col=0)["disease"]
    x = groups(y.columns, list(disease[y.columns]))
    fit = lm_fit(y.T, x).contrasts({"c": {"liver cirrhosis": 1, "healthy": -1}})
    table = fit.ebayes(legacy=True).top_table()
    same(table, golden("limma3.54.1_nafld_cirrhosis_vs_healthy"))
    assert (table["q_value"] < 0.05).sum() == 43
