"""What the command does with lmlab: positions for a run, and run folders that give the same model back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fope.errors import FopeError
from fope.hf.config import read
from fope.reproduce.training import evaluate_run, find_passkeys, load_run, modify, plan, run_config, train_run
from lmlab.models import build_model
from tenfold.errors import UsageError

SHAPE = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 16,
}
RUN = """
[corpus]
name = "file:{text}"
vocab_size = 300
context_length = 32

[model]
{shape}

[training]
max_steps = 2
batch_size = 4
learning_rate = 1e-3

[evaluation]
max_blocks = 4
lengths = [16, 64]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run's file without [apply], on a text and with a cache of its own."""
    folder = tmp_path_factory.mktemp("training")
    text = folder / "text.txt"
    text.write_text("\n\n".join(f"Wave {n} has a period of {7 * n} positions. " * 30 for n in range(60)))
    lines = [f"{key} = {value!r}" for key, value in SHAPE.items() if key != "vocab_size"]
    (folder / "run.toml").write_text(RUN.format(text=text, shape="\n".join(lines)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENFOLD_CACHE", str(folder / "cache"))
        yield folder / "run.toml"


@pytest.mark.parametrize("kind", ["fope", "cf", "rope", "alibi", "kerple"])
def test_a_run_folder_gives_the_trained_model_back(kind: str, file: Path, tmp_path: Path) -> None:
    config = run_config(str(file), [f"apply.options.kind={kind}"])
    metrics = train_run(config, tmp_path)
    for again in (evaluate_run(tmp_path), evaluate_run(tmp_path, (16, 64), max_tokens=4 * 32)):
        assert again["valid"].keys() == {"16", "64"}
        for length, score in metrics["splits"]["valid"]["by_length"].items():
            assert again["valid"][length]["loss"] == pytest.approx(score["loss"], abs=1e-6)
    assert load_run(tmp_path)[0] == config
    seen: list[tuple[int, int]] = []
    found = find_passkeys(
        tmp_path, [400], [0.0, 1.0], trials=1, on_progress=lambda done, total: seen.append((done, total))
    )
    assert [(score["length"], score["depth"]) for score in found] == [(400, 0.0), (400, 1.0)]
    assert seen == [(1, 2), (2, 2)]


def test_a_run_that_ended_before_the_model_was_saved_is_told(file: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(file.read_text())
    with pytest.raises(FopeError, match="holds no finished run"):
        find_passkeys(tmp_path)


def test_a_file_is_trained_as_fope_for_its_context_length(file: Path) -> None:
    apply = run_config(str(file)).apply
    assert apply is not None
    stored = read(modify(build_model(SHAPE, seed=0), **apply.options).config)
    assert stored is not None
    assert (stored.config.train_length, stored.config.zero_sin, stored.config.init_gain) == (32, 1.0, 0.3)
    longer = run_config(str(file), ["apply.options.train_length=64"]).apply
    assert longer is not None
    assert longer.options["train_length"] == 64


def test_the_seed_of_the_coefficients_is_the_run_s() -> None:
    coefs = [
        modify(build_model(SHAPE, seed=0), train_length=64, seed=seed).model.layers[0].self_attn.fope.cos_coef
        for seed in (1, 1, 2)
    ]
    assert torch.equal(coefs[0], coefs[1])
    assert not torch.equal(coefs[0], coefs[2])


def test_a_plan_counts_what_the_model_has(file: Path) -> None:
    planned = plan(run_config(str(file)))
    model = build_model(SHAPE, seed=0)
    assert planned.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert planned.tokens == 2 * planned.tokens_per_step == 2 * 4 * 32
    kerple = plan(run_config(str(file), ["apply.options.kind=kerple"]))
    assert kerple.parameters == planned.parameters + 2 * 2  # two of each head
    with pytest.raises(FopeError, match="no positions of kind 'sinus'"):
        plan(run_config(str(file), ["apply.options.kind=sinus"]))


def test_mistakes_in_options_name_them(file: Path) -> None:
    with pytest.raises(FopeError, match="kind 'sinus'; there are rope, nope, alibi"):
        modify(build_model(SHAPE, seed=0), train_length=64, kind="sinus")
    with pytest.raises(FopeError, match="kind 'alibi' have no option init_gain"):
        modify(build_model(SHAPE, seed=0), train_length=64, kind="alibi", init_gain=0.3)
    with pytest.raises(FopeError, match="unknown FoPE setting gain"):
        modify(build_model(SHAPE, seed=0), train_length=64, gain=0.3)
    with pytest.raises(UsageError, match="no config file"):
        run_config("nowhere.toml")
