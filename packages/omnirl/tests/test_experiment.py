"""The experiment: a small run ends with judged claims and figures; its parts measure what they are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas

from omnirl.model.modeling import OmniRL
from omnirl.reproduce import figures, playing, training
from omnirl.reproduce.experiment import (
    EXPERIMENT,
    METHODS,
    ExperimentConfig,
    evaluations,
    side_trainings,
    with_data,
)
from omnirl.reproduce.metrics import control_metrics, pool_metrics, start_metrics
from omnirl.reproduce.playing import lake_task, unseen_tasks
from omnirl.reproduce.training import changed_parameters, model_folder, task_hashes, training_trial
from omnirl.tasks.sampling import sample_tasks
from omnirl.training.config import TrainConfig
from tenfold import Records, Run, Trial, TrialContext, Verdict, run_experiment
from tenfold.configs import load_config
from tenfold.figures import style
from tenfold.records import measurement_of
from tenfold.testing import run_here

MODEL = {"num_states": 16, "num_actions": 5, "hidden_size": 8, "num_layers": 1, "num_heads": 1}
SMALL = {"updates": 2, "batch_size": 2, "context": 16, "model": {**MODEL, "layout": "fused"}}


def smaller(table: str) -> list[str]:
    """A training of two updates of next to nothing."""
    changes = ("updates=2", "batch_size=2", "context=32")
    changes += ("model.hidden_size=8", "model.num_layers=1", "model.num_heads=1")
    return [f"{table}.{change}" for change in changes]


TINY = [
    "worlds=2",
    "context_steps=64",
    "film_episodes=4",
    "tests.tasks=3",
    "tests.steps=120",
    "tests.shown=20",
    "tests.lake_runs=2",
    "tests.lake_steps=240",
    *smaller("training"),
    "training.data.tasks=8",
]
LAPTOP = [
    *(change for table in ("methods", "pools.training", "star") for change in smaller(table)),
    "methods.data.tasks=8",
    "star.data.tasks=8",
    "tests.long_steps=130",
    "pools.sizes=[2, 3, 4]",
    "ppo.tasks=1",
    "ppo.steps=[64, 128]",
]


FIGURES = {
    "cross_entropy",
    "frozen_lake",
    "frozen_lake_film",
    "learning_curves",
    "starts",
    "stationary",
    "training_loss",
}


@pytest.mark.parametrize("scale", ["quick", pytest.param("laptop", marks=pytest.mark.long)])
def test_a_tiny_run_of_all_parts_judges_every_claim_and_draws_every_figure(
    scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "map", run_here)
    changes = TINY + LAPTOP if scale == "laptop" else TINY
    outcome = run_experiment(EXPERIMENT, scale, assignments=changes, results=tmp_path)
    found = {claim.id: claim for claim in outcome.claims.claims}
    assert set(found) == {claim.id for claim in EXPERIMENT.claims}
    for claim in EXPERIMENT.claims:
        tested = found[claim.id].verdict in (Verdict.HELD, Verdict.DID_NOT_HOLD)
        assert tested == (scale in claim.scales), (claim.id, found[claim.id].reason)
    # The facts hold however little was trained.
    assert all(found[name].verdict == Verdict.HELD for name in ("Q6", "Q8"))
    drawn = {file.stem for file in outcome.folder.figures.glob("*.svg")}
    drawn |= {file.stem for file in outcome.folder.figures.glob("*.gif")}
    assert drawn == FIGURES | ({"methods", "pools"} if scale == "laptop" else set())


def test_the_film_of_quick_is_played_by_the_shipped_model_and_that_of_laptop_by_its_own() -> None:
    for scale, wanted in (("quick", "omnirl/mini"), ("laptop", None)):
        config = load_config(EXPERIMENT, scale, ())
        assert isinstance(config, ExperimentConfig)
        (film,) = (trial for trial in evaluations(config) if trial.stage == playing.FILM)
        assert film.settings.get("film_model") == wanted
        assert ("training" in film.settings) == (wanted is None)


def test_the_shipped_model_learns_the_lake_of_the_film(tmp_path: Path) -> None:
    config = load_config(EXPERIMENT, "quick", ())
    assert isinstance(config, ExperimentConfig)
    (film,) = (trial for trial in evaluations(config) if trial.stage == playing.FILM)
    found = playing.film_trial(film, TrialContext(film, tmp_path, lambda done, total: None))
    assert sum(found["raw"][-20:]) > sum(found["raw"][:10]) + 5
    drawn = figures.film({"lake": {0: found}}, "omnirl/mini", tmp_path)
    assert drawn.path.read_bytes().startswith(b"GIF89a")


def test_no_two_of_the_laptops_ten_trainings_are_drawn_alike(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    canvases: list[Canvas] = []
    monkeypatch.setattr(
        figures, "save", lambda canvas, folder, name: canvases.append(canvas) or folder / name
    )
    trials = [Trial(f"training {number}", 0, stage=training.STAGE) for number in range(10)]
    with style():
        figures.training_loss(
            Records([measurement_of(trial, 1, {"loss": 1.0}) for trial in trials]), tmp_path
        )
    lines = canvases[0].axes[0].get_lines()
    assert len({(to_hex(line.get_color()), line.get_linestyle()) for line in lines}) == len(lines) == 10


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trial, TrialContext]:
    trial = Trial("main", 0, {**SMALL, "data": {"tasks": 4}}, stage=training.STAGE)
    context = TrialContext(trial, tmp_path_factory.mktemp("run"), lambda done, total: None)
    training_trial(trial, context)
    return trial, context


def test_one_changed_number_is_one_changed_tensor(trained: tuple[Trial, TrialContext]) -> None:
    trial, context = trained
    model = OmniRL.from_pretrained(model_folder(trial, context))
    assert changed_parameters(model, trial, context) == 0
    parameter = next(model.parameters())
    parameter.data.view(-1)[0] += 1e-3
    assert changed_parameters(model, trial, context) == 1


def test_a_task_is_known_again_by_its_hash(trained: tuple[Trial, TrialContext]) -> None:
    known = training.trained_on(*trained)
    assert known == set(task_hashes(sample_tasks(4, seed=0)))  # what the stream draws from
    assert not known & set(task_hashes(unseen_tasks(8, 1000)))
    assert not known & set(task_hashes(lake_task("lake")))


def test_a_training_that_was_killed_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    settings = {**SMALL, "updates": 4, "data": {"tasks": 4}, "checkpoint_minutes": 1e-9}
    trial = Trial("main", 0, settings, stage=training.STAGE)
    whole = TrialContext(trial, tmp_path / "whole", lambda done, total: None)
    training_trial(trial, whole)

    def kill(done: float, total: float) -> None:
        if done >= 3:
            raise KeyboardInterrupt

    cut = TrialContext(trial, tmp_path / "cut", lambda done, total: None)
    cut.progress = kill  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        training_trial(trial, cut)
    seen: list[float] = []
    again = TrialContext(trial, tmp_path / "cut", lambda done, total: None)
    again.progress = lambda done, total: seen.append(done)  # type: ignore[method-assign]
    training_trial(trial, again)
    assert seen[0] > 1
    model = OmniRL.from_pretrained(model_folder(trial, again))
    assert changed_parameters(model, trial, whole) == 0


def test_unseen_tasks_are_as_many_as_asked_for_and_the_first_ones() -> None:
    few, many = unseen_tasks(5, 1000), unseen_tasks(40, 1000)
    assert (len(few), len(many)) == (5, 40)
    assert np.array_equal(few.transition, many.transition[:5])


def test_without_a_pool_of_tasks_nothing_is_said_about_shared_ones() -> None:
    played = {"online": {0: {"changed_parameters": 0}}}
    assert control_metrics(played) == {"changed_parameters": [0.0]}
    played["noisy"] = {0: {"changed_parameters": 1, "shared_tasks": 2}}
    assert control_metrics(played) == {"changed_parameters": [0.0, 1.0], "shared_tasks": [2.0]}


def test_what_the_claims_name_is_in_the_metrics() -> None:
    arms: dict[str, dict[str, list[float]]] = {"online": {"first": [0.0, 0.2], "last": [0.3, 0.4]}}
    for number, name in enumerate(
        ("offline_random", "offline_random_hidden", "noisy", "noisy_untagged", "imitation")
    ):
        arms[name] = {"score": [0.1 * number, 0.2], "teacher": [0.0, 0.1]}
    found = start_metrics({name: {0: result} for name, result in arms.items()})
    assert found["online_gain"] == pytest.approx([0.3, 0.2])
    assert found["noisy_gain"] == pytest.approx([0.2, 0.1])
    gains = {16: (0.9, 0.1), 256: (0.8, 0.3), 4096: (0.6, 0.5)}
    found = pool_metrics(
        {
            f"pool_{size}_{name}": {0: {"gain": [0.0, gain]}}
            for size, pair in gains.items()
            for name, gain in zip(("seen", "unseen"), pair, strict=True)
        }
    )
    assert found["unseen_gain_rise_low"] == pytest.approx([0.2])
    assert found["unseen_gain_rise_high"] == pytest.approx([0.2])
    assert found["seen_unseen_gap_fall_low"] == pytest.approx([0.3])
    assert found["seen_unseen_gap_fall_high"] == pytest.approx([0.4])


def test_a_method_with_its_own_mix_gets_no_other() -> None:
    base = {"updates": 1, "data": {"mix": "paper", "tasks": 3}}
    assert with_data(base, method="ad")["data"] == {"method": "ad", "tasks": 3}
    assert with_data(base)["data"] == base["data"]


@pytest.mark.parametrize("scale", ["quick", "laptop", "paper"])
def test_every_scale_has_the_tests_that_the_claims_say(scale: str) -> None:
    config = load_config(EXPERIMENT, scale, ())
    assert isinstance(config, ExperimentConfig)
    tests = config.tests
    assert (tests.tasks, tests.steps, tests.shown, tests.lake_steps) == (128, 400, 200, 1200)
    assert config.worlds == 64
    assert config.seeds == (0,)
    if scale == "laptop":
        names = {trial.arm for trial in side_trainings(config)}
        assert names == {"star", "pool_16", "pool_256", "pool_4096", *METHODS}
        assert tests.long_steps == 1000


def test_a_training_key_that_is_not_known_is_named() -> None:
    with pytest.raises(Exception, match="batch_siz"):
        load_config(EXPERIMENT, "quick", ["training.batch_siz=3"])


def test_the_trainings_of_a_scale_are_training_configs_of_the_command() -> None:
    config = load_config(EXPERIMENT, "quick", ())
    assert isinstance(config, ExperimentConfig)
    settings = TrainConfig.from_dict({**config.training, "out": "run"})
    assert settings.updates * settings.batch_size * settings.context > 9e6
