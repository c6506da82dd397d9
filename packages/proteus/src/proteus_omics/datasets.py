"""The outside data sets of the experiment and the tests by name, for `tenfold.data`, and how each is read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from proteus_omics.io import read
from tenfold.data import Dataset, PyPI

if TYPE_CHECKING:
    from anndata import AnnData

_NIU = (
    "Niu et al.: Plasma proteome profiling discovers novel proteins associated with non-alcoholic fatty "
    "liver disease. Mol Syst Biol 15:e8793, 2019. PXD011839"
)
_SYMBOLS = "uniprot_human_symbol_2020.tsv.gz"
_GROUPS = "nafld_niu2019_proteinGroups.txt.gz"
_ALPHASTATS = "alphastats==0.7.2"
_EXAMPLE = "alphastats/gui/example_data"

HYE = Dataset(
    name="hye-lfqbench",
    description="spike-in of known truth: 3,280 proteins of human, yeast and E. coli in six runs",
    files={
        "hye_lfqbench_ps.tsv.gz": "dd79dd46f2abe6e2fbed671e963807ead731a32a2e247f7eb987617cdee04f00",
        "hye_lfqbench_ps_samples.csv": "85c7e78bb7885341fe355c90d6cd2b2b3d67ba78a8fd86ba5327b28ef1abfe4a",
    },
    folder="proteus",
    licence="Apache-2.0 (example of Triqler)",
    citation="Navarro et al.: A multicenter study benchmarks software tools for label-free proteome "
    "quantification. Nat Biotechnol 34:1130, 2016. PXD002952",
)
NAFLD = Dataset(
    name="nafld-niu2019",
    description="plasma proteomes of 48 people: healthy, fatty liver, diabetes, cirrhosis",
    files={
        _GROUPS: "780713720cfd643793f70ea6882367d5b94efac5637c13bc36395b3d82b3a266",
        "nafld_niu2019_samples.csv": "543387e3232b0d624782110d67043a78f7ec796de1a64afca3dd31deabffe03a",
    },
    folder="proteus",
    licence="Apache-2.0 (example of alphastats); article CC BY 4.0",
    citation=_NIU,
)
NAFLD_ON_PYPI = Dataset(
    name="nafld-alphastats",
    description="nafld-niu2019 as the alphastats package has it",
    files={
        "proteinGroups.txt": "ccaff9886e1294b685a6a7bd4c139e280ba6ec3fb74374c2ac39b6f085b5851a",
        "metadata.xlsx": "2ca065185590f27c15cf99b37ebf4e7a3f44696627e0b058cd3f255b0c01487b",
    },
    licence="Apache-2.0",
    citation=_NIU,
    sources=(
        PyPI(_ALPHASTATS, member=f"{_EXAMPLE}/proteinGroups.txt"),
        PyPI(_ALPHASTATS, member=f"{_EXAMPLE}/metadata.xlsx"),
    ),
)
UBILENGTH = Dataset(
    name="ubilength",
    description="interactome of ubiquitin chains, 3,006 proteins in twelve runs, many values missing",
    files={"ubilength_dep.csv.gz": "72fc294e06a95cfb5b56c06031486b5a46b6cd3d7c1f07be82b7456aeccb10b6"},
    folder="proteus",
    licence="Artistic-2.0 (Bioconductor DEP)",
    citation="Zhang, Smits et al.: An interaction landscape of ubiquitin signaling. Mol Cell 65:941, 2017",
)
CYTOF = Dataset(
    name="cytof-bcrxl",
    description="mass cytometry of 5,428 blood cells, four people, B cell receptors linked or not",
    files={
        "cytof_bcrxl_pbmc.csv.gz": "5f6ad8be88c5ed4ae3ffde2db623b19fb38472de55b9cf34c2d5b8bdc1a076c8",
        "cytof_bcrxl_panel.csv": "4266ce612b0922da478133875043497a5df61e34954bc555dc91fbffafc20fcf",
    },
    folder="proteus",
    licence="GPL (>= 2) (Bioconductor CATALYST)",
    citation="Bodenmiller et al.: Multiplexed mass cytometry profiling of cellular states. Nat Biotechnol "
    "30:858, 2012",
)
KNOWLEDGE = Dataset(
    name="proteus-knowledge",
    description="human gene sets (GO of 2020, Hallmark v7.1), interactions (iRefIndex 17), symbols",
    files={
        "go_bp_2020-03-23.gmt.gz": "269a382edf7aefd9ccb49933a838521dffbdd91f26ccc0ee48dca3c412f388e3",
        "go_cc_2020-03-23.gmt.gz": "0c91404d6a604040e8635ea6d85b89407e0aed86e8af6dd8c9f9c4eaef61e1ac",
        "go_mf_2020-03-23.gmt.gz": "7020b171dee4f2d5f52b90d232f0c067cc5c032de8fe58e9ffdbb85357c2a7a9",
        "hallmark_v7.1.gmt.gz": "34d3adcc4da6f2216370ae795308f2d2f3d9bfa5d62d476518932f1e7fe63b80",
        "irefindex17_human_np2.tsv.gz": "7a4f7b59ba034381109bc9034f108d5290af6723032bf25a1b7732a85522aa42",
        _SYMBOLS: "a1354db4b9b79e80aaea23a93f1dc3fc524fa5a56383504028e524180e72701c",
    },
    folder="proteus/knowledge",
    licence="GO, UniProt, MSigDB Hallmark: CC BY 4.0; tables of Genoppi: MIT",
    citation="Pintacuda et al.: Genoppi. Nat Commun 12:2580, 2021; Gene Ontology; MSigDB; iRefIndex",
)
DATASETS = (HYE, NAFLD, NAFLD_ON_PYPI, UBILENGTH, CYTOF, KNOWLEDGE)

CODE = re.compile(r" \([A-Z]?\d+\)$")


def hye() -> AnnData:
    """The spike-in: linear quantities that its maker has normalised, each protein near 1."""
    folder = HYE.get()
    return read(folder / "hye_lfqbench_ps.tsv.gz", metadata=folder / "hye_lfqbench_ps_samples.csv")


def nafld() -> AnnData:
    """The plasma proteomes, from the folder of data or out of the alphastats wheel of PyPI."""
    folder = NAFLD.path()
    if folder is not None:
        return read(folder / _GROUPS, metadata=folder / "nafld_niu2019_samples.csv")
    folder = NAFLD_ON_PYPI.get()
    return read(folder / "proteinGroups.txt", metadata=tidy_sheet(folder / "metadata.xlsx"))


def tidy_sheet(path: Path) -> pd.DataFrame:
    """The columns of alphastats' sheet that hold measurements, by plain names."""
    sheet = pd.read_excel(path)
    kept = [name for name in sheet.columns if CODE.search(name) or name in ("sample", "disease")]
    plain = {
        name: re.sub(r"\W+", "_", CODE.sub("", name.removeprefix("_IGNORE_"))).strip("_").lower()
        for name in kept
    }
    return sheet[kept].rename(columns=plain).rename(columns={"sample": "sample_id"})


def cytof() -> AnnData:
    """The cells, 10 markers of type and 14 of state."""
    folder = CYTOF.get()
    return read(folder / "cytof_bcrxl_pbmc.csv.gz", panel=folder / "cytof_bcrxl_panel.csv")
