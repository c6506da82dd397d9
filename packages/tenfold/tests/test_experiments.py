from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel, ConfigDict

from tenfold import AtLeast, Claim, Experiment, TenfoldError, UsageError, experiment_names, find_experiment

if TYPE_CHECKING:
    from conftest import Paper


def test_an_installed_paper_is_found_by_its_entry_point(paper: Paper) -> None:
    assert "growth" in experiment_names()
    found = find_experiment("growth")
    assert (found.name, found.title, len(found.claims)) == ("growth", "Growth", 4)
    assert found.source == paper.site / paper.package / "__init__.py"


def test_an_unknown_name_lists_those_there_are(paper: Paper) -> None:
    with pytest.raises(UsageError, match=r"no experiment 'grwoth'; there are: .*growth"):
        find_experiment("grwoth")


def test_a_missing_library_names_the_extra(install: Callable[..., Paper], source: str) -> None:
    paper = install({"__init__.py": "import a_library_that_nobody_has\n" + source})
    with pytest.raises(
        UsageError, match=rf"needs a_library_that_nobody_has.*pip install '{paper.package}\[reproduce\]'"
    ):
        find_experiment("growth")


@pytest.mark.parametrize("source", ["from PACKAGE import nothing", "import PACKAGE.nothing"])
def test_a_broken_package_is_not_blamed_on_a_missing_extra(
    install: Callable[..., Paper], source: str
) -> None:
    install({"__init__.py": source})
    with pytest.raises(TenfoldError, match=r"cannot be imported: .*nothing") as error:
        find_experiment("growth")
    assert "pip install" not in str(error.value)


def test_what_is_no_experiment_of_that_name_is_refused(install: Callable[..., Paper], source: str) -> None:
    install(target="CLAIMS")
    with pytest.raises(TenfoldError, match="is not an Experiment with the name 'growth'"):
        find_experiment("growth")
    install(name="other", files={"__init__.py": source.replace("NAME", "another")})
    with pytest.raises(TenfoldError, match="is not an Experiment with the name 'other'"):
        find_experiment("other")


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Lax(BaseModel):
    model_config = ConfigDict(frozen=True)


def build(model: type[BaseModel], *claims: Claim, **named: Sequence[str]) -> Experiment:
    return Experiment("x", "X", "", "", model, "x", lambda config, run: {}, claims, **named)


def test_two_claims_with_one_id_are_refused() -> None:
    claim = Claim("C1", "", "", "m", AtLeast(1))
    with pytest.raises(ValueError, match="several claims have the id C1"):
        build(Strict, claim, claim)


@pytest.mark.parametrize(
    ("named", "plain", "gated"),
    [
        ({}, [], ["C2", "C3"]),
        ({"exact": ["C3"]}, ["C3"], ["C2", "C3"]),
        ({"gating": ["C1"]}, [], []),
        ({"gating": ["C1", "C4"]}, [], ["C4"]),  # it was not tested: nobody found that it holds
        ({"exact": ["C2"], "gating": ["C2", "C3"]}, ["C2"], ["C2", "C3"]),
    ],
)
def test_claims_that_end_a_command_with_1(
    named: dict[str, list[str]], plain: list[str], gated: list[str]
) -> None:
    verdicts = {"C1": "held", "C2": "did not hold", "C3": "did not hold", "C4": "not tested"}
    experiment = build(Strict, *(Claim(name, "", "", "m", AtLeast(1)) for name in verdicts), **named)
    claims = {"claims": [{"id": name, "verdict": verdict} for name, verdict in verdicts.items()]}
    assert experiment.failures(claims, gate=False) == plain
    assert experiment.failures(claims, gate=True) == gated


@pytest.mark.parametrize("names", ["exact", "gating"])
def test_an_id_that_no_claim_has_is_refused(names: str) -> None:
    claim = Claim("C1", "", "", "m", AtLeast(1))
    with pytest.raises(ValueError, match="no claim has the id C2"):
        build(Strict, claim, **{names: ("C1", "C2")})


def test_a_config_that_would_ignore_a_mistyped_key_is_refused() -> None:
    with pytest.raises(ValueError, match=r'Lax needs model_config = .*extra="forbid"'):
        build(Lax)
