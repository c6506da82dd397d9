"""The command: what each verb shows, and that a mistake is a message and a code, never a traceback."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from proteus_omics import cli
from proteus_omics.demo import demo_data


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["proteus-omics", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        sys.exit(cli.main())  # type: ignore[func-returns-value]  # main itself ends with a code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return int(ended.value.code or 0), said.out, said.err


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made data as a user has them: a matrix of proteins x samples, and a sheet."""
    folder = tmp_path_factory.mktemp("table")
    data = demo_data()
    values = pd.DataFrame(np.asarray(data.X).T, index=data.var_names, columns=data.obs_names)
    values.rename_axis("gene").to_csv(folder / "proteins.tsv", sep="\t")
    data.obs.rename_axis("sample_id").to_csv(folder / "samples.csv")
    return folder


def test_a_table_becomes_a_verified_run(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (table / "proteins.tsv", "--metadata", table / "samples.csv")
    run = ("run", *given, "--condition", "treatment", "--out", tmp_path / "run")
    code, _, error = call(monkeypatch, capsys, *run, "--max-steps", 5)
    assert code == 4
    assert "resume --max-steps" in error
    code, shown, error = call(monkeypatch, capsys, "resume", tmp_path / "run")
    assert code == 0
    assert "not answered: pathways: no gene sets were given" in error
    assert shown.startswith("  1. PROT")
    assert "0 flagged" in shown
    code, shown, _ = call(monkeypatch, capsys, "verify", tmp_path / "run")
    assert code == 0
    assert "all as recorded" in shown
    (tmp_path / "run" / "report.html").unlink()
    code, shown, _ = call(monkeypatch, capsys, "report", tmp_path / "run")
    assert code == 0
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_run_without_a_finding_says_what_it_could_have_seen_and_what_was_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.exp2(np.random.default_rng(0).normal(20, 0.3, (20, 10)))
    values[9:, [2, 3, 4, 7, 8, 9]] = np.nan  # 11 proteins are in two of five samples of either group
    names = [f"sample{n}" for n in range(10)]
    pd.DataFrame(values, [f"G{n}" for n in range(20)], names).to_csv(tmp_path / "few.tsv", sep="\t")
    pd.DataFrame({"sample_id": names, "treatment": ["control"] * 5 + ["drug"] * 5}).to_csv(
        tmp_path / "samples.csv", index=False
    )
    given = ("run", tmp_path / "few.tsv", "--metadata", tmp_path / "samples.csv")
    code, shown, error = call(
        monkeypatch, capsys, *given, "--condition", "treatment", "--out", tmp_path / "a"
    )
    assert "filter_missing leaves 9 proteins" in error
    assert "(--min-frac)" in error
    code, shown, _ = call(
        monkeypatch, capsys, *given, "--condition", "treatment", "--out", tmp_path / "b", "--min-frac", 0.3
    )
    assert code == 0
    assert "no protein differs in drug compared with control: " in shown
    assert "(power 0.8)" in shown
    code, _, error = call(monkeypatch, capsys, *given, "--out", tmp_path / "c", "--max-steps", 1)
    assert "no --condition was given (treatment?)" in error


def test_inspect_shows_the_profile_without_samples(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (table / "proteins.tsv", "--metadata", table / "samples.csv", "--condition", "treatment")
    code, shown, _ = call(monkeypatch, capsys, "inspect", *given)
    assert code == 0
    assert json.loads(shown)["levels"] == {"control": 6, "drug": 6}
    assert "sample00" not in shown


def test_the_modality_of_a_file_of_cells_is_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = demo_data()
    del cells.uns["proteus"]
    cells.obs["person"] = [
        f"p{number // 2 % 4}{level}" for number, level in enumerate(cells.obs["treatment"])
    ]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    given = (tmp_path / "cells.h5ad", "--condition", "treatment", "--sample", "person")
    for verb in (("inspect", *given), ("run", *given, "--out", tmp_path / "run")):
        code, _, error = call(monkeypatch, capsys, *verb)
        assert (code, "cells are not replicates" in error) == (3, True), verb
        code, _, error = call(monkeypatch, capsys, *verb, "--modality", "tissue")
        assert (code, "modality is 'tissue'; it is one of bulk" in error) == (2, True), verb
    code, shown, _ = call(monkeypatch, capsys, "inspect", *given, "--modality", "single_cell")
    assert (code, json.loads(shown)["levels"]) == (0, {"control": 4, "drug": 4})
    pytest.importorskip("mcp", reason="needs proteus-omics[mcp]")
    code, _, error = call(monkeypatch, capsys, "serve", *given, "--modality", "tissue")
    assert (code, "modality is 'tissue'" in error) == (2, True)


def test_tools_and_knowledge_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "de_limma" in call(monkeypatch, capsys, "tools")[1]
    assert "outputs: de (table)" in call(monkeypatch, capsys, "tools", "de_limma")[1]
    code, shown, _ = call(monkeypatch, capsys, "knowledge", "list", tmp_path)
    assert code == 0
    assert "CC BY 4.0" in shown
    (tmp_path / "own.gmt").write_text("SET\tname\tG1\tG2\n")
    assert "own.gmt  put there by you" in call(monkeypatch, capsys, "knowledge", "list", tmp_path)[1]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (("--condition", "nothing"), 3, "'nothing', which is not there; there are"),
        (
            ("--condition", "treatment", "--reference", "x"),
            3,
            "no level of treatment; there are control, drug",
        ),
        (("--condition", "treatment", "--batch", "treatment"), 3, "two roles in the design: treatment"),
        (("--condition", "treatment", "--scale", "log2"), 2, "no logarithm does"),
        (("--condition", "treatment", "--max-seconds", "1e-9"), 4, "resume --max-seconds S goes on"),
        (("--normalization", "best"), 2, "'best'; it is one of auto, none, median"),
        (("--cassette-mode", "play"), 2, "'play'; it is one of record, replay"),
        (("--planner", "llm"), 2, "--planner llm needs --base-url and --model"),
        (("--seed", "-1"), 2, "Invalid value for '--seed'"),
        (("--max-steps", "0"), 2, "--max-steps is 0: input should be greater than or equal to 1"),
        (("--planner", "magic"), 2, "it is rules or llm"),
        (("--quantity", "LFQ", "--knowledge", "/nowhere"), 2, "no knowledge folder"),
    ],
)
def test_mistakes_have_a_code_and_a_sentence(
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    given = (table / "proteins.tsv", "--metadata", table / "samples.csv", "--out", tmp_path / "run")
    ended, _, error = call(monkeypatch, capsys, "run", *given, *change)
    assert ended == code, error
    assert message in " ".join(error.replace("│", " ").split())


def test_folders_that_are_no_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("verify", "resume", "report"):
        code, _, error = call(monkeypatch, capsys, verb, tmp_path)
        assert code == 2
        assert "is no run" in error
    (tmp_path / "run.json").write_text("{")
    code, _, error = call(monkeypatch, capsys, "report", tmp_path)
    assert code == 2
    assert "run.json is damaged" in error
    (tmp_path / "run.json").unlink()
    judge = ("--base-url", "http://localhost:9/v1", "--model", "m")
    assert call(monkeypatch, capsys, "score", tmp_path, *judge)[0] == 2
    assert call(monkeypatch, capsys, "tools", "magic")[0] == 2
    assert call(monkeypatch, capsys, "batch", tmp_path / "none.csv")[0] == 2
    (tmp_path / "empty.csv").touch()
    code, _, error = call(monkeypatch, capsys, "batch", tmp_path / "empty.csv")
    assert code == 2
    assert "empty.csv is no table with commas" in error


def test_a_defect_is_not_told_as_a_mistake_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object, **__: object) -> None:
        np.ones(2) + np.ones(3)

    monkeypatch.setattr("proteus_omics.tools.registry.all_tools", defect)
    with pytest.raises(ValueError, match="could not be broadcast"):
        cli.main(["tools"])


@pytest.mark.slow
def test_a_batch_tells_of_each_run(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("input,out,colour\nx,y,z\n")
    code, _, error = call(monkeypatch, capsys, "batch", manifest)
    assert code == 2
    assert "unknown columns colour" in error
    manifest.write_text(f"input,out\n{tmp_path / 'none.tsv'},{tmp_path / 'run'}\n")
    code, shown, _ = call(monkeypatch, capsys, "batch", manifest)
    assert code == 1
    assert shown.startswith("2  ")
    assert "there is no file" in shown
