"""The experiment: its arms differ in positions alone, and a small run ends with judged claims and figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fope.reproduce.arms import ARMS, build
from fope.reproduce.experiment import EXPERIMENT, ExperimentConfig, arm_trials, gain_trials
from fope.reproduce.figures import LOOKS
from tenfold import Run, Verdict, run_experiment
from tenfold.configs import load_config
from tenfold.testing import run_here

SCALES = ("quick", "laptop")
SHAPE = {
    "model_type": "llama",
    "vocab_size": 257,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}


def configured(scale: str) -> ExperimentConfig:
    config = load_config(EXPERIMENT, scale, ())
    assert isinstance(config, ExperimentConfig)
    return config


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_compares_rope_and_fope_on_three_seeds(scale: str) -> None:
    config = configured(scale)
    assert config.seeds["rope"] == config.seeds["fope"] == config.seeds["cf"] == 3
    assert config.passkey is not None
    assert {"rope", "fope"} <= set(config.passkey.arms)
    assert set(config.seeds) <= set(ARMS)
    trials = [*arm_trials(config, books=False), *gain_trials(config)]
    assert len(set(trials)) == sum(config.seeds.values()) + len(config.gains)
    taught = [trial.arm in config.passkey.arms for trial in trials[: sum(config.seeds.values())]]
    assert taught == sorted(taught, reverse=True)  # the longest begin first, so that no process ends late
    assert config.shape["num_attention_heads"] * config.shape["head_dim"] == config.shape["hidden_size"]


def test_the_laptop_run_has_every_arm_of_the_brief_and_the_sweep() -> None:
    config = configured("laptop")
    assert {"rope", "fope", "cf", "fs", "fope-zeta0", "nope", "alibi", "rope_a"} == set(config.seeds)
    assert config.gains == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert set(LOOKS) == set(ARMS)


def test_arms_of_one_seed_share_every_weight_and_differ_in_what_they_compute() -> None:
    models = {arm: build(SHAPE, arm, 64, seed=0).eval() for arm in ARMS}
    weights = dict(models["rope"].named_parameters())
    tokens = torch.randint(0, 257, (1, 48), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = {arm: model(input_ids=tokens).logits for arm, model in models.items()}
    for arm, model in models.items():
        own = dict(model.named_parameters())
        assert all(torch.equal(own[name], weight) for name, weight in weights.items()), arm
        same = [other for other in models if torch.equal(logits[other], logits[arm])]
        assert same == [arm]


@pytest.mark.slow
def test_a_small_run_judges_the_claims_and_draws_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "map", run_here)
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Run, "has_data", lambda run, name: False)  # neither books nor SmolLM2
    text = tmp_path / "text.txt"
    sentence = "Chapter {0}: a wave of period {0} has come round {0} times. "
    text.write_text("\n\n".join(sentence.format(n) * 30 for n in range(100)))
    changes = [
        f"corpus='file:{text}'",
        "seeds={rope=2,fope=2,cf=1,fs=1}",
        "context_length=32",
        "eval_tokens=512",
        "curve_blocks=4",
        "gains=[0.3]",
        "gain_steps=2",
        "shape.hidden_size=64",
        "shape.intermediate_size=64",
        "shape.num_hidden_layers=1",
        "shape.num_attention_heads=1",
        "shape.num_key_value_heads=1",
        "training.max_steps=4",
        "training.warmup_steps=1",
        "training.eval_every=2",
        "passkey.trials=1",
        "passkey.lessons=1",
        "passkey.curriculum=[{digits=5,keys=2}]",
        "passkey.training.max_steps=2",
        "passkey.training.warmup_steps=1",
    ]
    outcome = run_experiment(EXPERIMENT, "quick", assignments=changes, results=tmp_path / "results")
    found = {claim.id: claim for claim in outcome.claims.claims}
    assert set(found) == {claim.id for claim in EXPERIMENT.claims}
    assert found["B"].ours is not None
    assert len(found["B"].ours.samples) == 2
    assert found["C"].verdict in (Verdict.HELD, Verdict.DID_NOT_HOLD)
    assert "not learned" in found["D"].reason
    assert "books" in found["A-books"].reason
    assert "smollm2-135m" in found["F1"].reason
    drawn = {file.stem for file in outcome.folder.figures.glob("*.svg")}
    curves = {"perplexity_by_length", "loss_by_position", "passkey", "gains"}
    assert drawn == curves | {
        "spectrum",
        "toy",
    }  # a file has no held-out library, so no ratio of perplexities
