"""What the audit refuses, before any statistics, and what a profile may know."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import proteus_omics as po
from proteus_omics.auditing import declared
from proteus_omics.demo import demo_data
from proteus_omics.errors import ConfoundedDesignError, DataError, DesignError, NoReplicatesError, ScaleError


def data(modality: str = "bulk", scale: str = "log2", **columns: list[object]) -> anndata.AnnData:
    n = len(next(iter(columns.values())))
    x = np.random.default_rng(0).normal(25, 1, (n, 12))
    obs = pd.DataFrame(columns, index=[f"secret{number}" for number in range(n)])
    adata = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"P{number}" for number in range(12)]))
    adata.uns["proteus"] = {"scale": scale, "modality": modality}
    return adata


TWO = ["a", "a", "b", "b"]


def refused(**design: object) -> str:
    adata = data(group=TWO, one=["x"] * 4, plate=["p", "p", "q", "q"], single=list("abcd"), days=[1, 2, 3, 4])
    with pytest.raises(DesignError) as error:
        po.audit(adata, po.Design(**design))
    return str(error.value)


def test_errors_name_what_there_is() -> None:
    assert "'nothing', which is not there; there are group, one" in refused(condition="nothing")
    assert "has the level x alone" in refused(condition="one")
    assert "no level of group; there are a, b" in refused(condition="group", reference="c")
    assert "both time and event" in refused(condition="group", time="days")
    assert "two roles in the design: days" in refused(time="days", event="days")


def test_a_batch_that_is_the_condition_is_shown_as_a_table() -> None:
    adata = data(group=TWO, plate=["p", "p", "q", "q"])
    with pytest.raises(ConfoundedDesignError, match=r"plate and group say the same[\s\S]*p +q"):
        po.audit(adata, po.Design(condition="group", batch="plate"))
    po.audit(data(group=TWO, plate=["p", "q", "p", "q"]), po.Design(condition="group", batch="plate"))


def test_subjects_of_no_paired_design_are_told() -> None:
    design = po.Design(condition="group", subject="person")
    assert po.audit(data(group=TWO, person=["p", "q", "p", "q"]), design) == []
    single = po.audit(data(group=TWO, person=["p", "q", "r", "s"]), design)
    assert len(single) == 1
    assert "the design is not paired, and subjects take no part" in single[0]
    repeated = po.audit(data(group=["a", "a", "a", "b", "b"], person=["p", "p", "q", "r", "s"]), design)
    assert "of 1 subjects there are several samples at one level of group" in repeated[1]


def test_one_sample_a_group_needs_no_test() -> None:
    adata = data(group=["a", "b", "c"])
    with pytest.raises(NoReplicatesError, match=r"a 1, b 1, c 1.*--no-test"):
        po.audit(adata, po.Design(condition="group"))
    po.audit(adata, po.Design(condition="group"), test=False)


def test_cells_are_not_replicates() -> None:
    adata = data("cytometry", "arcsinh", group=TWO, person=["p1", "p2", "p3", "p4"])
    with pytest.raises(DesignError, match="cells are not replicates"):
        po.audit(adata, po.Design(condition="group"))
    po.audit(adata, po.Design(condition="group", sample="person"))
    mixed = data("cytometry", "arcsinh", group=TWO, person=["p1", "p1", "p1", "p2"])
    with pytest.raises(DesignError, match="cells of one sample differ in the design: p1"):
        po.audit(mixed, po.Design(condition="group", sample="person"))


def test_cells_of_a_file_that_does_not_say_so_are_not_replicates(tmp_path: Path) -> None:
    cells = data(group=["a"] * 4 + ["b"] * 4, person=["p1", "p2"] * 2 + ["p3", "p4"] * 2)
    del cells.uns["proteus"]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    design = po.Design(condition="group", sample="person")
    with pytest.raises(DesignError, match=r"8 rows are of 4 samples \(person\).*--modality"):
        po.audit(po.read(tmp_path / "cells.h5ad"), design)
    told = declared(po.read(tmp_path / "cells.h5ad"), None, "single_cell")
    assert po.profile_dataset(told, design).levels == {"a": 2, "b": 2}
    po.audit(data(group=TWO, person=["p1", "p2", "p3", "p4"]), design)


def test_a_declared_scale_is_held_against_the_values() -> None:
    linear = data(group=TWO)
    linear.X = 2.0 ** np.asarray(linear.X)
    with pytest.raises(ScaleError, match="no logarithm does: they are linear"):
        po.audit(linear, po.Design())
    negative = data(scale="linear", group=TWO)
    negative.X = np.asarray(negative.X) - 25
    with pytest.raises(ScaleError, match="linear intensities are not negative"):
        po.audit(negative, po.Design())


def test_logarithms_declared_linear_are_told() -> None:
    with pytest.raises(ScaleError, match=r"as logarithms of intensities do.*--scale log2"):
        po.audit(data(scale="linear", group=TWO), po.Design())


def test_a_scale_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScaleError, match="'furlong'; it is one of linear, log2, ratio, arcsinh"):
        po.run(data(group=TWO), out=tmp_path / "r", scale="furlong")


def test_a_kind_or_share_that_is_none_is_told(tmp_path: Path) -> None:
    data = demo_data()
    data.uns["proteus"] = {"scale": "log10"}
    with pytest.raises(DataError, match="scale = 'log10'"):
        po.run(data, out=tmp_path)
    with pytest.raises(DataError, match="min_frac = 7"):
        po.run(demo_data(), out=tmp_path, min_frac=7)


def test_a_design_whose_terms_together_say_the_same_is_refused() -> None:
    eight = {"group": list("aaaabbbb"), "plate": list("ppqqppqq"), "day": list("xyxyyxyx")}
    po.audit(data(**eight), po.Design(condition="group", batch="plate", covariates=("day",)))
    eight["day"] = list("xyxyxyxy")
    both = [(p == "p", d == "x") for p, d in zip(eight["plate"], eight["day"], strict=True)]
    eight["kit"] = ["k" if p == d else "l" for p, d in both]
    eight["sum"] = [float(p) + float(d) for p, d in both]
    po.audit(data(**eight), po.Design(condition="group", batch="plate", covariates=("day", "kit")))
    with pytest.raises(DesignError, match="follow from those before them: sum"):
        po.audit(data(**eight), po.Design(condition="group", batch="plate", covariates=("day", "sum")))
    few = data(group=TWO, age=[1.0, 2.0, 4.0, 3.0], mass=[3.0, 1.0, 2.0, 5.0], size=[1.0, 4.0, 2.0, 2.0])
    with pytest.raises(DesignError, match="5 terms for 4 samples"):
        po.audit(few, po.Design(condition="group", covariates=("age", "mass", "size")))


def test_a_profile_holds_no_sample_name_and_no_value() -> None:
    adata = data(
        "cytometry", "arcsinh", group=TWO, person=["ann", "bob", "cy", "di"], age=[31.5, 42.5, 53.5, 64.5]
    )
    text = po.profile_dataset(adata, po.Design(condition="group", sample="person")).model_dump_json()
    for secret in ("secret", "ann", "bob", "31.5", "64.5"):
        assert secret not in text
    assert '"group"' in text


def test_what_names_the_samples_of_cells_is_an_identifier_though_many_cells_have_it() -> None:
    adata = data(
        "cytometry", "arcsinh", group=["a"] * 8 + ["b"] * 8, sample=[f"s{n // 4}" for n in range(16)],
        barcode=["ann", "bob", "cy", "di"] * 4, site=["x"] * 8 + ["y"] * 8,
    )  # fmt: skip
    adata.obs["barcode"] = sorted(adata.obs["barcode"])  # one a sample
    found = po.profile_dataset(adata, po.Design(condition="group", sample="sample"))
    assert {one.name: one.kind for one in found.obs_columns} == {
        "group": "categorical", "sample": "identifier", "barcode": "identifier", "site": "categorical",
    }  # fmt: skip
    assert "ann" not in found.model_dump_json()
    assert found.obs_columns[0].levels == {"a": 2, "b": 2}


def test_the_slope_of_missing_values_is_the_same_on_either_scale() -> None:
    made = demo_data()
    slope = po.profile_dataset(made, po.Design()).missing.mnar_slope
    logs = made.copy()
    logs.X = np.log2(np.asarray(made.X))
    logs.uns["proteus"] = {"scale": "log2", "modality": "bulk"}
    share = np.isnan(logs.X).mean(axis=0)
    some = (share > 0) & (share < 1)
    expected = np.polyfit(np.nanmean(logs.X[:, some], axis=0), share[some], 1)[0]
    assert po.profile_dataset(logs, po.Design()).missing.mnar_slope == pytest.approx(expected, abs=1e-4)
    assert slope == pytest.approx(expected, abs=1e-4)
    assert expected < -0.05
    ratios = logs.copy()
    ratios.uns["proteus"] = {"scale": "ratio", "modality": "bulk"}
    assert po.profile_dataset(ratios, po.Design()).missing.mnar_slope is None


def test_roles_are_proposed_by_name_but_never_a_batch_that_is_the_condition() -> None:
    adata = data(
        group=TWO, batch_day=["p", "q", "p", "q"], plate=["p", "p", "q", "q"], age=[1.5, 2.5, 3.5, 4.5]
    )
    found = po.profile_dataset(adata, po.Design(condition="group")).candidates
    assert found["batch"] == ("batch_day",)
    assert found["covariates"] == ("age",)
    adata = data(
        group=TWO, glucose=[1.5, 2.5, 3.5, 4.5], complexity=["p", "q", "p", "q"], os_days=[5, 6, 7, 8]
    )
    found = po.profile_dataset(adata, po.Design(condition="group")).candidates
    assert found["time"] == ("os_days",)  # and not glucose, which has an os in it
    assert "batch" not in found
