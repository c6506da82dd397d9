"""`implicit-prm train` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from implicit_prm.cli import main

ROWS = [
    {"prompt": f"what is {n}+{n}?", "completion": f"the answer is {2 * n + wrong}", "label": not wrong}
    for n in range(4)
    for wrong in (0, 1)
]

RUN = """
[model]
name = "MODEL"
[data]
train = ["train.jsonl"]
[training]
output_dir = "out"
max_steps = 4
save_steps = 2
per_device_train_batch_size = 4
learning_rate = 1e-3
use_cpu = true
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Callable[..., Any], tokenizer: Any) -> Path:
    """With two models in it."""
    folder = tmp_path_factory.mktemp("train")
    for name, model in {
        "MODEL": tiny_llama(),
        "CLASSIFIER": LlamaForSequenceClassification(tiny_llama().config),
    }.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, in which the command runs."""
    for name in ("MODEL", "CLASSIFIER"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "run.toml").write_text(RUN)
    write(tmp_path, ROWS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, rows: list[Any]) -> None:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What a command that ends with `code` says on stderr; never a traceback."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    err = capsys.readouterr().err
    assert (ended.value.code or 0) == code, err
    assert "Traceback" not in err
    return err


def test_a_trained_model_is_saved_with_its_tokenizer_and_scores(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ("train", "--config", "run.toml", "--set", 'data.eval=["train.jsonl"]')
    told = run(capsys, *train)
    assert told.endswith("implicit-prm: the model is in out, what was measured in out/all_results.json\n")
    measured = json.loads((here / "out" / "all_results.json").read_text())
    assert measured["train_loss"] > 0
    assert 0 <= measured["eval_rewards/accuracies"] <= 1
    run(capsys, "score", "train.jsonl", "scored.jsonl", "--model", "out", "--ref", "MODEL")
    scored = [json.loads(line) for line in (here / "scored.jsonl").read_text().splitlines()]
    assert any(abs(row["outcome_reward"]) > 1e-4 for row in scored)

    (here / "taken").touch()
    assert "training.output_dir = 'taken' is a file; give a folder" in run(
        capsys, *train, "--set", "training.output_dir=taken", code=2
    )


def test_a_run_goes_on_with_its_own_recipe_and_starts_anew_where_it_is_told_to(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ("train", "--config", "run.toml", "--set")
    out = here / "out"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("implicit_prm.trainer.ImplicitPRMTrainer.save_state", interrupted)
        told = run(capsys, *train, "training.save_steps=2", code=130)
        assert told.endswith("interrupted; the same command goes on from the last checkpoint\n")
    (out / "checkpoint-4" / "trainer_state.json").unlink()  # as one that was being written
    for flag in ((), ("--resume",)):
        told = run(capsys, *train, "training.max_steps=6", *flag, code=2)
        assert "out holds another run: training.max_steps was 4, is 6; give the same, another" in told
    written = (out / "checkpoint-2" / "trainer_state.json").stat().st_mtime_ns
    run(capsys, *train, "training.save_total_limit=9")  # how many are kept is its own affair
    assert (out / "checkpoint-2" / "trainer_state.json").stat().st_mtime_ns == written
    assert json.loads((out / "trainer_state.json").read_text())["global_step"] == 4
    saved = (out / "model.safetensors").stat().st_mtime_ns
    run(capsys, *train, "training.save_total_limit=9")  # a finished one is not done again
    assert (out / "model.safetensors").stat().st_mtime_ns == saved

    run(capsys, *train, "training.max_steps=1", "--no-resume")
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-1"]
    (out / "recipe.json").write_text("[1]")
    assert "recipe.json is damaged" in run(capsys, *train, "training.max_steps=1", code=2)
    (out / "recipe.json").unlink()
    for flag in ((), ("--no-resume",)):
        told = run(capsys, *train, "training.max_steps=1", *flag, code=2)
        assert "out has checkpoint-1, and recipe.json, which would say what made it, is not there" in told


def test_an_adapter_is_trained_on_against_its_base(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peft = pytest.importorskip("peft")
    base = AutoModelForCausalLM.from_pretrained(here / "MODEL")
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    peft.get_peft_model(base, settings).save_pretrained(here / "ADAPTER")
    PreTrainedTokenizerFast.from_pretrained(here / "MODEL").save_pretrained(here / "ADAPTER")
    train = ("train", "--config", "run.toml", "--set", "model.name=ADAPTER")
    run(capsys, *train)
    assert json.loads((here / "out" / "adapter_config.json").read_text())["base_model_name_or_path"]
    before, after = (load_file(here / name / "adapter_model.safetensors") for name in ("ADAPTER", "out"))
    assert all(not torch.equal(after[name], weight) for name, weight in before.items())
    told = run(capsys, *train, "--set", "training.output_dir=other", "--set", "lora.r=2", code=2)
    assert "model.name is an adapter already, which [lora] would put another one upon" in told


def test_a_token_for_the_hub_is_not_noted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ("train", "--config", "run.toml", "--set", "training.max_steps=1", "--set")
    told = run(capsys, *train, "training.hub_token=hf_first")
    told += run(capsys, *train, "training.hub_token=hf_second")
    told += run(capsys, *train, "training.hub_token=hf_second", "--set", "training.beta=1", code=2)
    assert "hf_" not in told
    kept = [path for path in (here / "out").rglob("*.json*") if b"hf_" in path.read_bytes()]
    assert not kept


def _with(**changes: Any) -> list[dict[str, Any]]:
    return [*ROWS, {**ROWS[0], "id": "odd", **changes}]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (_with(label=-0.5), [], "train.jsonl, line 9: the label -0.5 is outside [0, 1]"),
        (_with(label=float("nan")), [], "train.jsonl, line 9: the label nan is outside [0, 1]"),
        (_with(label=None), [], "train.jsonl, line 9: the label None is outside [0, 1]"),
        (_with(completion=" "), [], "train.jsonl, line 9: completion is ' '"),
        (
            ROWS[::2],
            ["training.loss=dpo"],
            "no pairs: none of 4 prompts has both right and wrong responses (4 have",
        ),
        (ROWS[::2], ["training.loss=nca"], "sample more responses a prompt, or train with loss='ce'"),
        (ROWS[::2], ["training.balance=dataset"], "no balanced data: "),
        (ROWS, ["training.loss=kto", "training.per_device_train_batch_size=1"], "at least 2 with loss='kto'"),
        (ROWS, ["training.beta=0"], "beta is 0; it must be a number above 0"),
        (ROWS, ["training.beta=-0.05"], "beta is -0.05; it must be a number above 0"),
        (ROWS, ["training.loss=mse"], "loss is 'mse'; it must be one of ce, dpo, nca, kto, step"),
        (ROWS, ["training.max_length=12"], "more than max_length=12; raise it, or cut completions"),
        (
            [{"prompt": "q", "completion": "so" * 600, "label": 1}],
            [],
            "and the model reads 512: leave",
        ),
        (ROWS, ["training.speed=3"], "[training] has 'speed', which is no setting of ImplicitPRMConfig"),
        (ROWS, ["training.learning_rate=fast"], "training.learning_rate is 'fast'; it must be a number"),
        (ROWS, ["training.max_steps=2.5"], "training.max_steps is 2.5; it must be a whole number"),
        (ROWS, ["training.use_cpu=yes"], "training.use_cpu is 'yes'; it must be true or false"),
        (ROWS, ["training.optim=magic"], "[training] does not fit: magic is not a valid OptimizerNames"),
        (ROWS, ["lora.rank=4"], "[lora] does not fit: "),
        (ROWS, ["lora.target_modules=zzz"], "[lora] does not fit the model: Target modules zzz not found"),
        (ROWS, ["training.learning_rate=-1"], "learning_rate is -1; it must be a number of at least 0"),
        (ROWS, ["training.per_device_train_batch_size=0"], "per_device_train_batch_size is 0; it must be a"),
        (ROWS, ["model.name=CLASSIFIER"], "an implicit PRM is a causal language model"),
        (ROWS, ["model.reference=CLASSIFIER"], "an implicit PRM is a causal language model"),
        (ROWS, ["model.size=8"], "run.toml: [model] has 'size'; its keys are name, reference"),
        (ROWS, ['data.train=["none.jsonl"]'], "there is no file none.jsonl"),
        (ROWS, ["loss"], "--set loss: write key=value"),
        ([], [], "there is no row to train on"),
    ],
)
def test_what_cannot_be_trained_is_told_without_a_traceback_and_with_exit_code_two(
    rows: list[Any], settings: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here, rows)
    flags = [word for setting in settings for word in ("--set", setting)]
    assert message in run(capsys, "train", "--config", "run.toml", *flags, code=2)
    assert not list(here.glob("out/checkpoint-*"))


def test_equal_labels_are_warned_of(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, ROWS[::2])
    told = run(capsys, "train", "--config", "run.toml", "--set", "training.max_steps=1")
    assert "implicit-prm: all 4 labels are 1: the loss can only move all rewards one way" in told


def test_a_file_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no file none.toml" in run(capsys, "train", "--config", "none.toml", code=2)
    assert "there is no file ." in run(capsys, "train", "--config", ".", code=2)
