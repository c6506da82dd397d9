"""Readers: small tables as each program writes them, real ones where they are at hand, and bad input."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import proteus_omics as po
from proteus_omics.errors import DataError, FormatError, MetadataError, ProteusWarning
from proteus_omics.io.metadata import unread
from proteus_omics.io.reading import guess_scale

MAXQUANT = """Protein IDs\tMajority protein IDs\tProtein names\tGene names\tPeptides\tIntensity a_1\tIntensity b_1\tiBAQ a_1\tiBAQ b_1\tLFQ intensity a_1\tLFQ intensity b_1\tOnly identified by site\tReverse\tPotential contaminant
P01833;Q1\tP01833\tPolymeric Ig receptor\tPIGR\t9\t100\t200\t10\t20\t1000000\t2000000\t\t\t
O95445\tO95445\tApolipoprotein M\tAPOM\t4\t10\t0\t1\t2\t500000\t0\t\t\t
CON__P02769\tCON__P02769\tAlbumin\t\t4\t1\t1\t1\t1\t9\t9\t\t\t+
REV__P1\tREV__P1\t\t\t1\t1\t1\t1\t1\t9\t9\t\t+\t
P2\tP2\t\tX2\t1\t1\t1\t1\t1\t9\t9\t+\t\t
"""  # noqa: E501


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode())) if name.endswith(".gz") else path.write_text(text)
    return path


def test_maxquant_prefers_lfq_and_takes_marked_rows_out(tmp_path: Path) -> None:
    adata = po.read(write(tmp_path, "proteinGroups.txt.gz", MAXQUANT))
    assert list(adata.obs_names) == ["a_1", "b_1"]
    assert list(adata.var_names) == ["P01833", "O95445"]
    assert adata.uns["proteus"]["quantity"] == "LFQ"
    assert adata.uns["proteus"]["removed"] == {
        "decoys": 1,
        "contaminants": 1,
        "only identified by site": 1,
    }
    np.testing.assert_array_equal(adata.X, [[1e6, 5e5], [2e6, np.nan]])  # zero is missing
    assert list(adata.var["gene"]) == ["PIGR", "APOM"]


def test_a_quantity_by_name_and_contaminants_kept(tmp_path: Path) -> None:
    path = write(tmp_path, "proteinGroups.txt", MAXQUANT)
    assert po.read(path, quantity="iBAQ").X[1, 0] == 20
    assert po.read(path, keep_contaminants=True).n_vars == 5
    with pytest.raises(DataError, match=r"no quantity 'TMT'; there are LFQ, iBAQ, Intensity"):
        po.read(path, quantity="TMT")


def test_names_that_went_through_r_are_read(tmp_path: Path) -> None:
    head, *rows = MAXQUANT.splitlines()
    mangled = "\t".join(name.replace(" ", ".") for name in head.split("\t"))
    adata = po.read(write(tmp_path, "groups.csv", "\n".join([mangled, *rows]).replace("\t", ",")))
    assert (adata.shape, list(adata.obs_names)) == ((2, 2), ["a_1", "b_1"])


def test_fragpipe_diann_spectronaut_and_proteome_discoverer(tmp_path: Path) -> None:
    fragpipe = (
        "Protein\tProtein ID\tEntry Name\tGene\tDescription\tCombined Total Peptides\ts1 Intensity\t"
        "s1 MaxLFQ Intensity\ts2 Intensity\ts2 MaxLFQ Intensity\n"
        "sp|P1|A\tP1\tA_HUMAN\tGA\td\t3\t1\t11\t2\t12\n"
    )
    diann = (
        "Protein.Group\tProtein.Names\tGenes\tFirst.Protein.Description\tC:/raw/s1.raw\tC:/raw/s2.raw\n"
        "P1;P2\tA_HUMAN\tGA\tx\t11\t12\n"
    )
    spectronaut = "PG.ProteinGroups\tPG.Genes\t[1] s1.PG.Quantity\t[2] s2.PG.Quantity\nP1\tGA\t11\t12\n"
    discoverer = (
        "Accession\tDescription\tGene Symbol\tNumber of Peptides\tContaminant\tAbundance F1 Sample s1\t"
        "Abundance F2 Sample s2\nP1\td OS=Homo sapiens\tGA\t4\tFalse\t11\t12\nP9\td\tGC\t4\tTrue\t1\t2\n"
    )
    for name, text, quantity, samples in (
        ("combined_protein.tsv", fragpipe, "MaxLFQ", ["s1", "s2"]),
        ("report.pg_matrix.tsv", diann, "MaxLFQ", ["C:/raw/s1.raw", "C:/raw/s2.raw"]),
        ("pivot.tsv", spectronaut, "Quantity", ["s1", "s2"]),
        ("Proteins.txt", discoverer, "Abundance", ["F1 Sample s1", "F2 Sample s2"]),
    ):
        adata = po.read(write(tmp_path, name, text))
        assert list(adata.obs_names) == samples, name
        np.testing.assert_array_equal(adata.X, [[11], [12]])
        assert (adata.var["gene"].iloc[0], adata.uns["proteus"]["quantity"]) == ("GA", quantity)


def test_long_reports_keep_rows_of_one_percent(tmp_path: Path) -> None:
    report = pd.DataFrame(
        {
            "Run": ["s1", "s1", "s2", "s2"],
            "Protein.Group": ["P1", "P2", "P1", "P2"],
            "Genes": ["GA", "GB", "GA", "GB"],
            "PG.MaxLFQ": [11.0, 21.0, 12.0, 22.0],
            "PG.Q.Value": [0.001, 0.001, 0.001, 0.2],
        }
    )
    report.to_parquet(tmp_path / "report.parquet")
    adata = po.read(tmp_path / "report.parquet")
    np.testing.assert_array_equal(adata.X, [[11, 21], [12, np.nan]])
    assert list(adata.var["gene"]) == ["GA", "GB"]
    report["PG.Normalised"] = 2 * report["PG.MaxLFQ"]
    report.to_parquet(tmp_path / "report.parquet")
    normalised = po.read(tmp_path / "report.parquet", quantity="Normalised")
    np.testing.assert_array_equal(normalised.X, [[22, 42], [24, np.nan]])
    assert normalised.uns["proteus"]["quantity"] == "Normalised"
    assert po.read(tmp_path / "report.parquet").uns["proteus"]["quantity"] == "MaxLFQ"
    with pytest.raises(
        DataError, match=r"report has no quantity 'Quantity'; the report has MaxLFQ, Normalised"
    ):
        po.read(tmp_path / "report.parquet", quantity="Quantity")
    with pytest.raises(DataError, match="diann program has no quantity 'LFQ'"):
        po.read(tmp_path / "report.parquet", format="diann", quantity="LFQ")


@pytest.mark.parametrize("turned", [False, True])
def test_a_matrix_is_read_either_way_round(tmp_path: Path, turned: bool) -> None:
    values = pd.DataFrame([[0.1, -0.2], [-0.3, 0.4]], index=["TP53", "EGFR"], columns=["s1", "s2"])
    (values.T if turned else values).rename_axis("gene" if not turned else "sample").to_csv(
        tmp_path / "m.csv"
    )
    sheet = pd.DataFrame({"sample_id": ["s2", "s1"], "group": ["b", "a"]})
    adata = po.read(tmp_path / "m.csv", metadata=sheet)
    np.testing.assert_array_equal(adata.X, values.T.to_numpy())
    assert list(adata.obs["group"]) == ["a", "b"]
    assert list(adata.var["gene"]) == ["TP53", "EGFR"]
    assert adata.uns["proteus"]["scale"] == "ratio"


def test_scales_are_guessed_by_what_values_can_be() -> None:
    assert guess_scale(np.array([[2e6, 3e7]])) == "linear"
    assert guess_scale(np.array([[21.0, 30.5]])) == "log2"
    assert guess_scale(np.array([[0.8, 1.3]])) == "linear"  # relative quantities
    assert guess_scale(np.array([[-0.8, 1.3]])) == "ratio"


def test_names_are_short_and_unique(tmp_path: Path) -> None:
    long = ";".join(f"P{number:05d}" for number in range(20))
    text = f"protein\ts1\ts2\n{long}\t9\t8\nA1;B1\t7\t6\nA1;B2\t5\t4\nA1;B1\t3\t2\n"
    with pytest.warns(ProteusWarning, match="identifier of an earlier one"):
        adata = po.read(write(tmp_path, "m.tsv", text))
    assert list(adata.var_names) == ["P00000", "A1;B1", "A1;B2", "A1;B1.1"]


def test_different_samples_are_listed_with_the_nearest_names(tmp_path: Path) -> None:
    path = write(tmp_path, "m.tsv", "protein\tliver_01\tliver_02\nA\t1\t2\n")
    sheet = pd.DataFrame({"sample_id": ["liver-01", "liver_02"], "group": ["a", "b"]})
    with pytest.raises(MetadataError) as error:
        po.read(path, metadata=sheet)
    for part in ("Only in the table: liver_01", "Only in the sheet: liver-01", "liver_01 ~ liver-01"):
        assert part in str(error.value)
    sheet["sample_id"] = ["LIVER_01", "liver_02"]
    with pytest.raises(MetadataError, match="liver_01 ~ LIVER_01"):
        po.read(path, metadata=sheet)


@pytest.mark.parametrize(
    ("name", "text", "kind", "message"),
    [
        ("x.tsv", "", DataError, "is empty"),
        ("x.tsv", "protein\nA\n", FormatError, "has one column"),
        (
            "ion.tsv",
            "Peptide Sequence\tProtein ID\ts1 Intensity\nAAK\tP1\t3\n",
            FormatError,
            "combined_protein.tsv",
        ),
        ("m.tsv", "protein\tnote\nA\tx\nB\ty\n", FormatError, "no column of numbers"),
        ("m.tsv", "protein\ts1\ts2\nA\t1\t\nB\t2\t\n", DataError, "1 samples have no value: s2"),
        ("m.xlsx", "PK", FormatError, "one column"),
    ],
)
def test_what_is_no_table_says_what_to_give(
    tmp_path: Path, name: str, text: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        po.read(write(tmp_path, name, text))


def test_a_missing_file_and_a_cut_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        po.read(tmp_path / "none.tsv")
    whole = gzip.compress(MAXQUANT.encode())
    (tmp_path / "cut.txt.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cut short"):
        po.read(tmp_path / "cut.txt.gz")
    (tmp_path / "damaged.txt.gz").write_bytes(whole[:12] + bytes(8) + whole[20:])
    with pytest.raises(DataError, match=r"damaged.txt.gz is cut short or damaged"):
        po.read(tmp_path / "damaged.txt.gz")
    with pytest.raises(DataError, match="is a folder: name the file"):
        po.read(tmp_path)
    (tmp_path / "no.parquet").write_bytes(b"nonsense" * 100)
    with pytest.raises(FormatError, match=r"no.parquet is no Parquet table"):
        po.read(tmp_path / "no.parquet")


def test_a_damaged_fcs_file_is_told_by_its_name(tmp_path: Path) -> None:
    pytest.importorskip("flowio", reason="needs proteus-omics[fcs]")
    with pytest.raises(DataError, match="there is no file"):
        po.read(tmp_path / "none.fcs")
    for content in (b"nonsense" * 100, b"FCS3.0", b""):
        (tmp_path / "no.fcs").write_bytes(content)
        with pytest.raises(FormatError, match=r"no.fcs is no FCS file, or a damaged one"):
            po.read(tmp_path / "no.fcs")


def test_samples_that_the_sheet_leaves_out_are_told(tmp_path: Path) -> None:
    table = write(tmp_path, "m.tsv", "gene\tpeptides\ta\tb\tc\nG1\t3\t7\t8\t9\nG2\t4\t6\t5\t7\n")
    sheet = write(tmp_path, "s.csv", "sample_id,arm\na,x\nb,y\n")
    with pytest.warns(
        ProteusWarning, match="1 columns of numbers are not in the sample sheet .* left out: c$"
    ):
        found = po.read(table, metadata=sheet)
    assert list(found.obs_names) == ["a", "b"]
    notes = found.uns["proteus"]["notes"]  # these are shown to a planner
    assert notes == ["1 columns of numbers are not in the sample sheet and are left out"]


def test_excel_damage_is_warned_of(tmp_path: Path) -> None:
    text = f"protein\tgene\ts1\ts2\nA\t1-Mar\t9\t8\n{'P' * 32_767}\tG\t7\t6\n"
    with pytest.warns(po.ProteusWarning) as seen:
        po.read(write(tmp_path, "m.tsv", text))
    messages = [str(one.message) for one in seen]
    assert any("dates" in one and "rows 1" in one for one in messages)
    assert any("cut (rows 2)" in one for one in messages)


def test_texts_among_numbers_and_repeated_identifiers_are_told_with_their_rows(tmp_path: Path) -> None:
    rows = ["gene\ta\tb", "G1\t7\t8", "G2\tn.d.\t9", "G1\t5\tFiltered", "G3\t6\t7", "G4\t6\t7"]
    table = write(tmp_path, "t.tsv", "\n".join(rows))
    sheet = write(tmp_path, "s.csv", "sample_id,age,arm\na,41,x\nb,n/k,y\n")
    with pytest.warns(ProteusWarning):
        adata = po.read(table, metadata=sheet)
    assert adata.uns["proteus"]["notes"] == [
        "1 rows have the identifier of an earlier one; they are kept and numbered, as NAME.1 (rows 3)",
        "1 rows have a text in place of a number, which counts as missing (rows 2)",
    ]
    assert list(adata.var_names) == ["G1", "G2", "G1.1", "G3", "G4"]
    assert np.isnan(adata.X[0, 1])
    sheet = pd.DataFrame({"age": ["41", "5,5", *map(str, range(8))], "arm": list("xyxyxyxyxy")})
    assert unread(sheet) == [
        "the column age of the sample sheet holds numbers but for 1 entries, so it is not used as numbers "
        "(rows 2)"
    ]


def test_decimal_commas_are_read_where_commas_do_not_part_the_columns(tmp_path: Path) -> None:
    for separator in ";\t":
        rows = [
            separator.join(row) for row in (["gene", "a", "b"], ["G1", "7,5", "8"], ["G2", "6,25", "9,5"])
        ]
        adata = po.read(write(tmp_path, "t.txt", "\n".join(rows)))
        np.testing.assert_array_equal(adata.X, [[7.5, 6.25], [8, 9.5]])


def test_cells_have_marker_classes(tmp_path: Path) -> None:
    cells = "sample_id,condition,CD3,pS6\na,Ref,12.5,-0.3\nb,Stim,100.25,4.5\n"
    panel = write(tmp_path, "panel.csv", "antigen,marker_class\nCD3,type\npS6,state\n")
    adata = po.read(write(tmp_path, "cells.csv", cells), panel=panel)
    assert list(adata.var["marker_class"]) == ["type", "state"]
    assert (adata.uns["proteus"]["modality"], adata.uns["proteus"]["scale"]) == ("cytometry", "linear")
    assert list(adata.obs["condition"]) == ["Ref", "Stim"]


def test_cells_that_do_not_fit_their_panel_or_sheet_are_told(tmp_path: Path) -> None:
    panel = write(tmp_path, "panel.csv", "antigen,marker_class\nCD3,type\n")
    cells = write(tmp_path, "cells.csv", "sample_id,condition,CD3\na,Ref,high\nb,Stim,4.5\n")
    with pytest.raises(FormatError, match="texts in the table: CD3"):
        po.read(cells, panel=panel)
    cells = write(tmp_path, "cells.csv", "sample_id,condition,CD3\na,Ref,1.5\nb,Stim,4.5\n")
    sheet = write(tmp_path, "sheet.csv", "sample_id,condition\na,Ref\nb,Stim\n")
    with pytest.raises(DataError, match="columns of the sample sheet: condition"):
        po.read(cells, panel=panel, metadata=sheet)


def test_anndata_comes_back(tmp_path: Path) -> None:
    adata = po.read(write(tmp_path, "proteinGroups.txt", MAXQUANT))
    adata.write_h5ad(tmp_path / "x.h5ad")
    again = po.read(tmp_path / "x.h5ad")
    np.testing.assert_array_equal(again.X, adata.X)
    assert again.uns["proteus"]["quantity"] == "LFQ"


def test_a_sheet_that_differs_from_the_file_is_told_and_not_passed_over(tmp_path: Path) -> None:
    adata = po.read(write(tmp_path, "proteinGroups.txt", MAXQUANT))
    adata.obs["group"], adata.obs["age"] = ["x", "y"], [41.5, np.nan]
    adata.write_h5ad(tmp_path / "x.h5ad")
    sheet = "sample_id,group,age,plate\na_1,{},41.5,p\nb_1,y,,q\n"
    same = po.read(tmp_path / "x.h5ad", metadata=write(tmp_path, "s.csv", sheet.format("x")))
    assert list(same.obs.columns) == ["group", "age", "plate", "sample_id"]
    with pytest.raises(DataError, match="columns of the sample sheet with other entries: group"):
        po.read(tmp_path / "x.h5ad", metadata=write(tmp_path, "s.csv", sheet.format("y")))
