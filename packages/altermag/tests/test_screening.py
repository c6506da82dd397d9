from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from altermag import AltermagError, Monolayer
from altermag.exfoliation import exfoliate
from altermag.io import Crystal
from altermag.prototypes import dihalide

pandas = pytest.importorskip("pandas", reason="needs altermag[screen]")
pytest.importorskip("pyarrow", reason="needs altermag[screen]")

from altermag import screening  # noqa: E402


def crystal_of(layer: Monolayer, copies: int = 2, apart: float = 6.0) -> Crystal:
    """Layers on top of each other, the moments of every second one reversed."""
    lattice = layer.lattice.copy()
    height = layer.heights
    lattice[2] = (0.0, 0.0, copies * apart)
    frac = [np.c_[layer.frac_coords[:, :2], (height + n * apart) / lattice[2, 2] % 1] for n in range(copies)]
    moments = np.concatenate([(-1) ** n * layer.magmoms for n in range(copies)])
    return Crystal(lattice, np.concatenate(frac), layer.species * copies, moments)


def save(crystal: Crystal, path: Path) -> None:
    fields = {
        "lattice": crystal.lattice.tolist(),
        "frac_coords": crystal.frac_coords.tolist(),
        "species": list(crystal.species),
    }
    if crystal.magmoms is not None:
        fields["magmoms"] = crystal.magmoms.tolist()
    path.write_text(json.dumps(fields), encoding="utf-8")


def test_a_layered_crystal_gives_its_monolayer_once_with_its_moments() -> None:
    layer = dihalide("Ni", "Cl", a=3.48, height=1.36)
    (found,) = exfoliate(crystal_of(layer))
    assert found.layer_group.number == 72
    assert sorted(found.species) == ["Cl", "Cl", "Ni"]
    assert np.abs(found.magmoms[[name == "Ni" for name in found.species]]) == pytest.approx([1.0])
    assert found.lattice[2, 2] > found.thickness + 15


def test_an_antiferromagnetic_layer_keeps_its_order_in_the_plane() -> None:
    layer = dihalide("Ni", "Cl", a=3.48, height=1.36)
    doubled = layer.lattice * [[2], [1], [1]]
    frac = np.concatenate([layer.frac_coords * [0.5, 1, 1], layer.frac_coords * [0.5, 1, 1] + [0.5, 0, 0]])
    stripes = Monolayer.from_arrays(
        doubled, frac, layer.species * 2, np.r_[layer.magmoms, -layer.magmoms], 2, whole=True
    )
    (found,) = exfoliate(crystal_of(stripes))
    assert len(found.species) == 6
    assert found.magmoms.sum() == pytest.approx(0)


def test_a_crystal_that_is_not_layered_is_told_what_it_is() -> None:
    cubic = Crystal(
        np.eye(3) * 2.8, np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]), ("Fe", "Fe"), np.array([2.0, -2])
    )
    with pytest.raises(AltermagError, match=r"not layered: its bonds are 3D"):
        exfoliate(cubic)
    silent = crystal_of(dihalide("Ni", "Cl", a=3.48, height=1.36))._replace(magmoms=None)
    with pytest.raises(AltermagError, match="no moments"):
        exfoliate(silent)


@pytest.fixture
def folder(tmp_path: Path, ptbr3: Monolayer) -> Path:
    """Two good structures, one that is no structure, one with no moments."""
    found = tmp_path / "structures"
    found.mkdir()
    save(crystal_of(ptbr3, apart=6.4), found / "a_ptbr3.json")
    (found / "b_broken.cif").write_text("data_nothing", encoding="utf-8")
    save(crystal_of(dihalide("Ni", "Cl", a=3.48, height=1.36)), found / "c_nicl2.json")
    save(crystal_of(ptbr3, apart=6.4)._replace(magmoms=None), found / "d_silent.json")
    return found


def test_screening_tells_where_altermagnets_are_and_records_what_fails(folder: Path, tmp_path: Path) -> None:
    table = screening.screen(folder, tmp_path / "table.parquet", ops=("mirror", "identity"), symprecs=(1e-3,))
    again = pandas.read_parquet(tmp_path / "table.parquet")
    assert list(again.columns) == list(screening.COLUMNS)
    assert len(again) == len(table) == 2 + 1 + 2 + 1
    rows = {(Path(row.source).name, row.op): row for row in again[again["error"].isna()].itertuples()}
    platinum = rows["a_ptbr3.json", "mirror"]
    assert (platinum.monolayer_symbol, platinum.monolayer_moments) == ("p-31m", "parallel")
    assert {"i", "d"} == set(platinum.waves.split(", "))
    assert "p321" in platinum.layer_groups
    assert {"(1/3,2/3)", "(2/3,1/3)"} & set(platinum.altermagnetic_shifts.split())
    assert "chirality" in platinum.partners
    assert platinum.polar_shifts
    assert rows["a_ptbr3.json", "identity"].altermagnetic_shifts == ""  # P flips the spins at every shift
    assert rows["c_nicl2.json", "mirror"].waves == "d"
    failed = again[again["error"].notna()]
    assert [Path(source).name for source in failed["source"]] == ["b_broken.cif", "d_silent.json"]
    assert "no moments" in failed["error"].iloc[1]


def test_an_interrupted_screening_leaves_its_table_and_resumes_with_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = screening.screen(folder, tmp_path / "whole.parquet", ops=("mirror",), symprecs=(1e-3,))
    seen = []
    real = screening.read

    def read(path: Path) -> Crystal:
        seen.append(path.name)
        if path.name == "c_nicl2.json" and seen.count(path.name) == 1:
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(screening, "read", read)
    target = tmp_path / "table.parquet"
    with pytest.raises(KeyboardInterrupt):
        screening.screen(folder, target, ops=("mirror",), symprecs=(1e-3,))
    assert len(pandas.read_parquet(target)) == 2
    # A line that was cut off, and rows of a structure that was not finished, are done again.
    with (tmp_path / "table.parquet.rows.jsonl").open("a") as rows:
        rows.write(json.dumps({"source": str(folder / "c_nicl2.json")}) + "\n" + '{"source": "half')
    table = screening.screen(folder, target, ops=("mirror",), symprecs=(1e-3,))
    assert seen == ["a_ptbr3.json", "b_broken.cif", "c_nicl2.json", "c_nicl2.json", "d_silent.json"]
    pandas.testing.assert_frame_equal(table, whole)
    assert target.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    with pytest.raises(
        AltermagError, match=r"was begun with .*'mirror'.* not .*'c2z'.*; give the same, another"
    ):
        screening.screen(folder, target, ops=("c2z",), symprecs=(1e-3,))
    with pytest.raises(AltermagError, match=r"has .*a_ptbr3\.json, which is not among the structures"):
        screening.screen(folder / "d_silent.json", target, ops=("mirror",), symprecs=(1e-3,))


def test_a_screening_begins_anew_where_it_is_told_to_and_only_over_one_of_its_own(
    folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "table.parquet"
    rows = tmp_path / "table.parquet.rows.jsonl"
    one = folder / "d_silent.json"
    screening.screen(one, target, ops=("mirror",), symprecs=(1e-3,))
    table = screening.screen(one, target, ops=("c2z",), symprecs=(1e-2,), resume=False)
    assert list(table["symprec"]) == [1e-2]
    assert '"mirror"' not in rows.read_text()
    rows.unlink()
    for resume in (True, False):
        with pytest.raises(AltermagError, match="which would say what made it, does not; give another table"):
            screening.screen(one, target, resume=resume)
    target.unlink()
    for foreign in ("my notes\n", "[1]\n", "3\n"):
        rows.write_text(foreign)
        for resume in (True, False):
            with pytest.raises(AltermagError, match="is there and not of a screening"):
                screening.screen(one, target, resume=resume)
        assert rows.read_text() == foreign


def test_a_file_that_has_changed_is_screened_again_in_its_place(
    folder: Path, tmp_path: Path, ptbr3: Monolayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, options = tmp_path / "table.parquet", {"ops": ("mirror",), "symprecs": (1e-3,)}
    before = screening.screen(folder, target, **options)
    assert [Path(source).name for source in before["source"][before["error"].notna()]] == [
        "b_broken.cif",
        "d_silent.json",
    ]
    ptbr3.atoms.write(folder / "b_broken.cif")
    save(crystal_of(ptbr3, apart=6.4), folder / "d_silent.json")
    seen = []
    real = screening.read
    monkeypatch.setattr(screening, "read", lambda path: seen.append(path.name) or real(path))
    after = screening.screen(folder, target, **options)
    assert seen == ["b_broken.cif", "d_silent.json"]
    assert list(after["source"]) == list(before["source"])
    assert "no moments" in after["error"][1]  # a structure now, but a .cif holds none
    assert after["waves"][3] == after["waves"][0]
    pandas.testing.assert_frame_equal(after, screening.screen(folder, tmp_path / "new.parquet", **options))
    screening.screen(folder, target, **options)
    assert len(seen) == 2 + 4


def test_moments_by_element_serve_files_that_have_none(folder: Path, tmp_path: Path) -> None:
    table = screening.screen(
        [folder / "d_silent.json"],
        tmp_path / "t.parquet",
        ops=("mirror",),
        symprecs=(1e-3,),
        magmoms={"Pt": 1.0},
    )
    assert table["waves"].iloc[0]
    page = screening.top(table)
    assert "| d_silent.json |" in page
    assert "Monolayers that have one: 1." in page


def test_a_folder_without_structures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AltermagError, match="has no structures; known are POSCAR"):
        screening.screen(tmp_path, tmp_path / "t.parquet")
    with pytest.raises(AltermagError, match="no such structure"):
        screening.screen([tmp_path / "x.cif"], tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("shift", "text"), [((1 / 3, 2 / 3), "(1/3,2/3)"), ((0.0, 0.5), "(0,1/2)"), ((0.123456, 0), "(0.1235,0)")]
)
def test_shifts_are_shown_as_fractions_where_they_are(shift: tuple[float, float], text: str) -> None:
    assert screening.shown_shift(shift) == text
