"""The experiment: its arms are what they are called, and a small run ends with judged claims and figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import memoryformer as mf
from lmlab.accounting import forward_flops
from memoryformer.reproduce.arms import ABLATIONS, ARMS, build
from memoryformer.reproduce.decoding import DecodingConfig, decoding_ways
from memoryformer.reproduce.experiment import (
    EXPERIMENT,
    ExperimentConfig,
    ablation_trials,
    first_trials,
    trial_of,
)
from memoryformer.reproduce.language import train_arm
from tenfold import Run, TrialContext, Verdict, run_experiment
from tenfold.configs import load_config
from tenfold.data import path as data_path
from tenfold.errors import UsageError
from tenfold.testing import run_here

SCALES = ("quick", "laptop")


def configured(scale: str) -> ExperimentConfig:
    config = load_config(EXPERIMENT, scale, ())
    assert isinstance(config, ExperimentConfig)
    return config


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_has_three_seeds_of_the_paper_s_rates_and_a_sweep_of_every_arm(scale: str) -> None:
    config = configured(scale)
    assert config.seeds == (0, 1, 2)
    assert config.paper_rates == {"transformer": 1e-3, "memoryformer": 3e-3}
    assert config.learning_rates["transformer"] == config.learning_rates["memoryformer"] == (1e-3, 3e-3, 6e-3)
    assert set(config.learning_rates) == set(ARMS)
    trials = first_trials(config, books=False)
    assert len(set(trials)) == len(trials)
    seeds = {
        (t.arm, t.stage): [s.seed for s in trials if (s.arm, s.stage) == (t.arm, t.stage)] for t in trials
    }
    assert seeds["transformer", "lr 0.001"] == seeds["memoryformer", "lr 0.003"] == [0, 1, 2]
    assert seeds["memoryformer", "lr 0.001"] == seeds["transformer-fc", "lr 0.024"] == [0]
    inspected = [(t.arm, t.stage) for t in trials if t.settings["inspected"]]
    assert inspected == [("memoryformer", "lr 0.003")] * 3


def test_a_config_with_an_arm_that_is_not_there_says_which_there_are() -> None:
    with pytest.raises(UsageError, match="transformer, transformer-fc, transformer-total, memoryformer"):
        load_config(EXPERIMENT, "quick", ["learning_rates.lstm=[1e-3]"])
    with pytest.raises(UsageError, match="bits-0, bits-1, bits-3, tau-4, gelu, softmax"):
        load_config(EXPERIMENT, "laptop", ["ablations.arms=['bits-9']"])


def test_three_times_the_default_rate_is_the_rate_that_people_write() -> None:
    config = load_config(EXPERIMENT, "quick", ["default_rate=6e-4"])
    assert isinstance(config, ExperimentConfig)
    assert config.paper_rates["memoryformer"] == 1.8e-3


def test_the_laptop_run_has_the_ablations_of_tables_3_5_and_6() -> None:
    config = configured("laptop")
    trials = ablation_trials(config, books=False)
    arms = [trial.arm for trial in trials]
    assert arms.count("memoryformer") == 3
    assert set(arms) == set(ABLATIONS)
    assert {trial.settings["training"]["max_steps"] for trial in trials} == {140}
    assert ablation_trials(configured("quick"), books=False) == []


@pytest.mark.parametrize("scale", SCALES)
def test_the_narrow_transformers_have_the_flops_of_the_memoryformer(scale: str) -> None:
    config = configured(scale)
    length, vocab = config.context_length, 257
    blocks = {}
    for arm in ARMS:
        with torch.device("meta"):
            model = build(arm, config.shape, vocab, length, seed=0)
        head = model.get_output_embeddings().weight.numel()
        a_token = forward_flops(model, 1, length) / 2 / length - head
        width = model.config.hidden_size
        blocks[arm] = (a_token, a_token - config.shape.num_hidden_layers * 2 * length * width)
    ours, ours_fc = blocks["memoryformer"]
    cfg = mf.MemoryFormerConfig(hidden_size=config.shape.hidden_size, num_attention_heads=4)
    exact = mf.flops.count(cfg, 1, "exact")["fc"] * config.shape.num_hidden_layers
    assert ours_fc == exact
    assert blocks["transformer-fc"][1] == pytest.approx(ours_fc, rel=0.15)
    assert blocks["transformer-total"][0] == pytest.approx(ours, rel=0.1)
    assert blocks["transformer"][1] / ours_fc == pytest.approx(12 * 8 / 5.25)  # tau 8, 2 more bits: 18 times


def test_the_lean_transformer_writes_what_generate_writes_and_compile_decode_what_the_modules_write() -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
    config = DecodingConfig(**sizes, prompt_tokens=3, new_tokens=20, rounds=1)
    prompt = torch.randint(50, (1, 3), generator=torch.Generator().manual_seed(0))
    written = {way: write(prompt) for way, write in decoding_ways(config, seed=0).items()}
    assert all(tokens.shape == (1, 23) for tokens in written.values())
    assert torch.equal(written["transformer"], written["transformer, lean loop"])
    assert torch.equal(written["MemoryFormer"], written["MemoryFormer, compile_decode"])
    assert torch.equal(written["MemoryFormer int8"], written["MemoryFormer int8, compile_decode"])


def test_ablations_change_what_they_are_called() -> None:
    config = configured("quick")
    with torch.device("meta"):
        models = {arm: build(arm, config.shape, 257, 128, seed=0) for arm in ABLATIONS}
    base = models["memoryformer"].config
    assert (base.tau, base.expand_bits, base.activation, base.score) == (8, 2, None, "scaled")
    assert [models[f"bits-{n}"].config.expand_bits for n in (0, 1, 3)] == [0, 1, 3]
    assert models["tau-4"].config.tau == 4
    assert models["gelu"].config.activation == "gelu"
    assert models["softmax"].config.score == "softmax"


@pytest.mark.long
@pytest.mark.skipif(data_path("books") is None, reason="the books are not on this machine")
def test_two_hundred_steps_on_books_need_attention_and_the_gradient_to_the_input(tmp_path: Path) -> None:
    """A bigram model gets 2.43 nats a byte; without the gradient through the hash it would stay there."""
    quick = configured("quick")
    training = quick.training.model_copy(update={"max_steps": 200})
    config = quick.model_copy(update={"corpus": "books", "training": training})
    trial = trial_of(config, False, "memoryformer", 6e-3, seed=0)
    found = train_arm(trial, TrialContext(trial, tmp_path, lambda done, total: None))
    assert found["losses"]["valid"] < 2.25


@pytest.mark.slow
def test_a_small_run_judges_the_claims_and_draws_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "map", run_here)
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Run, "has_data", lambda run, name: False)
    text = tmp_path / "text.txt"
    sentence = "Chapter {0}: a table of {0} rows is read at row {0}. "
    text.write_text("\n\n".join(sentence.format(n) * 30 for n in range(100)))
    changes = [
        f"corpus='file:{text}'",
        "context_length=32",
        "seeds=[0,1]",
        "learning_rates={transformer=[1e-3],memoryformer=[1e-3,3e-3],"
        "transformer-fc=[1e-2],transformer-total=[1e-2]}",
        "choice_blocks=4",
        "test_blocks=4",
        "bucket_tokens=512",
        "shape={hidden_size=32,num_hidden_layers=1,num_attention_heads=2,narrow_fc=[16,2],narrow_total=[24,2]}",
        "training.max_steps=4",
        "training.batch_size=4",
        "training.eval_every=2",
        "ablations={arms=['bits-0','bits-1','bits-3','tau-4','gelu'],max_steps=2,learning_rate=3e-3}",
        "decoding={hidden_size=32,num_hidden_layers=1,num_attention_heads=2,vocab_size=64,prompt_tokens=2,"
        "new_tokens=8,rounds=2}",
    ]
    outcome = run_experiment(EXPERIMENT, "laptop", assignments=changes, results=tmp_path / "results")
    found = {claim.id: claim for claim in outcome.claims.claims}
    assert set(found) == {claim.id for claim in EXPERIMENT.claims}
    assert found["C1"].verdict == Verdict.HELD
    judged = {"C2", "C2b", "C3", "C3b", "C4", "C5", "C6", "C7", "C8", "C9-512", "C9-lean", "C10"}
    assert {claim for claim in found if found[claim].verdict != Verdict.NOT_TESTED} == judged | {"C1"}
    assert found["C2"].ours is not None
    assert len(found["C2"].ours.samples) == 2
    assert "books" in found["C2-books"].reason
    drawn = {file.stem for file in outcome.folder.figures.glob("*.svg")}
    assert drawn == {"four_axes", "rates", "figure_1", "figure_4", "decoding", "ablations"}
