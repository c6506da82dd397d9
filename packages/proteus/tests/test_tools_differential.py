from __future__ import annotations

from functools import partial

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact

from proteus_omics.auditing import reference_of
from proteus_omics.design import Design
from proteus_omics.errors import NoReplicatesError, ToolError
from proteus_omics.stats import bh, lm_fit, t_test_power
from proteus_omics.tools.registry import ToolContext, get_tool

DESIGN = Design(condition="group", reference="a")


@pytest.fixture(scope="module")
def data() -> ad.AnnData:
    """12 samples of groups a, b, c; P0 is up in b, P1 down in c, P2 is never measured in b."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"group": list("aaaabbbbcccc"), "patient": list("wxyz") * 3, "batch": list("mn") * 6},
        index=[f"s{k}" for k in range(12)],
    )
    x = rng.normal(20, 0.3, (12, 60))
    x[4:8, 0] += 3
    x[8:, 1] -= 3
    x[4:8, 2] = np.nan
    var = pd.DataFrame({"gene": [f"G{k}" for k in range(60)]}, index=[f"P{k}" for k in range(60)])
    return ad.AnnData(x, obs, var, uns={"proteus": {"scale": "log2", "modality": "bulk"}})


def use(name: str, inputs: dict, design: Design = DESIGN, **params):
    found = get_tool(name)
    outputs = found(inputs, found.parse(params), ToolContext(design))
    assert set(outputs) == set(found.outputs)
    assert 0 < len(found.summary(outputs).splitlines()) <= 40
    for output, declared in found.outputs.items():
        assert not outputs[output].duplicated(list(declared.key_columns)).any()
        assert {*declared.columns, *declared.key_columns} <= set(outputs[output].columns)
    return outputs


def test_the_table_is_that_of_the_statistics_with_genes_and_the_samples_of_either_group(data):
    out = use("de_limma", {"data": data}, trend=False, robust=False)
    found = out["de"].set_index(["protein", "contrast"])
    x = pd.get_dummies(data.obs["group"]).astype(float)
    fit = lm_fit(data.to_df(), x).contrasts({"b_vs_a": {"b": 1, "a": -1}, "c_vs_a": {"c": 1, "a": -1}})
    expected = fit.ebayes().top_table("b_vs_a").set_index("protein")
    got = found.xs("b_vs_a", level="contrast")
    np.testing.assert_array_equal(got.loc[expected.index, "t"], expected["t"])
    posterior = pd.Series(np.sqrt(fit.ebayes().s2_post), data.var_names)
    np.testing.assert_array_equal(got["sd_post"], posterior[got.index])
    assert (use("treat", {"data": data})["treat"]["sd_post"] > 0).all()
    assert got.loc["P0", ["gene", "n_ref", "n_alt", "n_valid"]].tolist() == ["G0", 4, 4, 12]
    assert got.loc["P2", ["n_ref", "n_alt", "n_valid"]].tolist() == [4, 0, 8]
    assert np.isnan(got.loc["P2", "p_value"])
    models = out["de_models"].set_index("contrast")
    assert models.loc["b_vs_a", ["n_tested", "n_hits", "n_up", "n_down"]].tolist() == [59, 1, 1, 0]
    assert models.loc["c_vs_a", ["n_up", "n_down"]].tolist() == [0, 1]
    s2, df, effect = fit.ebayes().s2_post, fit.ebayes().df_total, models.loc["b_vs_a", "detectable_log2fc"]
    power = partial(t_test_power, effect, np.sqrt(np.median(s2)), 4, 4)
    assert power(alpha=0.05 / 59, df=np.median(df)) == pytest.approx(0.8, abs=1e-6)


def test_the_effect_that_would_have_been_seen_is_seen():
    rng = np.random.default_rng(0)
    names = [f"s{k}" for k in range(12)]
    obs = pd.DataFrame({"group": list("aaaaaabbbbbb")}, index=names)
    found = []
    for _ in range(40):
        x = rng.normal(20, 0.3, (12, 2000))
        null = ad.AnnData(x, obs, uns={"proteus": {"scale": "log2", "modality": "bulk"}})
        claimed = use("de_limma", {"data": null})["de_models"]["detectable_log2fc"][0]
        one = null.copy()
        one.X[6:, 0] += claimed
        de = use("de_limma", {"data": one})["de"].set_index("protein")
        found.append(de.loc["0", "q_value"] < 0.05)
    assert 0.65 <= np.mean(found) <= 1


def test_settings_follow_diagnostics_and_not_what_is_significant(data):
    auto = use("de_limma", {"data": data})["de_models"]
    fit = lm_fit(data.to_df(), pd.get_dummies(data.obs["group"]).astype(float))
    found = fit.contrasts({"b_vs_a": {"b": 1, "a": -1}}).diagnose()
    assert auto["trend"].tolist() == [found.trend] * 2
    assert auto["robust"].tolist() == [found.robust] * 2


def test_a_paired_design_and_an_added_batch_are_named_as_adjusted_for(data):
    design = Design(condition="group", reference="a", subject="patient")
    models = use("de_limma", {"data": data}, design)["de_models"]
    assert models["adjusted_for"].unique().tolist() == ["patient"]
    assert use("de_limma", {"data": data}, batch="batch")["de_models"]["adjusted_for"][0] == "batch"


def test_without_a_test_there_are_fold_changes_and_no_p(data):
    out = use("de_limma", {"data": data}, test=False)
    found = out["de"].set_index(["protein", "contrast"])
    assert found.loc[("P0", "b_vs_a"), "log2fc"] == pytest.approx(
        data.X[4:8, 0].mean() - data.X[:4, 0].mean()
    )
    assert found["p_value"].isna().all()
    assert out["de_models"].empty


def test_a_level_with_one_sample_is_in_no_contrast_and_alone_it_is_an_error(data):
    few = data[[0, 1, 2, 3, 4, 8, 9, 10]].copy()
    assert use("de_limma", {"data": few})["de"]["contrast"].unique().tolist() == ["c_vs_a"]
    with pytest.raises(NoReplicatesError, match="b 1"):
        use("de_limma", {"data": few[:5].copy()})
    with pytest.raises(ToolError, match="3 proteins can be tested"):
        use("de_limma", {"data": data[:, [0, 1, 3]].copy()})
    with pytest.raises(ToolError, match="need a condition"):
        use("de_limma", {"data": data}, Design())


def test_treat_of_zero_is_the_moderated_t_and_a_larger_one_only_loses_hits(data):
    de = use("de_limma", {"data": data})["de"].set_index(["protein", "contrast"])
    none = use("treat", {"data": data}, lfc=0)["treat"].set_index(["protein", "contrast"])
    np.testing.assert_allclose(none["p_value"], de.loc[none.index, "p_value"], rtol=1e-9)
    some = use("treat", {"data": data}, lfc=1)["treat"].set_index(["protein", "contrast"])
    assert (some["p_value"] < none.loc[some.index, "p_value"]).sum() == 0
    assert some.loc[("P0", "b_vs_a"), "q_value"] < 0.05


def test_detection_tests_what_the_t_test_could_not_by_fisher_in_a_family_of_its_own(data):
    de = use("de_limma", {"data": data})["de"]
    out = use("differential_detection", {"data": data, "de": de})["detection"]
    assert out[["protein", "contrast"]].to_numpy().tolist() == [["P2", "b_vs_a"]]
    row = out.iloc[0]
    assert row[["detected_ref", "n_ref", "detected_alt", "n_alt"]].tolist() == [4, 4, 0, 4]
    assert row["p_value"] == fisher_exact([[0, 4], [4, 0]]).pvalue
    assert row["difference"] == -1
    assert row["odds_ratio"] == pytest.approx(0.5 * 0.5 / (4.5 * 4.5))
    sparse = data.copy()
    sparse.X[:2, 5] = np.nan
    q = use("differential_detection", {"data": sparse}, min_missing=0.2)["detection"]
    for contrast, family in q.groupby("contrast"):
        np.testing.assert_array_equal(family["q_value"], bh(family["p_value"]), err_msg=contrast)


def test_a_hit_of_one_sample_falls_when_that_sample_is_left_out(data):
    one = data.copy()
    one.X[4, 7] += 40
    de = use("de_limma", {"data": one}, robust=False, trend=False)["de"]
    de.loc[(de["protein"] == "P7") & (de["contrast"] == "b_vs_a"), "q_value"] = 0.01
    run = partial(use, inputs={"data": one, "de": de})
    left = run("leave_one_out", robust=False, trend=False)["leave_one_out"].set_index(["protein", "contrast"])
    fragile, steady = left.loc[("P7", "b_vs_a")], left.loc[("P0", "b_vs_a")]
    assert fragile["worst_ratio"] < 0.6 < steady["worst_ratio"] <= 1
    assert steady["sign_stable"]
    drawn = run("bootstrap_sign")["bootstrap_sign"].set_index(["protein", "contrast"])
    assert drawn.loc[("P0", "b_vs_a"), "sign_stability"] == 1
    assert drawn.loc[("P1", "c_vs_a"), "ci_high"] < 0
    expected = de.set_index(["protein", "contrast"]).loc[drawn.index, "log2fc"]
    np.testing.assert_allclose(drawn["log2fc"], expected, rtol=1e-9)
    pd.testing.assert_frame_equal(drawn, run("bootstrap_sign")["bootstrap_sign"].set_index(drawn.index.names))


def test_leaving_out_is_the_smallest_of_the_fits_without_each_sample(data):
    de = use("de_limma", {"data": data}, robust=False, trend=False)["de"]
    out = use("leave_one_out", {"data": data, "de": de}, robust=False, trend=False)["leave_one_out"]
    t = []
    for sample in data.obs_names:
        rest = data[data.obs_names != sample]
        x = pd.get_dummies(rest.obs["group"]).astype(float)
        fit = lm_fit(rest.to_df(), x).contrasts({"b_vs_a": {"b": 1, "a": -1}}).ebayes()
        t.append(fit.t[0, 0])
    got = out.set_index(["protein", "contrast"]).loc[("P0", "b_vs_a"), "worst_t"]
    assert got == pytest.approx(min(t), rel=1e-9)
    with pytest.raises(ToolError, match="no hit"):
        use("leave_one_out", {"data": data, "de": de.assign(q_value=1.0)})


def test_the_reference_is_the_one_named_or_a_control_or_the_first():
    assert reference_of(["a", "b"], Design(condition="x")) == "a"
    assert reference_of(["AD", "Healthy"], Design(condition="x")) == "Healthy"
    assert reference_of(["AD", "healthy"], Design(condition="x", reference="AD")) == "AD"
