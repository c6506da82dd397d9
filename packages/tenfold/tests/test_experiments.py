from __future__ import annotations

from collections.abc import Callable
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


def build(model: type[BaseModel], *claims: Claim) -> Experiment:
    return Experiment("x", "X", "", "", model, "x", lambda config, run: {}, claims)


def test_two_claims_with_one_id_are_refused() -> None:
    claim = Claim("C1", "", "", "m", AtLeast(1))
    with pytest.raises(ValueError, match="several claims have the id C1"):
        build(Strict, claim, claim)


def test_a_config_that_would_ignore_a_mistyped_key_is_refused() -> None:
    with pytest.raises(ValueError, match=r'Lax needs model_config = .*extra="forbid"'):
        build(Lax)
