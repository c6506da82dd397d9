"""A run from a file: what it writes, that it goes on and is not done twice, and mistakes by name."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lmlab import prepare
from lmlab.evaluation import perplexity
from lmlab.train import run_file
from lmlab.trainer import NonFiniteLossError
from tenfold.errors import UsageError

RUN = """
[corpus]
name = "{corpus}"
vocab_size = 400
context_length = 32

[model]
model_type = "llama"
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
attention_dropout = 0.1

[training]
max_steps = 8
batch_size = 4
learning_rate = 0.01
eval_every = 4
checkpoint_every = 3

[evaluation]
lengths = [16, 64]
passkey_lengths = [256]
passkey_depths = [0.5]
passkey_trials = 2
"""

CHANGES = """
import torch

def scale(model, by=1.0, noise=0.0):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(by).add_(noise * torch.randn_like(parameter))
    return model

def silence(model):
    return scale(model, 0.0)
"""


@pytest.fixture
def file(tmp_path: Path, small_corpus: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "changes.py").write_text(CHANGES)
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "run.toml"
    file.write_text(RUN.format(corpus=small_corpus))
    return file


def without_time(curve: str) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in curve.splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def same_weights(model: Path, other: Path) -> bool:
    ours, theirs = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (model, other))
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_a_run_writes(file: Path, tmp_path: Path, small_corpus: str) -> None:
    progress: list[tuple[int, int]] = []
    out = tmp_path / "out"
    metrics = run_file(file, out, on_progress=lambda done, total: progress.append((done, total)))
    measures = [(1, 4), (2, 4), (3, 4), (4, 4)]  # the loss of a split, that at two lengths, a passkey's score
    assert progress == [*((step, 8) for step in range(1, 9)), *measures]
    names = {path.name for path in out.iterdir()}
    assert names == {"config.toml", "environment.json", "curve.jsonl", "metrics.json", "model"}
    assert json.loads((out / "metrics.json").read_text()) == metrics

    model = AutoModelForCausalLM.from_pretrained(out / "model")
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    corpus = prepare(small_corpus, 400, 32)
    text = "Case 12: river ☃"
    assert tokenizer(text)["input_ids"] == corpus.tokenizer(text)["input_ids"]
    valid = metrics["splits"]["valid"]
    assert valid["loss"] == pytest.approx(perplexity(model, corpus.valid).loss, rel=1e-6)
    assert set(valid["by_length"]) == {"16", "64"}
    assert "heldout" not in metrics["splits"]
    assert [score["length"] for score in metrics["passkey"]] == [256]
    assert metrics["parameters"] == sum(p.numel() for p in model.parameters())
    assert metrics["tokens_per_second"] == pytest.approx(8 * 4 * 32 / metrics["seconds"])
    curve = without_time((out / "curve.jsonl").read_text())
    assert [row["step"] for row in curve] == [4, 8]
    assert curve[-1]["valid_loss"] == pytest.approx(valid["loss"], rel=1e-5)
    config = tomllib.loads((out / "config.toml").read_text())
    assert config["training"]["weight_decay"] == 0.1  # a default is written down
    packages = json.loads((out / "environment.json").read_text())["packages"]
    assert torch.__version__.startswith(packages["torch"])


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_a_finished_one_is_left_alone(file: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = run_file(file, whole)

    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_file(file, broken, on_progress=interrupt)
    assert not (broken / "metrics.json").exists()
    steps: list[int] = []
    got = run_file(file, broken, on_progress=lambda done, total: steps.append(done))
    assert steps == [4, 5, 6, 7, 8, *range(1, 5)]
    assert got["splits"] == expected["splits"]
    assert got["passkey"] == expected["passkey"]
    curves = [without_time((folder / "curve.jsonl").read_text()) for folder in (whole, broken)]
    assert curves[0] == curves[1]
    assert same_weights(whole / "model", broken / "model")

    assert run_file(file, broken, on_progress=lambda done, total: pytest.fail("it was trained again")) == got
    with pytest.raises(UsageError, match=r"training\.learning_rate was 0\.01, is 0\.02"):
        run_file(file, broken, assignments=["training.learning_rate=0.02"])
    other = run_file(file, broken, assignments=["training.learning_rate=0.02"], resume=False)
    assert other["splits"] != got["splits"]
    assert [row["step"] for row in without_time((broken / "curve.jsonl").read_text())] == [4, 8]


@pytest.mark.slow
def test_a_run_begun_anew_has_a_curve_of_its_own(file: Path, tmp_path: Path) -> None:
    run_file(file, tmp_path / "out", assignments=["training.eval_every=1"])

    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    changes = ["training.learning_rate=0.02", "training.eval_every=3", "training.checkpoint_every=0"]
    with pytest.raises(KeyboardInterrupt):
        run_file(file, tmp_path / "out", assignments=changes, resume=False, on_progress=interrupt)
    curve = without_time((tmp_path / "out" / "curve.jsonl").read_text())
    assert [row["step"] for row in curve] == [3]
    run_file(file, tmp_path / "out", assignments=changes)
    curve = without_time((tmp_path / "out" / "curve.jsonl").read_text())
    assert [row["step"] for row in curve] == [3, 6, 8]


def trained_by(file: Path, output: Path, *assignments: str, apply: str | None = None) -> PreTrainedModel:
    run_file(file, output, apply=apply, assignments=["training.max_steps=1", *assignments])
    return AutoModelForCausalLM.from_pretrained(output / "model")


@pytest.mark.slow
def test_apply_changes_the_model_before_training(file: Path, tmp_path: Path) -> None:
    still = "training.learning_rate=1e-30"
    plain = trained_by(file, tmp_path / "plain", still)
    halved = trained_by(file, tmp_path / "halved", still, "apply.options.by=0.5", apply="changes:scale")
    for weight, half in zip(plain.state_dict().values(), halved.state_dict().values(), strict=True):
        torch.testing.assert_close(weight / 2, half)
    config = tomllib.loads((tmp_path / "halved" / "config.toml").read_text())
    assert config["apply"] == {"function": "changes:scale", "options": {"by": 0.5}}
    noises = []
    for name in ("once", "again"):  # what it draws is a function of the run's seed
        torch.manual_seed(len(name))
        noisy = trained_by(
            file, tmp_path / name, still, "apply.options.noise=0.1", "apply.function=changes:scale"
        )
        noises.append((noisy.lm_head.weight - plain.lm_head.weight).detach())
    assert torch.equal(*noises)
    assert noises[0].std().item() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.steps=3", r"no key 'training\.steps'.*max_steps"),
        ("training.max_steps=0", r"training\.max_steps = 0.*greater than 0"),
        ("corpus.vocab_size=100", r"corpus\.vocab_size = 100.*257"),
        ("corpus.name=dox", "there is no corpus 'dox'.*docs"),
        ("corpus.name=wikitext2", "wikitext2 has no split 'train'"),
        ("model.hidden_sizes=3", "'hidden_sizes' is not a setting of LlamaConfig.*hidden_size"),
        ("model.model_type=lama", "model_type must name a model family.*llama"),
        ("model.vocab_size=300", r"model\.vocab_size 300 is below the tokenizer's 400"),
        ("apply.function=changes", r"apply\.function = 'changes'"),
        ("apply.function=changes:nothing", r"apply\.function 'changes:nothing' cannot be found"),
        ("apply.function=no_such_module:f", "no_such_module"),
        ("apply={function='changes:scale', options={bye=1}}", r"apply\.options do not fit .*'bye'"),
        ("evaluation.lengths=[100000]", "length 100000 is not between 2 and the .* tokens of valid"),
        ("evaluation.passkey_lengths=[30]", "passkey text of 30 tokens is too short"),
        ("training.gradient_accumulation_steps=3", "batch_size 4 is not a multiple"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(
    file: Path, tmp_path: Path, assignment: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run_file(file, tmp_path / "out", assignments=[assignment])
    assert not (tmp_path / "out").exists()


FAMILY = """
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "family_of_the_function"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig

AutoConfig.register(OwnConfig.model_type, OwnConfig)
AutoModelForCausalLM.register(OwnConfig, OwnModel)

def keep(model):
    return model
"""


def test_the_function_s_module_may_bring_the_model_s_family(file: Path, tmp_path: Path) -> None:
    (tmp_path / "own_family.py").write_text(FAMILY)
    changes = ["model.model_type=family_of_the_function", "training.max_steps=1"]
    run_file(file, tmp_path / "out", apply="own_family:keep", assignments=changes)
    saved = json.loads((tmp_path / "out" / "model" / "config.json").read_text())
    assert saved["architectures"] == ["OwnModel"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no config file .*none\.toml"):
        run_file(tmp_path / "none.toml", tmp_path / "out")


def test_divergence_keeps_the_last_checkpoint(file: Path, tmp_path: Path) -> None:
    changes: list[Any] = ["training.learning_rate=1e30", "training.schedule=constant"]
    with pytest.raises(NonFiniteLossError, match="training diverged at step") as error:
        run_file(file, tmp_path / "out", assignments=changes)
    assert error.value.exit_code == 1
    assert not (tmp_path / "out" / "metrics.json").exists()
