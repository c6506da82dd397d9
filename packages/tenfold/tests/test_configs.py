from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from tenfold import Experiment, TenfoldError, UsageError, find_experiment
from tenfold.configs import (
    available_scales,
    config_sha256,
    differences,
    load_config,
    merged,
    plain_config,
    read_config,
)

if TYPE_CHECKING:
    from conftest import Paper

RICH = """
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing import Literal
from tenfold import Experiment

class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

class Cosine(Strict):
    warmup: int

class Training(Strict):
    steps: int = Field(gt=0)
    rate: float = 0.1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Cosine | None = None

class Arm(Strict):
    name: str
    rank: int = 8

class Config(Strict):
    text: str = "docs"
    seeds: tuple[int, ...] = (0,)
    training: Training
    arms: list[Arm] = []
    limit: int | None = None

    @model_validator(mode="after")
    def _one_seed(self):
        if not self.seeds:
            raise ValueError("seeds must not be empty")
        return self

EXPERIMENT = Experiment("NAME", "Rich", "", "", Config, "PACKAGE", run=lambda config, run: {}, claims=[])
"""


@pytest.fixture
def experiment(install: Callable[..., Paper]) -> Experiment:
    install(
        {
            "__init__.py": RICH,
            "quick.toml": "[training]\nsteps = 10\n",
            "paper.toml": "[training]\nsteps = 99",
        }
    )
    return find_experiment("growth")


def load(experiment: Experiment, *assignments: str) -> dict[str, object]:
    return plain_config(load_config(experiment, "quick", assignments))


def test_the_file_of_the_scale_is_read(experiment: Experiment) -> None:
    assert available_scales(experiment) == ["quick", "paper"]
    assert plain_config(load_config(experiment, "paper"))["training"]["steps"] == 99


def test_assignments_are_toml_values_at_dotted_keys(experiment: Experiment) -> None:
    config = load(
        experiment,
        "training.steps=20",
        "training.rate = 3e-4",
        "training.schedule.warmup=5",  # a table that the file does not have
        "seeds=[1, 2]",
        'text="7"',
        'arms=[{name="a"}, {name="b", rank=4}]',
    )
    assert config["training"] == {
        "steps": 20,
        "rate": 3e-4,
        "optimizer": "adamw",
        "schedule": {"warmup": 5},
    }
    assert config["seeds"] == [1, 2]
    assert config["text"] == "7"
    assert config["arms"] == [{"name": "a", "rank": 8}, {"name": "b", "rank": 4}]


def test_a_string_needs_no_quotes_and_may_hold_an_equals_sign(experiment: Experiment) -> None:
    assert load(experiment, "text=hf:some/text:main")["text"] == "hf:some/text:main"
    assert load(experiment, "text=a=b")["text"] == "a=b"
    assert load(experiment, "text=a\nseeds = [5]")["text"] == "a\nseeds = [5]"


def test_the_last_assignment_wins(experiment: Experiment) -> None:
    assert load(experiment, "limit=1", "limit=2")["limit"] == 2


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        ("steps=3", ["no key 'steps'", "text, seeds, training, arms, limit"]),
        ("training.step=3", ["no key 'training.step'", "did you mean training.steps?", "rate, optimizer"]),
        ("training.schedule.warm=3", ["no key 'training.schedule.warm'", "training.schedule.warmup?"]),
        ("arms=[{name='a', rnak=3}]", ["no key 'arms.0.rnak'", "rank", "name, rank"]),
        ("training.steps=0", ["training.steps = 0", "greater than 0"]),
        ("training.steps=many", ["training.steps = 'many'", "valid integer"]),
        ("training.steps=1.5", ["training.steps = 1.5", "valid integer"]),
        ("training.optimizer=lion", ["training.optimizer = 'lion'", "'adamw' or 'sgd'"]),
        ("arms=[{rank=3}]", ["key 'arms.0.name' is missing"]),
        ("seeds=[]", ["seeds must not be empty"]),
        ("seeds.first=1", ["seeds is not a table"]),
        ("training", ["'training'", "key=value"]),
        ("=3", ["'=3'", "key=value"]),
        ("training..steps=3", ["key=value"]),
    ],
)
def test_a_mistake_names_key_value_and_what_is_allowed(
    experiment: Experiment, assignment: str, parts: list[str]
) -> None:
    # `seeds` is in no file, so a table there is made only where the file leaves it out
    assignments = ["seeds=[0]", assignment]
    with pytest.raises(UsageError) as error:
        load_config(experiment, "quick", assignments)
    for part in parts:
        assert part in str(error.value)


def test_an_unknown_scale_lists_those_there_are(experiment: Experiment) -> None:
    with pytest.raises(UsageError, match="growth has no scale 'laptop'; it has: quick, paper"):
        load_config(experiment, "laptop")


def test_a_paper_without_a_config_at_its_own_scale_names_its_launch_files(
    install: Callable[..., Paper],
) -> None:
    paper = install()
    with pytest.raises(UsageError, match=r"it has: quick; what runs at the paper's scale is in .* launch/"):
        load_config(find_experiment(paper.name), "paper")


def test_a_broken_file_is_named(install: Callable[..., Paper]) -> None:
    install({"quick.toml": "steps = ["})
    with pytest.raises(TenfoldError, match=r"quick\.toml"):
        load_config(find_experiment("growth"), "quick")


def test_every_mistake_is_told_at_once(experiment: Experiment) -> None:
    with pytest.raises(UsageError, match=r"training\.steps = -1.*training\.rate = 'x'"):
        load_config(experiment, "quick", ["training.steps=-1", "training.rate=x"])


def test_differences_name_dotted_keys() -> None:
    before = {"a": 1, "t": {"x": 1, "y": [1, 2]}, "gone": {"deep": 3}}
    now = {"a": 1, "t": {"x": 2, "y": [1, 2]}, "new": {}}
    assert differences(before, now) == {"t.x": (1, 2), "gone.deep": (3, None), "new": (None, {})}
    assert differences(before, before) == {}


def test_the_sum_does_not_depend_on_the_order_of_keys() -> None:
    assert config_sha256({"a": 1, "b": {"c": 2, "d": 3}}) == config_sha256({"b": {"d": 3, "c": 2}, "a": 1})
    assert config_sha256({"a": 1}) != config_sha256({"a": 2})


def test_an_absent_value_is_left_out_of_the_plain_config() -> None:
    class Inner(BaseModel):
        model_config = ConfigDict(frozen=True, extra="forbid")
        kind: Literal["a", "b"] = "a"
        limit: int | None = None
        shape: tuple[int, ...] = Field((1, 2))

    assert plain_config(Inner()) == {"kind": "a", "shape": [1, 2]}


def test_a_config_may_be_any_file(tmp_path: Path) -> None:
    class Config(BaseModel):
        steps: int

    file = tmp_path / "mine.toml"
    with pytest.raises(UsageError, match=r"there is no config file .*mine\.toml"):
        read_config(file, Config)
    file.write_text("steps = 3")
    assert read_config(file, Config) == Config(steps=3)
    assert read_config(file, Config, ["steps=5"]) == Config(steps=5)
    with pytest.raises(UsageError, match=r"mine\.toml: steps = 'x'"):
        read_config(file, Config, ["steps=x"])


def test_merged_goes_into_tables_and_leaves_both_as_they_were() -> None:
    values = {"a": 1, "t": {"x": 1, "y": 2}, "u": 3}
    changes = {"t": {"y": 5, "z": {"w": 6}}, "u": {"v": 7}, "b": [8]}
    assert merged(values, changes) == {"a": 1, "t": {"x": 1, "y": 5, "z": {"w": 6}}, "u": {"v": 7}, "b": [8]}
    assert values == {"a": 1, "t": {"x": 1, "y": 2}, "u": 3}
    assert changes["t"] == {"y": 5, "z": {"w": 6}}
