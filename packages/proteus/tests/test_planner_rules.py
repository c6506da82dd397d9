"""What the rules take from results: batches for the model, and what hits raise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import proteus_omics as po
from proteus_omics.demo import demo_data
from proteus_omics.hypotheses.references import Tables
from proteus_omics.planner.base import Results
from proteus_omics.planner.rules import RulesPlanner, make


@pytest.mark.parametrize(
    ("plate", "batches", "taken"),
    [
        (0.30, ["plate"], "plate"),
        (0.30, [], None),
        (0.09, ["plate"], None),
        (0.30, ["plate", "site"], "site"),
    ],
)
def test_a_batch_enters_by_its_own_share_whatever_the_condition_explains(
    plate: float, batches: list[str], taken: str | None
) -> None:
    r2 = {"disease": 0.45, "plate": plate, "site": 0.35, "age": 0.2}
    found = Tables({"batch_association": pd.DataFrame({"column": list(r2), "r2": list(r2.values())})})
    quality = make("quality", {"compare": True, "batches": batches})
    [asked] = RulesPlanner().follow_up(quality, Results(found, found))
    assert asked.params.get("batch") == taken


def test_plates_within_paired_subjects_are_no_batch_and_the_differences_are_tested(tmp_path: Path) -> None:
    data = demo_data()
    subject = np.arange(data.n_obs) // 2
    plate = subject % 3  # two subjects a plate
    data.obs["subject"] = [f"s{number}" for number in subject]
    data.obs["plate"] = [f"p{number}" for number in plate]
    data.X = np.asarray(data.X) * 2.0 ** np.random.default_rng(0).normal(0, 2, (3, data.n_vars))[plate]
    design = po.Design(condition="treatment", reference="control", subject="subject")
    assert "batch" not in po.profile_dataset(data, design).candidates
    run = po.run(data, design=design, out=tmp_path / "run", budget=po.Budget(max_objectives=3))
    assert run.tables["de"]["p_value"].notna().any()
    unpaired = po.profile_dataset(data, po.Design(condition="treatment", reference="control"))
    assert unpaired.candidates["batch"] == ("plate",)
