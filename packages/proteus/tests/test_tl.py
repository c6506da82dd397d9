from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import proteus_omics as po
from proteus_omics.errors import ToolError
from proteus_omics.tools.registry import all_tools


@pytest.fixture(scope="module")
def data() -> ad.AnnData:
    x = np.random.default_rng(0).normal(20, 1, (8, 20))
    x[4:, 0] += 8
    obs = pd.DataFrame({"group": list("aaaabbbb")}, index=[f"s{k}" for k in range(8)])
    return ad.AnnData(x, obs, uns={"proteus": {"scale": "log2", "modality": "bulk"}})


def test_a_tool_is_a_function_of_data_and_design(data):
    design = po.Design(condition="group")
    table = po.tl.de_limma(data, design, trend=False)
    assert table.iloc[0][["protein", "contrast"]].tolist() == ["0", "b_vs_a"]
    linear = data.copy()
    linear.X = 2**data.X
    linear.uns["proteus"] = {"scale": "linear", "modality": "bulk"}
    pd.testing.assert_frame_equal(po.tl.de_limma(linear, design, trend=False), table)
    detected = po.tl.differential_detection(data, design, de=table)
    assert len(detected) == 0
    assert po.pl.volcano(table).axes[0].get_title().startswith("b_vs_a")


def test_every_tool_is_there_and_what_is_not_is_named(data):
    assert dir(po.tl) == list(all_tools())
    assert "volcano" in dir(po.pl)
    assert po.tl.treat.__name__ == "treat"
    with pytest.raises(AttributeError, match="no tool 'nothing'; there are annotate"):
        _ = po.tl.nothing
    with pytest.raises(AttributeError, match="no figure 'nothing'; there are enrichment"):
        _ = po.pl.nothing
    with pytest.raises(ToolError, match="colour"):
        po.tl.de_limma(data, po.Design(condition="group"), colour=1)
