from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from altermag import Monolayer, cli
from altermag.cli_models import write_structure
from altermag.dft import gpaw
from altermag.dft.results import DFTResult, check_points
from altermag.stacking import stack


class Shown(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Shown]


@pytest.fixture
def altermag(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: object) -> Shown:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in words])
        shown = capsys.readouterr()
        return Shown(int(ended.value.code or 0), shown.out, shown.err)

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, ptbr3: Monolayer) -> Path:
    """A monolayer without moments, and AB' and AC' bilayers with them."""
    found = tmp_path_factory.mktemp("structures")
    ptbr3.atoms.write(found / "mono.cif")
    (found / "three.json").write_text("3")
    for name, shift in (("AB", (1 / 3, 2 / 3)), ("AC", (1 / 3, 0))):
        write_structure(stack(ptbr3, "mirror", shift, distance=6.35), found / f"{name}.json")
    return found


def test_classify_gives_the_class_with_its_reason(altermag: Command, folder: Path) -> None:
    shown = altermag("classify", folder / "AB.json", "--json")
    assert shown.code == 0
    found = json.loads(shown.out)
    assert (found["kind"], found["wave"], found["n_nodal_lines"]) == ("altermagnet", "i", 6)
    assert "p321 (68)" in altermag("classify", folder / "AB.json").out


def test_classify_scans_tolerances(altermag: Command, folder: Path) -> None:
    found = json.loads(altermag("classify", folder / "AB.json", "--symprec-scan", "--json").out)
    assert [entry["symprec"] for entry in found] == [1e-4, 1e-3, 1e-2, 3e-2, 1e-1]
    assert {entry["kind"] for entry in found} == {"altermagnet"}


def test_stack_reads_fractions_exactly_and_its_file_classifies_alike(
    altermag: Command, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new.json"
    words = ("--magmoms", "Pt=1", "--op", "mirror", "--shift", "1/3,2/3", "-d", "6.35", "-o", out)
    shown = altermag("stack", folder / "mono.cif", *words, "--json")
    assert shown.code == 0, shown.err
    assert json.loads(shown.out)["shift"] == [1 / 3, 2 / 3]
    assert json.loads(altermag("classify", out, "--json").out)["wave"] == "i"


def test_a_poscar_is_written_and_its_moments_are_told(
    altermag: Command, folder: Path, tmp_path: Path
) -> None:
    words = ("--magmoms", "Pt=1", "--shift", "0,0", "--gap", "3", "-o", tmp_path / "POSCAR")
    shown = altermag("stack", folder / "mono.cif", *words)
    assert shown.code == 0, shown.err
    told = shown.err.split("in its order they are ")[1].split()
    again = altermag("classify", tmp_path / "POSCAR", "--magmoms", ",".join(told), "--json")
    assert json.loads(again.out)["reason"] == "Mz"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("classify", "none.cif"), "none.cif"),
        (("classify", "mono.cif"), "the structure carries no moments"),
        (("classify", "mono.cif", "--magmoms", "Pt:1"), "write Pt=1,Br=0 or a number for each atom"),
        (("classify", "mono.cif", "--from-mcif"), "takes the moments of a .mcif file"),
        (
            ("stack", "mono.cif", "--magmoms", "Pt=1", "--shift", "1/0,0", "-d", "6", "-o", "x.json"),
            "1/0",
        ),
        (("stack", "mono.cif", "--magmoms", "Pt=1", "--shift", "0,0", "-o", "x.json"), "distance"),
        (
            ("stack", "mono.cif", "--magmoms", "Pt=1", "--shift", "0,0", "-d", "6.4", "-o", "x.strange"),
            "ASE does not know this kind of file",
        ),
        (("classify", "."), "a folder, not a structure"),
        (("classify", "three.json"), "not an object"),
        (("classify", "mono.cif", "--magmoms", "Pt=nan"), "a moment is not a finite number"),
        (("classify", "mono.cif", "--magmoms", "Pt=1,Pt=2"), "an element is named twice"),
        (
            ("stack", "mono.cif", "--magmoms", "Pt=1", "--shift", "0,0", "-d", "6.4", "-o", "none/x.json"),
            "there is no folder none",
        ),
        (("bands", "AB.json", "--exchange", "nan"), "exchange=nan"),
        (("kerr", "AB.json", "--electrons", "72", "--emax", "-1"), "--emax -1.0"),
        (
            ("kerr", "AB.json", "--electrons", "72", "--substrate", "0", "--mesh", "1", "-n", "2"),
            "n_substrate=0.0",
        ),
        (("kpath", "AB.json", "--kind", "short"), "--kind short: it may be generic or standard"),
        (("kerr", "AB.json", "--electrons", "72", "--neel", "z"), "write three numbers, 0,0,1"),
        (("dft", "inputs", "AB.json", "-o", "x", "--engine", "abinit"), "there is no engine 'abinit'"),
        (("dft", "inputs", "AB.json", "-o", "x", "--preset", "hse"), "no preset 'hse'"),
        (("dft", "run", "AB.json", "-o", "x", "--set", "cutoff=5"), "have no cutoff"),
        (("dft", "run", "AB.json", "-o", "x", "--set", "h"), "--set h: write key=value"),
        (("dft", "run", "AB.json", "-o", "x", "--set", "k_mesh=6"), "k_mesh=6; needed: two positive whole"),
        (("dft", "run", "AB.json", "-o", "x", "--set", "k_mesh=[6,0]"), "k_mesh=(6, 0); needed: two"),
        (("dft", "run", "AB.json", "-o", "x", "--set", "hubbard=4"), "hubbard=4; needed: numbers of eV by"),
        (("dft", "run", "AB.json", "-o", "x", "--set", 'hubbard={"Pr": 4}'), "hubbard names Pr, which the"),
        (("dft", "run", "AB.json", "-o", "x", "--set", "h=abc"), "h='abc'; needed: a positive number of Å"),
        (("dft", "run", "AB.json", "-o", "x", "--set", "h=-0.2"), "h=-0.2; needed: a positive number of Å"),
        (("dft", "run", "AB.json", "-o", "x", "--set", "width=null"), "width=None; needed: a number of eV"),
        (("dft", "run", "AB.json", "-o", "x", "--set", "density=NaN"), "density=nan; needed: a positive"),
        (("dft", "run", "AB.json", "-o", "x", "--set", "max_iterations=1.5"), "max_iterations=1.5; needed"),
        (("dft", "run", "AB.json", "-o", "x", "--set", "xc=3"), "xc=3; needed: the name of a functional"),
        (("dft", "inputs", "AB.json", "-o", "mono.cif"), "mono.cif: File exists"),
        (("screen", "empty", "-o", "t.parquet"), "no such structure: empty"),
        (("screen", ".", "-o", "t.csv"), "name it t.parquet"),
        (("screen", ".", "-o", "t.parquet", "--ops", "foo"), "unknown operator 'foo'"),
        (("screen", ".", "-o", "t.parquet", "--symprecs", "0,1e-2"), "needed: positive tolerances"),
        (("screen", ".", "-o", "t.parquet", "--magmoms", "1,1"), "give moments by element"),
        (("reproduce", "--quick", "--laptop"), "--quick and --laptop: choose one"),
    ],
)
def test_a_mistake_is_told_in_a_line_with_exit_code_2(
    altermag: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(folder)
    shown = altermag(*words)
    assert shown.code == 2
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert not (folder / "x").exists()


def test_screening_goes_on_by_itself_and_begins_anew_where_it_is_told_to(
    altermag: Command, folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pandas", reason="needs altermag[screen]")
    pytest.importorskip("pyarrow", reason="needs altermag[screen]")
    words = ("screen", folder / "three.json", "-o", tmp_path / "t.parquet", "--symprecs", "1e-3", "--ops")
    for flags in ((), (), ("--resume",), ("--no-resume",)):
        assert altermag(*words, "mirror", *flags).code == 0
    refused = altermag(*words, "c2z")
    assert refused.code == 2
    assert "or --no-resume (resume=False) to start anew" in refused.err
    assert altermag(*words, "c2z", "--no-resume").code == 0


def test_dft_inputs_are_written_by_the_engine_that_is_named(
    altermag: Command, folder: Path, tmp_path: Path
) -> None:
    shown = altermag("dft", "inputs", folder / "AB.json", "-o", tmp_path, "--engine", "espresso", "--json")
    assert [Path(file).name for file in json.loads(shown.out)] == ["scf.in", "bands.in", "run.sh"]


def test_enumerate_says_so_where_shifts_are_not_those_of_the_files_cell(
    altermag: Command, folder: Path, tmp_path: Path, ptbr3: Monolayer
) -> None:
    ptbr3.atoms.repeat((2, 1, 1)).write(tmp_path / "big.cif")
    shown = altermag("enumerate", tmp_path / "big.cif", "--magmoms", "Pt=1")
    assert "the shifts are fractions of its primitive one, whose vectors are (" in shown.err
    assert "1/2" in shown.err
    assert "primitive" not in altermag("enumerate", folder / "mono.cif", "--magmoms", "Pt=1").err


def test_a_run_of_a_structure_without_forced_zeros_does_not_show_one(
    altermag: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(layered: Monolayer, *_: object) -> DFTResult:
        points = check_points(layered)
        bands = np.full((2, len(points), 1), 0.01) * [[[1]], [[-1]]]
        moments = layered.magmoms
        return DFTResult("none", {}, layered.lattice, -1, True, 0, 0, 0, moments, 0, points, bands)

    monkeypatch.setattr(gpaw, "run", run)
    rows = {
        name: [
            line
            for line in altermag("dft", "run", folder / f"{name}.json", "-o", tmp_path).out.splitlines()
            if "splitting" in line
        ]
        for name in ("AB", "AC")
    }
    assert "20.00" in rows["AB"][0]
    assert "no such points" in rows["AC"][0]
    assert "20.00" in rows["AC"][1]


def test_kpath_names_its_points_in_fractions(altermag: Command, folder: Path) -> None:
    found = json.loads(altermag("kpath", folder / "AB.json", "--json").out)
    assert found["special_points"]["M"] == pytest.approx([0.5, 0])
    shown = altermag("kpath", folder / "AB.json").out
    x, y = found["special_points"]["k*"]
    assert f"({x:.4f}, {y:.4f})" in shown
    assert "(0.5000, 0.0000)" in shown


def test_bands_show_nothing_on_the_standard_path_and_something_off_it(
    altermag: Command, folder: Path
) -> None:
    largest = {
        kind: json.loads(altermag("bands", folder / "AB.json", "--kind", kind, "--json").out)[
            "largest_splitting"
        ]
        for kind in ("standard", "generic")
    }
    assert largest["standard"] < 1e-9
    assert largest["generic"] > 1e-4


def test_kerr_says_what_symmetry_allows_and_the_model_agrees(altermag: Command, folder: Path) -> None:
    words = ("--electrons", "72", "--mesh", "2", "-n", "3", "--json")
    silent = json.loads(altermag("kerr", folder / "AB.json", *words).out)
    polar = json.loads(altermag("kerr", folder / "AC.json", *words).out)
    assert "z" not in silent["allowed"]
    assert "z" in polar["allowed"]
    assert np.abs(silent["rotation"]).max() < 1e-9 * np.abs(polar["rotation"]).max()


def test_map_counts_every_shift_and_enumerate_lists_the_special_ones(altermag: Command, folder: Path) -> None:
    found = json.loads(altermag("map", folder / "mono.cif", "--magmoms", "Pt=1", "-n", "6", "--json").out)
    assert sum(found["counts"].values()) == 36
    listed = json.loads(altermag("enumerate", folder / "mono.cif", "--magmoms", "Pt=1", "--json").out)
    assert {"altermagnet", "antiferromagnet"} <= {entry["kind"] for entry in listed}
    waves = {entry["wave"] for entry in listed}
    assert {"i", "d"} <= waves
