"""The experiment's own checker, and its parts on made data."""

from __future__ import annotations

import random
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("tenfold", reason="needs proteus-omics[reproduce]")

from proteus_omics.planner.readings import READINGS
from proteus_omics.reproduce.claims import CLAIMS
from proteus_omics.reproduce.experiment import EXPERIMENT
from proteus_omics.reproduce.mutations import CLAIMS as SENTENCE
from proteus_omics.reproduce.mutations import is_true, mutants
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
    found = list(mutants(statement, others, levels, random.Random(0)))
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
