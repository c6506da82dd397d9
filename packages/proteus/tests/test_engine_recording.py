"""Answers on record: asked once for the same question, and again where another table is there to read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from proteus_omics.engine.recording import RecordedPlanner
from proteus_omics.engine.store import Store
from proteus_omics.hypotheses.references import Tables
from proteus_omics.models import HypothesisDraft, Objective
from proteus_omics.planner.base import Results
from proteus_omics.planner.rules import RulesPlanner, make

DE = pd.DataFrame({"protein": ["A"], "contrast": ["b_vs_a"], "log2fc": [1.0], "q_value": [0.5]})
GSEA = pd.DataFrame({"term": ["SET"], "contrast": ["b_vs_a"], "nes": [2.0], "q_value": [0.01]})


class Counting(RulesPlanner):
    """The rules, that count what they are asked."""

    def __init__(self) -> None:
        self.asked = 0

    def interpret(self, objective: Objective, results: Results) -> list[HypothesisDraft]:
        self.asked += 1
        return list(super().interpret(objective, results))

    def follow_up(self, objective: Objective, results: Results) -> list[Objective]:
        self.asked += 1
        return list(super().follow_up(objective, results))


def answers(folder: Path, tables: Tables) -> tuple[int, int]:
    """How often the planner of a sitting was asked, and how many drafts the sitting has."""
    planner = Counting()
    recorded = RecordedPlanner(planner, Store(folder))
    results = Results(tables, tables)
    drafts = recorded.interpret(make("pathways"), results)
    recorded.follow_up(make("pathways"), results)
    return planner.asked, len(drafts)


def test_an_interpretation_is_of_the_tables_that_were_there(tmp_path: Path) -> None:
    without, whole = Tables({"de": DE}), Tables({"de": DE, "gsea": GSEA})
    assert answers(tmp_path, without) == (2, 0)  # gseapy was not installed
    assert answers(tmp_path, whole) == (2, 1)
    assert answers(tmp_path, whole) == (0, 1)
