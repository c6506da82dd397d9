"""The experiment: its arms are what they are called, and a small run ends with judged claims."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import lpa
from lmlab.accounting import Ratio
from lmlab.training import NonFiniteLossError, TrainingConfig, train
from lpa.layers import LowRankLinear
from lpa.reproduce.arms import ARMS, ATTENTION, matched_ffn_rank
from lpa.reproduce.experiment import EXPERIMENT, initialisation_share
from lpa.reproduce.timing import predicted_block_ratio, step_time_minus_prediction, training_time_saved
from tenfold import Estimate, Run, Trial, Verdict, run_experiment
from tenfold.configs import load_config
from tenfold.execution import Outcome
from tenfold.pool import TrialFunction
from tenfold.records import load_records
from tenfold.testing import run_here

SCALES = ("quick", "laptop", "paper")
SHAPE = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}


def size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_has_a_valid_config_with_three_seeds_and_the_controls(scale: str) -> None:
    config = load_config(EXPERIMENT, scale, ())
    assert len(config.seeds) >= 3
    assert {"dense", "lpa", "lpa-matched", "dense-scaled", "low-ffn"} <= set(config.arms)
    assert len(config.learning_rates) >= 3


def test_the_paper_s_numbers_in_the_claims_are_those_that_were_published() -> None:
    paper = {claim.id: claim.paper_value for claim in EXPERIMENT.claims if claim.paper_value is not None}
    assert paper == {"C2b": 0.95, "C4b": 0.124}


def test_arms_with_one_seed_share_every_weight_that_they_do_not_change() -> None:
    states = {arm: build(SHAPE, 32, 0).state_dict() for arm, build in ARMS.items() if arm != "lpa-widened"}
    for arm, state in states.items():
        common = [name for name in state if name in states["dense"] and name.split(".")[-2] not in ATTENTION]
        assert common
        for name in common:
            assert torch.equal(state[name], states["dense"][name]), (arm, name)


def test_dense_scaled_starts_at_the_scale_of_lpa() -> None:
    models = {arm: ARMS[arm](SHAPE, 32, 0) for arm in ("dense", "dense-scaled", "lpa", "lpa-matched")}
    x = torch.randn(4096, 128, generator=torch.Generator().manual_seed(0))
    std = {
        arm: float(model.model.layers[0].self_attn.v_proj(x).detach().std()) for arm, model in models.items()
    }
    assert std["dense"] == pytest.approx(3**-0.5, rel=0.03)
    assert std["dense-scaled"] == pytest.approx(1 / 3, rel=0.03)
    assert std["lpa"] == pytest.approx(1 / 3, rel=0.05)
    assert std["lpa-matched"] == pytest.approx(3**-0.5, rel=0.05)


def test_low_ffn_removes_what_lpa_removes_and_widened_removes_nothing() -> None:
    sizes = {arm: size(build(SHAPE, 32, 0)) for arm, build in ARMS.items()}
    removed = sizes["dense"] - sizes["lpa"]
    assert removed == 2 * 4 * (128 * 128 - 32 * 256)
    assert sizes["dense"] - sizes["low-ffn"] == pytest.approx(removed, rel=0.02)
    assert sizes["dense"] - sizes["low-all"] == pytest.approx(2 * removed, rel=0.02)
    assert sizes["lpa-widened"] == pytest.approx(sizes["dense"], rel=0.002)
    low = ARMS["low-ffn"](SHAPE, 32, 0).model.layers[0]
    assert isinstance(low.mlp.up_proj, LowRankLinear)
    assert low.mlp.up_proj.rank == matched_ffn_rank(SHAPE, 32)
    assert not isinstance(low.self_attn.q_proj, LowRankLinear)


def test_predicted_block_ratio_is_that_of_the_closed_form() -> None:
    d, ffn, rank, length = 768, 2048, 128, 256
    dense = 8 * d * d + 6 * d * ffn + 2 * d * length
    shape = SHAPE | {"hidden_size": d, "intermediate_size": ffn, "num_attention_heads": 12}
    shape |= {"num_key_value_heads": 12, "num_hidden_layers": 1}
    low = dense - 8 * d * d + 16 * rank * d
    assert predicted_block_ratio(shape, rank, length) == pytest.approx(low / dense)


def test_initialisation_share() -> None:
    ppl = {"dense": 100.0, "dense_scaled": 92.0, "lpa": 90.0}
    metrics = {f"test_ppl_{arm}": Estimate.of(value) for arm, value in ppl.items()}
    assert initialisation_share(metrics) == {"initialisation_share": pytest.approx(0.8)}
    worse = metrics | {"test_ppl_lpa": Estimate.of(101.0)}
    assert initialisation_share(worse) == {}
    for arm in ("dense", "dense_scaled"):
        diverged = metrics | {f"test_ppl_{arm}": Estimate.of(math.inf)}
        assert initialisation_share(diverged) == {}


SMALL = (
    "vocab_size=300",
    "context_length=16",
    "rank=8",
    "seeds=[0,1]",
    "learning_rates=[1e-3,4e-3,1e30]",  # at the last of them every arm diverges
    "arms=['dense','lpa','dense-scaled']",
    "choice_blocks=4",
    "test_blocks=4",
    "training.max_steps=6",
    "training.warmup_steps=1",
    "training.eval_every=2",
    "shape.hidden_size=32",
    "shape.intermediate_size=48",
    "shape.num_hidden_layers=1",
    "shape.num_attention_heads=2",
    "shape.num_key_value_heads=2",
    "timing.shape.hidden_size=64",
    "timing.shape.num_attention_heads=2",
    "timing.shape.num_key_value_heads=2",
    "timing.shape.vocab_size=64",
    "timing.rank=8",
    "timing.batch_size=1",
    "timing.length=8",
    "timing.rounds=2",
    "timing.repeats=6",
)
FIGURES = {"curves.svg", "quality.svg", "sweep.svg", "step_times.svg", "spectra.svg"}


@pytest.fixture
def run_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run the experiment with models of a few thousand parameters on a text of its own, in this process."""
    monkeypatch.setattr(Run, "map", run_here)
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "no-books"))
    text = tmp_path / "text.txt"
    sentence = "Chapter {0}. The rank of a matrix is at most {0}; its rows span a space of dimension {0}."
    text.write_text("\n\n".join(sentence.format(n) * 40 for n in range(100)))

    def run(*changes: str, scale: str = "quick") -> Outcome:
        assignments = [f"corpus='file:{text}'", *SMALL, *changes]
        return run_experiment(EXPERIMENT, scale, assignments=assignments, results=tmp_path / "results")

    return run


@pytest.mark.slow
def test_a_small_run_judges_the_claims_and_draws_the_figures(run_small: Callable[..., Outcome]) -> None:
    outcome = run_small()
    verdicts = {claim.id: claim for claim in outcome.claims.claims}
    assert set(verdicts) == {claim.id for claim in EXPERIMENT.claims}
    assert verdicts["C2b"].ours is not None
    assert len(verdicts["C2b"].ours.samples) == 2
    assert verdicts["C1a"].verdict == Verdict.NOT_TESTED  # low-ffn was left out
    assert "books" in verdicts["C6"].reason
    results = load_records(outcome.folder.records_file, print).records.results()
    diverged = [trial for trial, result in results.items() if "diverged_at_step" in result]
    assert [(trial.arm, trial.stage) for trial in diverged] == [
        (arm, "lr 1e+30") for arm in ("dense", "lpa", "dense-scaled")
    ]
    assert {file.name for file in outcome.folder.figures.glob("*.svg")} == FIGURES


@pytest.mark.long
def test_at_the_paper_s_scale_one_training_has_the_machine(
    run_small: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int | None]] = []

    def recorded(run: Run, function: TrialFunction, trials: Any, **limits: Any) -> Any:
        asked.append((function.__name__, limits.get("jobs")))
        return run_here(run, function, trials, **limits)

    monkeypatch.setattr(Run, "map", recorded)
    small = ("learning_rates=[1e-3]", "training.batch_size=16", "timing.other_ranks=[]")
    outcome = run_small(*small, scale="paper")
    assert [jobs for name, jobs in asked if name == "train_arm"] == [1, 1]
    assert {claim.id: claim for claim in outcome.claims.claims}["C4b"].ours is not None


@pytest.mark.parametrize("measure", [step_time_minus_prediction, training_time_saved])
def test_steps_are_timed_in_bfloat16_where_there_is_an_accelerator(
    measure: Callable[[Trial, Any], dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the CPU in its place, which has an autocast of its own."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cpu"))
    assert {torch.bfloat16} == set(timed_types(measure, monkeypatch))


def test_steps_are_timed_in_float32_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert {torch.float32} == set(timed_types(step_time_minus_prediction, monkeypatch))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("measure", [step_time_minus_prediction, training_time_saved])
def test_steps_are_timed_on_the_accelerator(
    measure: Callable[[Trial, Any], dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, output: (
            devices.append(next(module.parameters()).device.type)
            if isinstance(module, torch.nn.Linear)
            else None
        )
    )
    with hook:
        timed_types(measure, monkeypatch)
    assert set(devices) == {"cuda"}


def timed_types(
    measure: Callable[[Trial, Any], dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> list[torch.dtype]:
    """The types that linear layers gave in the steps that `measure` times, each done once."""
    types: list[torch.dtype] = []

    def once(ours: Callable[[], None], base: Callable[[], None], repeats: int) -> Ratio:
        ours(), base()
        return Ratio(1.0, 1.0, 1.0)

    monkeypatch.setattr("lpa.reproduce.timing.interleaved_ratio", once)
    settings = {"shape": SHAPE, "rank": 32, "block_layers": 1, "batch_size": 2, "length": 8, "repeats": 6}
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, output: (
            types.append(output.dtype) if isinstance(module, torch.nn.Linear) else None
        )
    )
    with hook:
        measure(Trial("rank-32", 0, settings), None)
    return types


@pytest.mark.slow
def test_no_claim_rests_on_a_training_that_diverged(
    run_small: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges_sometimes(model: PreTrainedModel, data: Any, config: TrainingConfig, **options: Any) -> Any:
        if config.seed == 1 or lpa.is_lpa(model):
            raise NonFiniteLossError(3, config.learning_rate, math.nan, math.inf, None)
        return train(model, data, config, **options)

    monkeypatch.setattr("lpa.reproduce.experiment.train", diverges_sometimes)
    outcome = run_small("learning_rates=[1e-3]")
    judged = {claim.id: claim.verdict for claim in outcome.claims.claims if not claim.id.startswith("C4")}
    # The second seed of dense diverged too: there is nothing to compare LPA with.
    assert set(judged.values()) == {Verdict.NOT_TESTED}
    assert {file.name for file in outcome.folder.figures.glob("*.svg")} == FIGURES
