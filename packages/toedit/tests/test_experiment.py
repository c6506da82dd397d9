"""The experiment: a small run ends with judged claims and figures; its parts measure what they are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tenfold import Run, Verdict, run_experiment
from tenfold.configs import load_config
from tenfold.testing import run_here
from toedit import EditConfig, Editor
from toedit.reproduce import effect_study, prior
from toedit.reproduce.experiment import EXPERIMENT, ExperimentConfig

TINY = [
    "linear.designs=500",
    "linear.runs=500",
    "prior.tokens=3000",
    "prior.synthetic_tokens=300",
    "prior.characters=300",
    "tiny.context_length=32",
    "tiny.vocab_size=300",
    "tiny.budget=2048",
    "tiny.test_blocks=8",
    "tiny.shape.hidden_size=32",
    "tiny.shape.intermediate_size=48",
    "tiny.shape.num_hidden_layers=1",
    "tiny.training.max_steps=4",
    "tiny.training.warmup_steps=1",
    "tiny.training.batch_size=4",
    "tiny.training.eval_every=2",
    "mixing.writer='tiny'",
    "mixing.corpora=['docs']",
    "mixing.shares=[0,0.5,1]",
    "mixing.seeds=[0]",
]


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a small corpus, with everything in this process and no data from outside."""
    monkeypatch.setattr(Run, "map", run_here)
    monkeypatch.setattr(Run, "has_data", lambda run, name: False)
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    sentence = "Chapter {0}: a table of {0} rows is read at row {0}, and {1} comes after. "
    text.write_text("\n\n".join("".join(sentence.format(n * k, n) for k in range(9)) for n in range(80)))
    return f"file:{text}"


@pytest.mark.slow
def test_without_a_prior_theory_mixtures_and_features_are_judged(corpus: str, tmp_path: Path) -> None:
    changes = [*TINY, f"docs='{corpus}'"]
    outcome = run_experiment(EXPERIMENT, "quick", assignments=changes, results=tmp_path / "results")
    found = {claim.id: claim for claim in outcome.claims.claims}
    assert set(found) == {claim.id for claim in EXPERIMENT.claims}
    assert found["T1"].verdict == found["T1-bounded"].verdict == Verdict.HELD
    assert found["T1-constant"].verdict == Verdict.DID_NOT_HOLD
    judged = {name for name, claim in found.items() if claim.verdict != Verdict.NOT_TESTED}
    assert judged == {"T1", "T1-constant", "T1-bounded", "T4", "T6"}
    assert "smollm2-135m not available" in found["T2"].reason
    assert {file.stem for file in outcome.folder.figures.glob("*.svg")} == {
        "theory",
        "mixing_docs",
        "buckets",
    }


@pytest.mark.slow
def test_with_a_prior_edits_are_counted_and_their_effect_reported_without_a_verdict(
    corpus: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    config = EditConfig.preset("official", threshold=0.02, window=64, overlap=8)
    editor = Editor(tiny_llama(), tokenizer, config)
    remembering = Editor(prior.Remembering(editor.backend), tokenizer, config)
    monkeypatch.setattr(prior, "prior_editor", lambda window: remembering)
    monkeypatch.setattr(Run, "has_data", lambda run, name: name == "smollm2-135m")
    monkeypatch.setattr(effect_study, "HELDOUT", {"valid": (corpus, "valid")})
    changes = [*TINY, f"docs='{corpus}'", "iteration.generations=2", "effect.seeds=[0,1]"]
    outcome = run_experiment(EXPERIMENT, "laptop", assignments=changes, results=tmp_path / "results")
    found = {claim.id: claim for claim in outcome.claims.claims}
    judged = {name for name, claim in found.items() if claim.verdict != Verdict.NOT_TESTED}
    assert {"T2", "T3-interval", "T4-prior", "T5", "T5-most", "T6", "T6-edited"} <= judged
    assert "books not available" in found["T4-books"].reason
    assert "no pass rule" in found["T7"].reason
    assert found["T7"].ours is not None
    assert len(found["T7"].ours.samples) == 2
    drawn = {file.stem for file in outcome.folder.figures.glob("*.svg")}
    assert drawn >= {"probabilities", "candidates", "perplexities", "edits", "generations", "effect"}


@pytest.mark.parametrize("scale", ["quick", "laptop"])
def test_every_scale_has_three_seeds_of_every_mixture_and_one_budget(scale: str) -> None:
    config = load_config(EXPERIMENT, scale, ())
    assert isinstance(config, ExperimentConfig)
    assert config.mixing.seeds == (0, 1, 2)
    assert config.mixing.shares[0] == 0
    assert config.mixing.shares[-1] == 1
    seen = config.tiny.training.max_steps * config.tiny.training.batch_size * config.tiny.context_length
    assert seen % config.tiny.budget == 0  # whole epochs: every arm reads all of its text as often
