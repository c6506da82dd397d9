"""A small made data set with a known truth, to see a run without any data of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData

SAMPLES, PROTEINS, CHANGED = 12, 300, 30


def demo_data(seed: int = 0) -> AnnData:
    """12 samples x 300 made proteins, linear: the first 30 change twofold with `treatment`, half of them up.

    Low values are missing more often. `var["truth"]` is the log2 fold change that was put in; `age` is noise.
    """
    import anndata

    rng = np.random.default_rng(seed)
    treated = np.arange(SAMPLES) % 2 == 1
    truth = np.zeros(PROTEINS)
    truth[:CHANGED] = np.where(np.arange(CHANGED) % 2 == 0, 1.0, -1.0)
    level = rng.normal(25, 2, PROTEINS)
    values = level + treated[:, None] * truth + rng.normal(0, 0.35, (SAMPLES, PROTEINS))
    seen = rng.random((SAMPLES, PROTEINS)) < 1 / (1 + np.exp(-(values - 20.5)))
    obs = pd.DataFrame(
        {
            "treatment": pd.Categorical(np.where(treated, "drug", "control")),
            "age": rng.integers(25, 70, SAMPLES),
        },
        index=[f"sample{number:02d}" for number in range(SAMPLES)],
    )
    names = [f"PROT{number:03d}" for number in range(PROTEINS)]
    var = pd.DataFrame(
        {
            "protein_ids": names,
            "genes": names,
            "gene": names,
            "description": "",
            "n_peptides": np.nan,
            "organism": "",
            "truth": truth,
        },
        index=names,
    )
    adata = anndata.AnnData(np.where(seen, 2**values, np.nan), obs=obs, var=var)
    adata.uns["proteus"] = {
        "scale": "linear",
        "modality": "bulk",
        "quantity": "made",
        "removed": {},
        "source": "demo",
    }
    return adata
