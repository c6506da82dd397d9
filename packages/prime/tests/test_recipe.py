from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from implicit_prime.errors import PrimeError, PrimeWarning
from implicit_prime.recipe import read_recipe
from implicit_prime.tasks import read_task, read_tasks
from implicit_prime.verifiers import VerifierResult
from implicit_prime.verifiers.named import AbilityVerifier, named_verifier

RUN = """
[model]
name = "tiny"
[data]
train = ["tasks.jsonl"]
[verifier.math]
extract = "gsm8k"
[training]
output_dir = "run"
"""


def written(folder: Path, text: str = RUN) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def lines(folder: Path, *rows: Any) -> str:
    path = folder / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_settings_come_from_the_file_and_then_from_assignments(tmp_path: Path) -> None:
    found = read_recipe(
        written(tmp_path),
        {"training.beta": 0.1, "verifier.math.extract": "any", "data.eval.some": "f", "lora.r": 4},
    )
    assert (found.training.beta, found.training.clip) == (0.1, 0.2)
    assert found.verifier == {"math": {"extract": "any"}}
    assert (found.data.eval, found.lora) == ({"some": "f"}, {"r": 4})


@pytest.mark.parametrize(
    ("assignments", "told"),
    [
        ({"beta": 1}, "'beta' is no key of a recipe: write table.key"),
        ({"model.name.x": 1}, "is no table"),
        ({"modell.name": "x"}, "it has 'modell'; its tables are model, data, verifier, training, lora"),
        ({"model.nam": "x"}, r"\[model\] has 'nam'; its keys are name, prm"),
        ({"model.name": 3}, "model.name is 3; it must be text"),
        ({"model.gradient_checkpointing": "yes"}, "must be true or false"),
        ({"model.dtype": "bfloat16"}, "lost in weights of less than float32"),
        ({"data.train": "tasks.jsonl"}, "data.train is 'tasks.jsonl'; it must be a list"),
        ({"data.eval": ["x"]}, "data.eval is .*; it must be a table"),
        ({"verifier.maths.extract": "any"}, "there is no verifier 'maths'; there are math, code, exact"),
        ({"verifier.code": 3}, "verifier.code is 3; it must be a table"),
        ({"training.bet": 1}, "no setting 'bet'; did you mean 'beta'"),
        ({"training.num_generations": 1}, "num_generations is 1; it must be at least 2"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_is_told_with_the_file(
    assignments: dict[str, Any], told: str, tmp_path: Path
) -> None:
    path = written(tmp_path)
    with pytest.raises(PrimeError, match=told) as raised:
        read_recipe(path, assignments)
    assert str(raised.value).startswith(str(path))


def test_a_file_that_is_no_recipe_is_told(tmp_path: Path) -> None:
    with pytest.raises(PrimeError, match="there is no file"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(PrimeError, match="is no TOML"):
        read_recipe(written(tmp_path, "[model"))
    with pytest.raises(PrimeError, match="lacks data, training, verifier"):
        read_recipe(written(tmp_path, '[model]\nname = "tiny"\n'))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "answer": "4"},
        {"prompt": "p", "reward_model": {"style": "rule", "ground_truth": "4"}, "data_source": "x"},
        {"question": "p", "answer": "4"},
        {"problem": "p", "solution": "long", "answer": "4"},
        {"problem": "p", "final_answer": ["4"]},
    ],
    ids=["ours", "verl", "gsm8k", "math500", "olympiadbench"],
)
def test_rows_of_public_data_sets_are_tasks(row: dict[str, Any]) -> None:
    assert read_task(row) == {"prompt": "p", "answer": "4"}
    system, user = read_task(row, "sys", "!")["prompt"]
    assert (system, user) == ({"role": "system", "content": "sys"}, {"role": "user", "content": "p!"})


def test_messages_stay_as_they_are() -> None:
    messages = [{"role": "user", "content": "p"}]
    assert read_task({"prompt": messages, "answer": 0}, "sys", "!") == {"prompt": messages, "answer": 0}


def test_rows_go_to_the_verifier_of_their_ability_and_others_are_left_out(tmp_path: Path) -> None:
    rows = [{"prompt": ability, "answer": "4", "ability": ability} for ability in ("math", "code", "exact")]
    source = lines(tmp_path, *rows)
    with pytest.warns(PrimeWarning, match="1 of ability 'exact'"):
        tasks = read_tasks([source], ["math", "code"])
    assert [task["answer"] for task in tasks] == [("math", "4"), ("code", "4")]
    with pytest.warns(PrimeWarning, match="1 of ability 'code', 1 of ability 'exact'"):
        (task,) = read_tasks([source], ["math"])
    assert task["answer"] == "4"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\n{", "line 2: no JSON"),
        ("[]", "line 1: a JSON object is expected"),
        ('{"prompt": "p"}', r"row 0: no task: .* its columns are \['prompt'\]"),
        ('{"prompt": "p", "answer": "4"}', "row 0: it has no 'ability'"),
        ("", "no task for the verifiers math, code"),
    ],
)
def test_what_is_no_task_is_told_with_its_place(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(text)
    with pytest.raises(PrimeError, match=told) as raised:
        read_tasks([str(path)], ["math", "code"])
    assert str(path) in str(raised.value)


def test_several_verifiers_share_the_responses_by_ability() -> None:
    gsm8k, exact = (named_verifier({name: o}) for name, o in (("math", {"extract": "gsm8k"}), ("exact", {})))
    both = AbilityVerifier({"math": gsm8k, "exact": exact})
    references = [("math", "4"), ("exact", "#### 4"), ("exact", "4"), ("math", "5")]
    assert [one.score for one in both(["#### 4"] * 4, references)] == [1, 1, 0, 0]
    assert both([], []) == []
    with pytest.raises(PrimeError, match="no verifier for 'code'; there are math, exact"):
        both(["x"], [("code", "x")])


def test_a_verifier_that_raises_costs_no_other_ability_its_results() -> None:
    def broken(completions: Any, references: Any) -> list[float]:
        raise RuntimeError("broken")

    both = AbilityVerifier({"bad": broken, "exact": named_verifier({"exact": {}})})
    with pytest.warns(PrimeWarning, match="1 of 1 responses could not be judged"):
        bad, good = both(["x", "x"], [("bad", "x"), ("exact", "x")])
    assert (bad.status, good) == ("error", VerifierResult(1.0))


def test_options_that_a_verifier_has_not_are_told() -> None:
    with pytest.raises(PrimeError, match=r"\[verifier.math\] does not fit: .*'extrakt'"):
        named_verifier({"math": {"extrakt": "any"}})
    with pytest.raises(
        PrimeError, match="sandbox is 'docker'; it must be one of bubblewrap, remote, rlimits"
    ):
        named_verifier({"code": {"sandbox": "docker"}})
    with pytest.raises(PrimeError, match="no verifier is named"):
        named_verifier({})
