"""Whole runs with the rules: what they find, and that nothing finished is lost or done twice."""

from __future__ import annotations

import errno
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

import proteus_omics as po
from proteus_omics.demo import demo_data
from proteus_omics.engine import store as stores
from proteus_omics.engine.lock import writing
from proteus_omics.errors import ResumeError, VerifyError
from proteus_omics.stats import n_needed

DESIGN = po.Design(condition="treatment", reference="control")


def events(folder: Path, kind: str) -> list[dict[str, object]]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [one for one in map(json.loads, lines) if one["event"] == kind]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> po.Run:
    return po.run(demo_data(), design=DESIGN, out=tmp_path_factory.mktemp("run") / "demo")


def test_the_rules_ask_what_the_data_can_answer(finished: po.Run) -> None:
    asked = {one.kind: one.status for one in finished.objectives}
    assert asked == {
        "quality": "done",
        "traits": "done",
        "differential": "done",
        "effect_consistency": "done",
        "pathways": "skipped",
        "network": "skipped",
    }
    reasons = {one.kind: one.reason for one in finished.objectives}
    assert reasons["pathways"] == "no gene sets were given"


def test_what_it_says_is_true_and_verified(finished: po.Run) -> None:
    truth = demo_data().var["truth"]
    said = [one for one in finished.hypotheses if one.kind == "differential" and one.entities]
    assert len(said) > 20
    right = [
        np.sign(truth[one.entities[0]]) == (1 if one.prediction.direction == "up" else -1)
        for one in said
        if one.prediction is not None
    ]
    assert np.mean(right) > 0.9
    assert {one.status for one in finished.hypotheses} == {"verified"}
    assert [one.rank for one in finished.hypotheses] == list(range(1, len(finished.hypotheses) + 1))
    for one in said:
        assert {"reliability", "coherence", "literature", "novelty", "evaluability"} == set(one.scores)
        assert one.prediction is not None
        assert one.prediction.n_needed is not None
    assert set(finished.entities()) <= set(finished.tables.entities())


def test_a_prediction_needs_samples_by_the_posterior_sd(finished: po.Run) -> None:
    de = finished.tables["de"].set_index("protein")
    needed = {
        one.entities[0]: one.prediction.n_needed
        for one in finished.hypotheses
        if one.kind == "differential" and one.prediction is not None
    }
    assert needed == {name: n_needed(de.loc[name, "log2fc"], de.loc[name, "sd_post"]) for name in needed}


def test_the_same_seed_gives_the_same_bytes(finished: po.Run, tmp_path: Path) -> None:
    again = po.run(demo_data(), design=DESIGN, out=tmp_path / "again")
    for name in ("hypotheses.json", "ledger.json"):
        assert (again.folder / name).read_bytes() == (finished.folder / name).read_bytes()
    assert again.id == finished.id


def test_a_repeated_command_does_nothing_twice(finished: po.Run) -> None:
    before = len(events(finished.folder, "step_started"))
    again = po.run(demo_data(), design=DESIGN, out=finished.folder)
    assert len(events(finished.folder, "step_started")) == before
    assert again.hypotheses == finished.hypotheses


def test_another_run_s_steps_are_taken_from_its_folder(finished: po.Run, tmp_path: Path) -> None:
    again = po.run(demo_data(), design=DESIGN, out=tmp_path / "cached", cache=finished.folder)
    assert not events(again.folder, "step_started")
    assert again.hypotheses == finished.hypotheses


def test_a_spent_budget_keeps_what_was_done_and_is_gone_on_with(finished: po.Run, tmp_path: Path) -> None:
    part = po.run(demo_data(), design=DESIGN, out=tmp_path / "part", budget=po.Budget(max_steps=4))
    assert part.exit_code == 4
    assert "resume --max-steps" in part.record["stopped"]
    assert len(events(part.folder, "step_finished")) == 4
    whole = po.resume(part.folder)
    assert whole.exit_code == 0
    assert whole.hypotheses == finished.hypotheses


def test_a_run_and_its_knowledge_may_be_moved_and_gone_on_with_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    (project / "knowledge").mkdir(parents=True)
    (project / "knowledge" / "own.gmt").write_text("SET\tname\tPROT001\tPROT002\n")
    monkeypatch.chdir(project)
    few = po.Budget(max_steps=2)
    begun = po.run(demo_data(), design=DESIGN, out="runs/a", knowledge="knowledge", budget=few)
    assert begun.record["settings"]["knowledge"] == "../../knowledge"
    monkeypatch.chdir(tmp_path)
    moved = project.rename(tmp_path / "elsewhere")
    assert po.resume(moved / "runs" / "a", budget=few).exit_code == 4
    monkeypatch.setattr(sys, "argv", ["reproduce.py"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(moved / "runs" / "a" / "reproduce.py"), run_name="__main__")
    assert ended.value.code == 0
    other = (moved / "knowledge").rename(tmp_path / "other")
    with pytest.raises(SystemExit, match=r"no folder .*knowledge: give that of the knowledge"):
        runpy.run_path(str(moved / "runs" / "a" / "reproduce.py"), run_name="__main__")
    po.run(demo_data(), design=DESIGN, out=moved / "runs" / "a", knowledge=other, budget=few)


def test_verify_finds_every_change(finished: po.Run, tmp_path: Path) -> None:
    run = po.run(demo_data(), design=DESIGN, out=tmp_path / "run", cache=finished.folder)
    found = po.verify(run.folder)
    assert found.statements == len(run.hypotheses)
    written = [path for path in run.folder.glob("*/*") if not path.name.startswith(".")]
    assert found.files == len(written)  # the data and, though from a cache, the copies for people among them
    for path in (run.folder / "data" / "input.h5ad", next((run.folder / "tables").glob("*__de.tsv"))):
        before = path.read_bytes()
        path.write_bytes(before + b"more")
        with pytest.raises(VerifyError, match=f"{path.name} is missing or changed"):
            po.verify(run.folder)
        path.unlink()
        with pytest.raises(VerifyError, match=f"{path.name} is missing or changed"):
            po.verify(run.folder)
        path.write_bytes(before)
    path = run.folder / "hypotheses.json"
    content = json.loads(path.read_text())
    first = content["hypotheses"][0]
    first["statement"] = (
        first["statement"].replace("increased", "decreased")
        if "increased" in first["statement"]
        else first["statement"].replace("decreased", "increased")
    )
    path.write_text(json.dumps(content))
    with pytest.raises(VerifyError, match="was verified and is contradicted"):
        po.verify(run.folder)
    (table,) = [one for one in run.results if one.table_id == "de"]
    (run.folder / table.path).write_bytes(b"damaged")
    with pytest.raises(VerifyError, match=f"{table.path} is missing or changed"):
        po.verify(run.folder)
    mended = po.run(demo_data(), design=DESIGN, out=run.folder)
    assert mended.hypotheses == finished.hypotheses


def test_a_folder_of_another_run_is_refused(finished: po.Run) -> None:
    with pytest.raises(ResumeError, match=r"other settings \(alpha\)"):
        po.run(demo_data(), design=DESIGN, out=finished.folder, alpha=0.01)
    with pytest.raises(ResumeError, match="a run of other data"):
        po.run(demo_data(seed=1), design=DESIGN, out=finished.folder)
    relabelled = demo_data()
    relabelled.obs["treatment"] = relabelled.obs["treatment"].astype(str)
    relabelled.obs.iloc[0, relabelled.obs.columns.get_loc("treatment")] = "drug"
    with pytest.raises(ResumeError, match=r"a run of other data \(columns treatment\)"):
        po.run(relabelled, design=DESIGN, out=finished.folder)
    with pytest.raises(ResumeError, match=r"a run of other data \(scale ratio, was linear\)"):
        po.run(demo_data(), design=DESIGN, out=finished.folder, scale="ratio")
    with pytest.raises(ResumeError, match="has a run already"):
        po.run(demo_data(), design=DESIGN, out=finished.folder, resume="never")
    with pytest.raises(ResumeError, match="is no run"):
        po.resume(finished.folder.parent)


def test_a_sparse_matrix_is_gone_on_with(tmp_path: Path) -> None:
    data = demo_data()
    data.X = csr_matrix(np.nan_to_num(data.X))
    whole = po.run(data, design=DESIGN, out=tmp_path / "run")
    repeated = po.run(data, design=DESIGN, out=tmp_path / "run")
    assert repeated.hypotheses == whole.hypotheses != []


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ResumeError, match=r"is no run and not empty \(thesis.tex\)"):
        po.run(demo_data(), design=DESIGN, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_writers_do_not_meet(finished: po.Run) -> None:
    with writing(finished.folder), pytest.raises(ResumeError, match=f"process {os.getpid()} is writing"):
        po.run(demo_data(), design=DESIGN, out=finished.folder)


def test_a_full_disk_loses_nothing_that_was_finished(
    finished: po.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(stores.os, "fsync", full)
        with pytest.raises(ResumeError, match="No space left on device"):
            po.run(demo_data(), design=DESIGN, out=tmp_path / "full")
    done = len(events(tmp_path / "full", "step_finished"))
    assert done > 0
    whole = po.resume(tmp_path / "full")
    assert whole.hypotheses == finished.hypotheses
    started = [one["step"] for one in events(tmp_path / "full", "step_finished")]
    assert len(started) == len(set(started))


def test_a_half_written_event_is_cut_off(finished: po.Run, tmp_path: Path) -> None:
    run = po.run(demo_data(), design=DESIGN, out=tmp_path / "run", cache=finished.folder)
    with (run.folder / "events.jsonl").open("a") as file:
        file.write('{"event": "step_sta')
    assert po.resume(run.folder).hypotheses == finished.hypotheses
    lines = (run.folder / "events.jsonl").read_text().splitlines()
    lines[3] = lines[3][:20]
    (run.folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ResumeError, match="line 4, is damaged"):
        po.resume(run.folder)


def test_no_hits_is_a_result_and_invents_nothing(tmp_path: Path) -> None:
    data = demo_data()
    data.X = np.asarray(data.X)[np.random.default_rng(3).permutation(len(data))]
    run = po.run(data, design=DESIGN, out=tmp_path / "none")
    assert not (run.tables["de"]["q_value"] < 0.05).any()
    assert [one for one in run.hypotheses if one.kind == "differential"] == []
    assert run.exit_code == 0
    assert run.tables["de_models"]["detectable_log2fc"].iloc[0] > 0


def test_too_few_proteins_answer_nothing_and_the_run_says_what_to_loosen(tmp_path: Path) -> None:
    run = po.run(demo_data()[:, :5].copy(), design=DESIGN, out=tmp_path / "few")
    assert run.exit_code == 3
    assert "--min-frac" in run.record["stopped"]
    assert run.report.is_file()


def test_groups_of_one_sample_get_fold_changes_and_no_statement(tmp_path: Path) -> None:
    data = demo_data()
    pair = data[[0, 1]].copy()
    run = po.run(pair, design=DESIGN, out=tmp_path / "pair", test=False)
    de = run.tables["de"]
    assert de["log2fc"].notna().any()
    assert de[["p_value", "q_value"]].isna().all(axis=None)
    assert run.hypotheses == []


def test_the_run_s_alpha_is_that_of_its_statements(finished: po.Run, tmp_path: Path) -> None:
    strict = po.run(demo_data(), design=DESIGN, out=tmp_path / "strict", alpha=1e-5)
    hits = strict.tables["de"].query("q_value < 1e-5")["protein"]
    said = {one.entities[0] for one in strict.hypotheses if one.kind == "differential" and one.entities}
    assert said == set(hits)
    assert 0 < len(said) < len(finished.hypotheses)
    assert {one.status for one in strict.hypotheses} == {"verified"}


def test_objectives_that_are_skipped_cost_no_budget(tmp_path: Path) -> None:
    few = po.run(demo_data(), design=DESIGN, out=tmp_path / "few", budget=po.Budget(max_objectives=2))
    ended = {one.kind: (one.status, one.reason) for one in few.objectives}
    assert [kind for kind, (status, _) in ended.items() if status == "done"] == ["quality", "differential"]
    spent = "the budget of 2 objectives is spent: resume --max-objectives N goes on"
    assert ended["traits"] == ("skipped", spent)
    assert ended["network"] == ("skipped", "no interactions were given")


def test_predictions_are_tested_in_another_cohort(finished: po.Run) -> None:
    found = po.validate(finished, demo_data(seed=5), design=DESIGN)
    assert found.attrs["replication_rate"] > 0.8
    assert set(found.loc[found["replicated"], "same_direction"]) == {True}
    loaded = demo_data(seed=5)
    loaded.X[(loaded.obs["treatment"] == "drug").to_numpy()] *= 8  # more was put on the column, no biology
    again = po.validate(finished, loaded, design=DESIGN)
    np.testing.assert_allclose(again["log2fc"], found["log2fc"], atol=1e-9)


@pytest.mark.slow
def test_two_runs_side_by_side(finished: po.Run, tmp_path: Path) -> None:
    other = po.run(demo_data(seed=5), design=DESIGN, out=tmp_path / "other")
    found = po.compare(finished, other)
    assert set(found["in"]) == {"both", "first", "second"}
    assert len(found) == len(finished.hypotheses) + len(other.hypotheses) - (found["in"] == "both").sum()


@pytest.mark.long
def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(finished: po.Run, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "proteus_omics", "demo", "--out", str(tmp_path / "killed")]
    whole = po.run(demo_data(), design=po.Design(condition="treatment"), out=tmp_path / "whole")
    draw = random.Random(0)
    for _ in range(6):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(3, 12))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    ended = tmp_path / "killed"
    assert (ended / "hypotheses.json").read_bytes() == (whole.folder / "hypotheses.json").read_bytes()
    steps = [one["step"] for one in events(ended, "step_finished")]
    assert len(steps) == len(set(steps))
    po.verify(ended)
