"""The page, the script and the provenance of a run; the reviewers' form and their agreement."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
from copy import copy
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from proteus_omics.api import Run
from proteus_omics.engine.steps import output, step_of
from proteus_omics.engine.store import Store
from proteus_omics.errors import DataError
from proteus_omics.hypotheses.references import Table, Tables
from proteus_omics.hypotheses.reviews import METRICS, agreement, review_form, weighted_kappa
from proteus_omics.models import Hypothesis, HypothesisDraft, Objective, Step
from proteus_omics.report import write_report
from proteus_omics.report.methods import families, methods_text

EVIL = "<script>alert(1)</script>"


class Steps:
    """A planner of one objective, differences on the log scale, with given statements."""

    name = "rules"

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def propose_objectives(self, profile, tools):
        return (
            Objective(
                id="objective_1", title="Differences", question=f"What differs? {EVIL}", kind="differential"
            ),
        )

    def propose_workflow(self, objective, profile, tools, artifacts):
        from proteus_omics.models import Workflow

        scaled = step_of("transform", {"data": "input"})
        found = step_of("de_limma", {"data": output(scaled, "matrix")})
        return Workflow(id="workflow_1", objective_id=objective.id, steps=(scaled, found))

    def after_step(self, objective, step, brief):
        from proteus_omics.planner.base import StepDecision

        return StepDecision()

    def repair(self, step: Step, error: str) -> None:
        return None

    def interpret(self, objective, results):
        return [HypothesisDraft(title="t", text=text) for text in self.texts]

    def follow_up(self, objective, results):
        return ()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    import proteus_omics as po
    from proteus_omics.demo import demo_data

    data = demo_data()
    data.var["gene"] = [EVIL if number == 299 else name for number, name in enumerate(data.var["gene"])]
    cell = "de:PROT000|drug_vs_control"
    texts = [
        f"PROT000 is increased in drug compared with control (log2 fold change {{{{{cell}:log2fc|.2f}}}}, "
        f"q = {{{{{cell}:q_value|.2g}}}}).",
        f"PROT001 is increased in drug compared with control. {EVIL}",
        "{{count(de.drug_vs_control, q<0.05)}} proteins differ between drug and control.",
    ]
    out = tmp_path_factory.mktemp("run") / "run"
    return po.run(
        data, design=po.Design(condition="treatment", reference="control"), out=out, planner=Steps(texts)
    )


class _Page(HTMLParser):
    """Scripts, addresses and ids of a page; raises nothing, counts open tags."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.links, self.ids, self.marks = 0, [], set(), []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.scripts += tag == "script"
        self.links += [found[name] for name in ("href", "src") if name in found]
        self.ids |= {found["id"]} if "id" in found else set()
        if tag == "mark":
            self.marks.append((found["class"], found["title"]))


def test_the_page_is_one_file_and_every_link_leads_somewhere(run: Run) -> None:
    page = _Page()
    page.feed(run.report.read_text(encoding="utf-8"))
    assert page.scripts == 1
    for link in page.links:
        assert not link.startswith(("http", "//"))
        if link.startswith("#"):
            assert link[1:] in page.ids
        elif not link.startswith("data:"):
            assert (run.folder / link).is_file(), link


def test_names_from_the_data_are_text_and_no_markup(run: Run) -> None:
    text = run.report.read_text(encoding="utf-8")
    assert EVIL not in text
    assert "&lt;script&gt;alert(1)" in text


def test_verified_numbers_name_their_cell_and_contradicted_ones_are_shown_as_that(run: Run) -> None:
    page = _Page()
    page.feed(run.report.read_text(encoding="utf-8"))
    verified = [title for verdict, title in page.marks if verdict == "verified"]
    assert sum("de:PROT000|drug_vs_control:log2fc" in title for title in verified) == 2  # word and number
    assert any(verdict == "contradicted" for verdict, _ in page.marks)
    status = [one.status for one in run.hypotheses]
    assert sorted(status) == ["contradicted", "verified", "verified"]
    assert run.hypotheses[-1].rank is None


def test_the_script_makes_identical_tables_and_tells_a_changed_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    monkeypatch.setattr(sys, "argv", ["reproduce.py"])

    def again() -> tuple[object, str]:
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(copy / "reproduce.py"), run_name="__main__")
        return end.value.code, capsys.readouterr().out

    code, said = again()
    assert not code
    assert "2 tables compared, 0 differ" in said
    (table,) = copy.glob("tables/*__de.parquet")
    changed = pd.read_parquet(table)
    changed.loc[0, "log2fc"] += 1e-9
    changed.to_parquet(table, index=False)
    code, said = again()
    assert code
    assert "1 differ" in said


def test_the_same_run_gives_the_same_report(run: Run) -> None:
    names = ("report.html", "methods.md", "reproduce.py", "prov.json", "review.csv")
    before = {name: (run.folder / name).read_bytes() for name in names}
    write_report(Run(run.folder))
    assert before == {name: (run.folder / name).read_bytes() for name in names}


def test_provenance_leads_from_a_statement_to_the_data(run: Run) -> None:
    document = json.loads((run.folder / "prov.json").read_text())
    made_by = {one["prov:entity"]: one["prov:activity"] for one in document["wasGeneratedBy"].values()}
    at = next(iter(document["wasDerivedFrom"].values()))["prov:usedEntity"]
    seen = [at]
    while at != "proteus:input":
        at = next(
            one["prov:entity"] for one in document["used"].values() if one["prov:activity"] == made_by[at]
        )
        seen.append(at)
    assert len(seen) == 3
    for one in document["entity"].values():
        if "proteus:path" in one:
            assert Store(run.folder).intact(one["proteus:path"], one["proteus:sha256"])


def test_methods_name_every_step_and_every_family(run: Run) -> None:
    text = (run.folder / "methods.md").read_text()
    assert "`transform`" in text
    assert re.search(r"\| de \| drug_vs_control \| \d+ \| \d+ \|", text)


def test_each_collection_of_gene_sets_is_a_family_and_gsea_s_own_q_is_called_that(run: Run) -> None:
    assert "It is that of Benjamini and Hochberg.\n" in methods_text(run)
    sets = pd.DataFrame(
        {
            "term": ["A", "B", "C"],
            "contrast": "b_vs_a",
            "collection": ["GO", "Hallmark", "Hallmark"],
            "nes": [1.0, 2.0, 0.1],
            "q_value": [0.2, 0.01, 0.9],
        }
    )
    table = {**run.index, "gsea": Table("gsea", sets, ("term", "contrast"), {"q_value": "q"})}
    enriched = copy(run)
    step = run.results[0].model_copy(update={"table_id": "gsea", "kind": "gsea_prerank"})
    vars(enriched)["index"] = Tables(table)
    vars(enriched)["record"] = run.record | {"results": [step.model_dump()]}
    found = families(enriched)
    rows = found[found["table"] == "gsea"].values.tolist()
    assert rows == [["gsea", "b_vs_a", "GO", 1, 0], ["gsea", "b_vs_a", "Hallmark", 2, 1]]
    text = methods_text(enriched)
    assert "| gsea | b_vs_a, Hallmark | 2 | 1 |" in text
    assert "but in gsea the FDR of GSEA" in text


def test_the_form_has_a_row_a_hypothesis_and_empty_scores(run: Run) -> None:
    form = review_form(run.hypotheses)
    assert list(form["hypothesis"]) == [one.id for one in run.hypotheses]
    assert (form[[*METRICS, "comment"]] == "").all(axis=None)


def _scores(values: list[int]) -> pd.DataFrame:
    return pd.DataFrame(
        {"hypothesis": [f"h{i}" for i in range(len(values))], **dict.fromkeys(METRICS, values)}
    )


def test_kappa_is_cohens_with_quadratic_weights() -> None:
    a, b = np.array([1, 2, 3, 4, 5, 3.0]), np.array([1, 3, 3, 5, 4, 2.0])
    # Observed mean square 4/6; over all 36 pairs: var(a) + var(b) + (mean difference)^2 = 5/3 + 5/3.
    assert weighted_kappa(a, b) == pytest.approx(1 - (4 / 6) / (10 / 3))


def test_agreement_of_the_same_scores_is_one_and_of_turned_ones_minus_one() -> None:
    same = agreement(_scores([1, 2, 3, 4, 5]), _scores([1, 2, 3, 4, 5]))
    assert same["kappa"].tolist() == pytest.approx([1.0] * 5)
    assert same["spearman"].tolist() == pytest.approx([1.0] * 5)
    turned = agreement(_scores([1, 2, 3, 4, 5]), _scores([5, 4, 3, 2, 1]))
    assert turned["spearman"].tolist() == pytest.approx([-1.0] * 5)
    assert (turned["n"] == 5).all()


def test_agreement_says_what_is_wrong_with_scores() -> None:
    with pytest.raises(DataError, match="1 to 5; that of h1"):
        agreement(_scores([1, 6, 3]), _scores([1, 2, 3]))
    with pytest.raises(DataError, match="lacks the columns novelty"):
        agreement(_scores([1, 2]).drop(columns="novelty"), _scores([1, 2]))
    few = agreement(_scores([1, 2]), _scores([1, 2]))
    assert few["kappa"].isna().all()


def test_no_verified_hypothesis_is_said_and_none_is_invented(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    one = run.hypotheses[-1]
    assert isinstance(one, Hypothesis)
    Store(copy).write_json("hypotheses.json", {"run": run.id, "hypotheses": []})
    text = write_report(Run(copy)).read_text(encoding="utf-8")
    assert "No hypothesis was verified" in text
