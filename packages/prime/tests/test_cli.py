"""The `implicit-prime` command as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from implicit_prime.cli import main
from implicit_prime.termination import Termination

RUN = """
[model]
name = "{folder}/model"
[data]
train = ["{folder}/tasks.jsonl"]
eval = {{ words = "{folder}/tasks.jsonl" }}
[verifier.exact]
[training]
output_dir = "{folder}/run"
max_steps = 1
prompts_per_step = 2
num_generations = 2
accuracy_range = "none"
max_completion_length = 3
max_prompt_length = 8
save_steps = 1
use_cpu = true
"""


@pytest.fixture
def config(tmp_path: Path, tiny_llama: Callable[..., Any], words: Any) -> Path:
    """A run whose policy and tasks are on disk."""
    tiny_llama().save_pretrained(tmp_path / "model")
    words.save_pretrained(tmp_path / "model")
    rows = [{"prompt": f"w{number} w1", "answer": "w2"} for number in range(4)]
    write(tmp_path / "tasks.jsonl", rows)
    path = tmp_path / "run.toml"
    path.write_text(RUN.format(folder=tmp_path))
    return path


class Asked(Termination):
    """As if SIGTERM came in the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = True


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    """(stdout, stderr) of a command that ends with `code`; never a traceback."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == code, err
    assert "Traceback" not in err
    return out, err


def test_a_run_is_trained_gone_on_with_and_measured(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "run" / "final" / "policy"
    assert f"policy and PRM are in {policy.parent}" in run(capsys, "train", config)[1]
    for flag, steps in ((), 2), (("--resume",), 3):  # for how long is no other run
        run(capsys, "train", config, "--set", f"training.max_steps={steps}", *flag)
        logged = [entry["step"] for entry in lines(tmp_path / "run" / "metrics.jsonl")]
        assert logged == [*range(1, steps + 1)]

    out = tmp_path / "responses.jsonl"
    arguments = ("--model", policy, "--n", 2, "--temperature", 1, "--out", out)
    (measured,) = json.loads(run(capsys, "eval", config, *arguments, "--json")[0])
    rows = lines(out)
    assert (measured["name"], measured["tasks"], len(rows)) == ("words", 4, 8)
    assert measured["accuracy"] == sum(row["score"] for row in rows) / 8
    assert all(row["score"] == (row["completion"].strip() == "w2") for row in rows)
    summary = json.loads(run(capsys, "verify", out, "--verifier", "exact", "--json")[0])
    assert summary["mean_score"] == measured["accuracy"]
    assert (summary["responses"], summary["changed"]) == (8, 0)


def test_a_run_of_another_recipe_is_refused_and_begun_anew_where_it_is_told_to(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    run(capsys, "train", config, "--set", "training.max_steps=2")
    other = ("train", config, "--set", "training.beta=0.1", "--set", 'data.suffix=" now"')
    told = run(capsys, *other, code=2)[1]
    changed = "data.suffix was '', is ' now'; training.beta was 0.05, is 0.1"
    assert f"{folder} holds another run: {changed}; give the same, another" in told
    assert told.endswith("or --no-resume (resume=False) to start anew\n")
    run(capsys, *other, "--no-resume")
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-1"]
    assert [entry["step"] for entry in lines(folder / "metrics.jsonl")] == [1]
    run(capsys, *other)

    told = json.loads((folder / "checkpoint-1" / "state.json").read_text())
    (folder / "checkpoint-1" / "state.json").write_text(json.dumps({**told, "recipe": None}))
    for flag in ((), ("--no-resume",)):
        assert "checkpoint-1 is of a run without a recipe" in run(capsys, *other, *flag, code=2)[1]
    (folder / "checkpoint-1" / "state.json").unlink()
    for flag in ((), ("--no-resume",)):
        assert "checkpoint-1 is no checkpoint of a PrimeTrainer" in run(capsys, *other, *flag, code=2)[1]


def test_where_a_longer_run_ends_before_its_time_the_model_of_the_shorter_one_is_not_reported(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, "train", config)
    monkeypatch.setattr("implicit_prime.trainer.Termination", Asked)
    told = run(capsys, "train", config, "--set", "training.max_steps=3")[1]
    assert f"ended before its time; the same command goes on from {tmp_path / 'run'}" in told


def test_micro_batches_of_another_size_are_another_recipe_where_the_loss_is_made_of_them(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("train", config, "--set", "training.loss_agg=micro-batch-mean")
    run(capsys, *settings)
    told = run(capsys, *settings, "--set", "training.micro_batch_size=4", code=2)[1]
    assert "holds another run: training.micro_batch_size was 8, is 4" in told


def test_verify_judges_a_file_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ("so #### 4", "so #### 5", "so 4", [{"role": "assistant", "content": "#### 4.0"}])
    source = write(
        tmp_path / "in.jsonl", [{"completion": text, "answer": "4", "score": 1.0} for text in texts]
    )
    out = tmp_path / "out.jsonl"
    shown, told = run(capsys, "verify", source, "--option", "extract=gsm8k", "--out", out)
    assert f"4 responses are in {out}" in told
    for part in ("0.5", "3 ok, 1 unparsed", "changed"):
        assert part in shown
    found = [(row["score"], row["status"], row["score_before"]) for row in lines(out)]
    assert found == [(1, "ok", 1), (0, "ok", 1), (0, "unparsed", 1), (1, "ok", 1)]


def test_responses_of_several_verifiers_are_judged_anew_by_their_ability(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [
        {"prompt": f"w{n} w1", "answer": "w2" if n % 2 else "4", "ability": "exact" if n % 2 else "math"}
        for n in range(6)
    ]
    mixed, out = write(tmp_path / "mixed.jsonl", tasks), tmp_path / "responses.jsonl"
    settings = ("--set", "verifier.math.extract=gsm8k", "--set", f"data.eval.words={mixed}")
    run(capsys, "eval", config, *settings, "--n", 2, "--temperature", 1, "--out", out)
    rows = lines(out)
    assert [(row["ability"], row["answer"]) for row in rows] == [
        (task["ability"], task["answer"]) for task in tasks for _ in range(2)
    ]
    # The model writes words only; one of each kind is made right, so that both verifiers have to be asked.
    right = {"exact": "w2", "math": "#### 4"}
    rows = [{**row, "completion": right[row["ability"]], "score": 1.0} for row in rows[:3]] + rows[3:]
    write(out, rows)
    both = ("--verifier", "exact", "--verifier", "math")
    found = run(capsys, "verify", out, *both, "--option", "math.extract=gsm8k", "--json")[0]
    summary = json.loads(found)
    assert summary["changed"] == 0
    assert summary["mean_score"] == sum(row["score"] for row in rows) / 12 >= 3 / 12
    assert "error" not in summary["statuses"]

    for arguments, part in (
        (
            ("--verifier", "exact"),
            "rows of the ability math, which is for a verifier of that name: give --verifier",
        ),
        ((*both, "--option", "extract=gsm8k"), "write whose it is, such as exact.extract"),
    ):
        assert part in run(capsys, "verify", out, *arguments, code=2)[1]
    write(out, [*rows, {"completion": "w2", "answer": "w2"}])
    assert "row 13 has the columns ['answer', 'completion']" in run(capsys, "verify", out, *both, code=2)[1]


def test_what_cannot_be_judged_is_no_part_of_the_mean_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = ("4", "eighteen", "5", "4")  # a reference that is no number cannot be compared with
    source = write(tmp_path / "in.jsonl", [{"completion": "#### 4", "answer": answer} for answer in answers])
    out, how = tmp_path / "out.jsonl", ("--option", "extract=gsm8k", "--json")
    summary = json.loads(run(capsys, "verify", source, *how, "--out", out)[0])
    assert summary == {"responses": 4, "mean_score": 2 / 3, "statuses": {"ok": 3, "error": 1}}
    assert [row["score"] for row in lines(out)] == [1, None, 0, 1]
    write(source, [{"completion": "#### 4", "answer": "eighteen"}])
    assert json.loads(run(capsys, "verify", source, *how)[0])["mean_score"] is None


def test_advantages_shows_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = {
        "mask": torch.ones(2, 2, dtype=torch.bool),
        "outcomes": torch.tensor([1.0, 0.0]),
        "groups": torch.tensor([0, 0]),
        "advantages": torch.tensor([[float("inf"), 1.0], [2.0, 3.0]]),
    }
    dump = tmp_path / "dump.pt"
    torch.save(batch, dump)
    shown, told = run(capsys, "advantages", dump)
    assert "inf" in shown
    assert "2 responses, 4 tokens, 1 of them not finite, first in response 0" in told
    made = json.loads(run(capsys, "advantages", dump, "--set", "whiten=false", "--json")[0])
    assert [(one["first"], one["last"]) for one in made] == [(1, 1), (-1, -1)]


def test_mistakes_are_told_and_end_with_2(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write(tmp_path / "bad.jsonl", [{"completion": "x"}])
    number = write(tmp_path / "number.jsonl", [{"completion": 3, "answer": "x"}])
    for arguments, part in (
        (("train", tmp_path / "none.toml"), "there is no file"),
        (("train", config, "--set", "training.beta"), "write key=value"),
        (("train", config, "--set", "training.beta=0"), "beta is 0; it must be above 0"),
        (("train", config, "--set", "data.train=[]"), "data.train is missing"),
        (("train", config, "--set", "model.name=/nowhere"), "cannot load '/nowhere'"),
        (("train", config, "--set", "lora.rank=3"), "[lora] does not fit"),
        (("eval", config, "--set", "data.eval={}"), "has no evaluation sets"),
        (("verify", tmp_path / "none.jsonl"), "there is no file"),
        (("verify", bad, "--verifier", "exact"), "row 1 has the columns ['completion']"),
        (("verify", number, "--verifier", "exact"), "row 1: a completion is text or messages, not 3"),
        (("verify", bad, "--verifier", "human"), "there is no verifier 'human'"),
        (("advantages", bad), "is no dump of tensors"),
        (("advantages", bad, "--set", "gamma=1"), "PrimeConfig has no setting 'gamma'"),
        (("reproduce", "--scale", "huge"), "'huge'"),
    ):
        assert part in run(capsys, *arguments, code=2)[1], arguments
