from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from implicit_prime.config import PrimeConfig
from implicit_prime.dumps import inspect_dump
from implicit_prime.errors import PrimeError

# K = 2, T = 2, section 7's hand values: A = [3, 3] and [-3, -1] with the paper's baseline, [3, 4] and [-3, 0]
# with the official one.
BATCH = {
    "mask": torch.ones(2, 2, dtype=torch.bool),
    "outcomes": torch.tensor([1.0, 0.0]),
    "groups": torch.tensor([0, 0]),
    "process": torch.tensor([[1.0, 3.0], [0.0, 2.0]]),
}


def saved(folder: Path, **changes: Any) -> Path:
    batch = {key: value for key, value in {**BATCH, **changes}.items() if value is not None}
    torch.save(batch, folder / "dump.pt")
    return folder / "dump.pt"


def settings(**changes: Any) -> PrimeConfig:
    return PrimeConfig(output_dir=".", whiten=False, **changes)


def ends(path: Path, args: PrimeConfig | None) -> list[list[float]]:
    return [[one.first, one.last] for one in inspect_dump(path, args)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [[3, 3], [-3, -1]]),
        ({"process_baseline": "official"}, [[3, 4], [-3, 0]]),
        ({"process_gamma": 0.5}, [[2, 3], [-3, -1]]),
        ({"process_weight": 0}, [[1, 1], [-1, -1]]),
        ({"process_weight": "accuracy"}, [[3, 3], [-3, -1]]),  # of sums 4 and 2 the right one is greater
        ({"advantage": "reinforce"}, [[5, 4], [2, 2]]),
        ({"advantage": "implicit_value"}, [[1, 0], [0, 0]]),
    ],
    ids=str,
)
def test_advantages_are_those_of_a_run_with_these_settings(
    changes: dict[str, Any], expected: list[list[float]], tmp_path: Path
) -> None:
    assert ends(saved(tmp_path), settings(**changes)) == expected


def test_a_dump_shows_its_own_advantages_until_settings_are_given(tmp_path: Path) -> None:
    own = torch.tensor([[float("nan"), 7.0], [8.0, 9.0]])
    path = saved(tmp_path, advantages=own, process=None)
    first, second = inspect_dump(path)
    assert (first.not_finite, first.last, first.process) == (1, 7, None)
    assert (second.least, second.greatest, second.tokens, second.not_finite) == (8, 9, 2, 0)
    assert ends(path, settings()) == [[1, 1], [-1, -1]]


def test_only_tokens_of_the_response_are_looked_at(tmp_path: Path) -> None:
    mask = torch.tensor([[True, False], [False, False]])
    first, second = inspect_dump(saved(tmp_path, mask=mask), settings())
    assert (first.tokens, first.process, first.first) == (1, 1.0, 2.0)  # 1 - 0 of process, 1 of outcome
    assert (second.tokens, second.process, second.not_finite) == (0, 0.0, 0)


@pytest.mark.parametrize(
    ("changes", "args", "told"),
    [
        ({"groups": None}, {}, "lacks groups"),
        ({"outcomes": torch.zeros(3)}, {}, r"outcomes must be \[2\]"),
        ({"process": torch.zeros(2, 3)}, {}, r"process must be \[2, 2\]"),
        ({"mask": torch.ones(2)}, {}, r"mask is \[2\] and must be \[B, T\]"),
        ({}, {"advantage": "ppo"}, "the dump has no values"),
        ({"process": None}, {"advantage": "implicit_value"}, "the dump has no process rewards"),
    ],
    ids=["groups", "outcomes", "process", "mask", "ppo", "implicit_value"],
)
def test_what_does_not_fit_is_told(
    changes: dict[str, Any], args: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(PrimeError, match=told):
        inspect_dump(saved(tmp_path, **changes), settings(**args))


def test_what_is_no_dump_is_told_and_not_run(tmp_path: Path) -> None:
    with pytest.raises(PrimeError, match="there is no file"):
        inspect_dump(tmp_path / "none.pt")
    path = tmp_path / "other.pt"
    path.write_text("no dump")
    with pytest.raises(PrimeError, match="is no dump of tensors"):
        inspect_dump(path)
    torch.save({"mask": Path("code")}, path)  # an object whose class would be looked up
    with pytest.raises(PrimeError, match="is no dump of tensors"):
        inspect_dump(path)
