"""The experiment's own checker, and its parts on made data."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind

pytest.importorskip("tenfold", reason="needs proteus-omics[reproduce]")

from proteus_omics.hypotheses.references import Table, Tables
from proteus_omics.planner.readings import READINGS
from proteus_omics.reproduce import judging
from proteus_omics.reproduce.claims import CLAIMS
from proteus_omics.reproduce.experiment import EXPERIMENT, plain_tests
from proteus_omics.reproduce.figures import escapes, proportion_interval, recovered
from proteus_omics.reproduce.mutations import CLAIMS as SENTENCE
from proteus_omics.reproduce.mutations import KINDS, is_true, mutants
from tenfold import Trial
from tenfold.configs import load_config

DE = pd.DataFrame(
    {
        "protein": ["P01833", "O95445"],
        "gene": ["PIGR", "APOM"],
        "contrast": "liver cirrhosis_vs_healthy",
        "log2fc": [1.8234, -0.53],
        "q_value": [0.0131, 0.0048],
    }
)
TRAITS = pd.DataFrame(
    {"protein": ["P1"], "gene": ["ATRN"], "trait": ["bilirubin_level"], "rho": [0.67], "q_value": [0.0021]}
)
TABLES = {"de": DE, "traits": TRAITS}
TRUE = (
    "PIGR is increased in liver cirrhosis compared with healthy (log2 fold change 1.82, q = 0.013).",
    "APOM is decreased in liver cirrhosis compared with healthy (log2 fold change -0.53, q = 0.0048).",
    "ATRN is correlated positively with bilirubin_level (rho = 0.67, q = 0.0021).",
)
FALSE = (
    "PIGR is decreased in liver cirrhosis compared with healthy (log2 fold change 1.82, q = 0.013).",
    "PIGR is increased in healthy compared with liver cirrhosis (log2 fold change 1.82, q = 0.013).",
    "PIGR is increased in liver cirrhosis compared with healthy (log2 fold change 1.83, q = 0.013).",
    "APOM is increased in liver cirrhosis compared with healthy (log2 fold change 1.82, q = 0.013).",
    "PIGR is not significantly increased in liver cirrhosis compared with healthy "
    "(log2 fold change 1.82, q = 0.013).",
    "ATRN is correlated negatively with bilirubin_level (rho = 0.67, q = 0.0021).",
    "Nothing that a template says.",
)  # fmt: skip


def test_the_second_opinion_is_right_on_hand_made_sentences() -> None:
    assert [is_true(one, TABLES) for one in TRUE] == [True] * len(TRUE)
    assert [is_true(one, TABLES) for one in FALSE] == [False] * len(FALSE)


@pytest.mark.parametrize("statement", TRUE)
def test_mutants_are_other_sentences_of_the_same_templates(statement: str) -> None:
    others, levels = ["PIGR", "APOM", "ATRN", "AFM"], ["healthy", "liver cirrhosis"]
    changed = dict(mutants(statement, others, levels, random.Random(0)))
    assert list(changed) == [kind for kind in KINDS if kind in changed]
    found = list(changed.values())
    assert len(found) >= 3
    assert statement not in found
    assert all(SENTENCE.match(one) for one in found)
    assert not any(is_true(one, TABLES) for one in found)


@pytest.mark.parametrize("scale", ["quick", "laptop", "paper"])
def test_every_scale_has_a_config(scale: str) -> None:
    config: Any = load_config(EXPERIMENT, scale, ())
    assert config.permutations >= 100


def test_claims_have_names_of_their_own_and_kinds_that_are_read() -> None:
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    assert {"differential", "pathways", "modules", "traits", "state_de", "composition"} <= set(READINGS)


def test_plain_tests_are_scipy_s_on_the_values_that_are_there() -> None:
    values = np.random.default_rng(0).normal(20, 1, (6, 3))
    values[3:, 0] += 9
    values[0, 1] = np.nan
    obs = pd.DataFrame({"condition": ["B"] * 3 + ["A"] * 3}, index=list("abcdef"))
    data = anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=["P1", "P2", "P3"]))
    found = plain_tests(data, reference="B")
    p = np.array(
        [ttest_ind(values[3:, 0], values[:3, 0]).pvalue, ttest_ind(values[3:, 1], values[1:3, 1]).pvalue]
    )
    third = ttest_ind(values[3:, 2], values[:3, 2]).pvalue
    assert found["student"]["P1"] == pytest.approx(3 * p[0])  # the smallest of three
    assert found["student"].max() == pytest.approx(max(p[1], third))
    welch = ttest_ind(values[3:, 0], values[:3, 0], equal_var=False).pvalue
    assert found["welch"]["P1"] == pytest.approx(3 * welch)


def test_the_share_found_is_drawn_by_the_change_put_in(tmp_path: Path) -> None:
    table = pd.DataFrame({"truth": np.repeat([-2.0, 0.0, 1.0], 4)})
    for name in ("q_value", "student", "welch"):
        table[name] = [0.01] * 4 + [0.5] * 4 + [0.01, 0.01, 0.5, np.nan]
    assert recovered(table, tmp_path).path.is_file()
    low, high = proportion_interval(2, 4)
    # Wilson: the roots of (x - 1/2)^2 = z^2 x (1 - x) / n.
    z2 = 1.959964**2
    assert high - 0.5 == pytest.approx(0.5 - low)
    assert (high - 0.5) ** 2 == pytest.approx(z2 * high * (1 - high) / 4, rel=1e-5)


def test_every_escape_is_listed(tmp_path: Path) -> None:
    tally: dict[str, dict[str, Any]] = {
        kind: {"changed": 3, "still true": 1, "caught": 2, "escaped": []} for kind in KINDS
    }
    assert escapes([tally], tmp_path).caption.endswith("Escaped: none.")
    tally["entity"] = {"changed": 3, "still true": 1, "caught": 1, "escaped": [["A is up.", "B is up."]]}
    figure = escapes([tally, tally], tmp_path)
    assert figure.path.is_file()
    assert figure.caption.endswith("Escaped: \u201cA is up.\u201d as \u201cB is up.\u201d.")


def test_what_escapes_the_guard_is_counted_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table.inferred("de", DE)
    one = SimpleNamespace(statement=TRUE[0], status="verified", refs=[SimpleNamespace(table="de")])
    found = SimpleNamespace(
        index=Tables({"de": table}),
        profile=SimpleNamespace(levels={"healthy": 2, "liver cirrhosis": 2}),
        hypotheses=[one],
    )
    monkeypatch.setattr(judging, "_broken", lambda run: 0)
    trial = Trial("nafld", 0, {}, "cohort")
    result = judging.judged(found, trial)  # type: ignore[arg-type]
    assert {kind: tally["changed"] for kind, tally in result["mutants"].items()} == dict.fromkeys(KINDS, 1)
    assert result["guard"]["mutants"] == result["guard"]["caught"] == 5
    # A guard that verifies whatever it is shown lets all five through, each under its kind.
    monkeypatch.setattr(judging, "Guard", lambda tables, alpha: SimpleNamespace(
        check=lambda text: SimpleNamespace(status="verified")
    ))  # fmt: skip
    result = judging.judged(found, trial)  # type: ignore[arg-type]
    assert result["guard"]["caught"] == 0
    assert all(len(tally["escaped"]) == 1 for tally in result["mutants"].values())
