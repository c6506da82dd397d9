"""The experiment: a small run ends with judged claims and figures; its parts measure what they are called."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from math import inf, isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from implicit_prime.config import PrimeConfig
from implicit_prime.errors import NoPromptPassesError
from implicit_prime.reproduce import metrics
from implicit_prime.reproduce.claims import CLAIMS, FEWER_ROLLOUTS, MORE_AREA, Reported, bootstrap_interval
from implicit_prime.reproduce.experiment import EXPERIMENT, ExperimentConfig, other_tasks
from implicit_prime.reproduce.pretraining import single_steps
from implicit_prime.trainer import PrimeTrainer
from implicit_prm.reproduce.generation import task_of
from implicit_prm.tasks import gsm8k_chain
from implicit_prm.tasks.modchain import ModChain
from tenfold import Estimate, NotTestableError, Run, Verdict, data, run_experiment
from tenfold.configs import load_config
from tenfold.testing import run_here


@pytest.mark.parametrize(
    ("rule", "samples", "word"),
    [
        (MORE_AREA, (1.0, 2.0, 3.0), "supports"),
        (MORE_AREA, (-1.0, -2.0, -3.0), "contradicts"),
        (MORE_AREA, (-1.0, 2.0, 0.5), "no difference"),
        (FEWER_ROLLOUTS, (0.4, 0.5, 0.6), "supports"),
        (FEWER_ROLLOUTS, (1.5, inf, 2.0), "contradicts"),
        (FEWER_ROLLOUTS, (0.5, inf, 0.7), "no difference"),
    ],
)
def test_what_the_seeds_say_of_a_comparison_is_one_of_three_words(
    rule: Reported, samples: tuple[float, ...], word: str
) -> None:
    assert rule.word(Estimate(samples)) == word
    with pytest.raises(NotTestableError, match=word):
        rule.holds(Estimate(samples), {}, None)


def test_the_interval_of_three_seeds_reaches_from_the_least_to_the_most() -> None:
    # Three equal draws have probability 1/27 > 2.5% each.
    assert bootstrap_interval((3.0, 1.0, 2.0)) == (1.0, 3.0)


def test_one_seed_is_no_comparison() -> None:
    with pytest.raises(NotTestableError, match="one seed"):
        MORE_AREA.holds(Estimate((1.0,)), {}, None)


def test_accuracies_of_two_arms_are_compared_seed_by_seed() -> None:
    rule = Reported(0.0, more_is_good=True, less="gain_rloo")
    with pytest.raises(NotTestableError, match=r"supports \(95% of 3 seeds resampled: 1 to 3\)"):
        rule.holds(Estimate((11.0, 22.0, 33.0)), {"gain_rloo": Estimate((10.0, 20.0, 30.0))}, None)
    with pytest.raises(NotTestableError, match="gain_rloo missing"):
        rule.holds(Estimate((11.0, 22.0, 33.0)), {}, None)


def test_only_the_comparisons_with_outcomes_alone_have_no_pass_rule() -> None:
    reported = {claim.id for claim in CLAIMS if isinstance(claim.criterion, Reported)}
    assert reported == {claim.id for claim in CLAIMS if claim.id.startswith("R")}


TINY = [
    "seeds=[0, 1]",
    "repeat_steps=1",
    "study.train_prompts=12",
    "study.test_prompts=6",
    "study.judge_every=1",
    "study.offline_epochs=1",
    "study.chain.mod=3",
    "study.chain.operations=2",
    "study.chain.steps=2",
    "study.chain.max_tokens=3",
    "study.chain.fitting_steps=12",
    "study.chain.pool_prompts=8",
    "study.chain.test_prompts=3",
    "study.chain.generator.hidden_size=8",
    "study.chain.generator.intermediate_size=8",
    "study.chain.generator.num_hidden_layers=1",
    "study.chain.generator.num_attention_heads=1",
    "study.chain.generator.batch_size=16",
    "study.pretraining_steps=2",
    "longer_steps=3",
    "gsm8k.train_prompts=8",
    "gsm8k.test_prompts=4",
    "gsm8k.judge_every=1",
    "gsm8k.chain.fitting_steps=2",
    "gsm8k.chain.pool_prompts=2",
    "gsm8k.chain.pool_responses=2",
    "gsm8k.chain.test_prompts=2",
    "gsm8k.chain.test_responses=2",
    "gsm8k.chain.max_tokens=8",
    "gsm8k.chain.generator.hidden_size=8",
    "gsm8k.chain.generator.intermediate_size=8",
    "gsm8k.chain.generator.num_hidden_layers=1",
    "gsm8k.chain.generator.num_attention_heads=1",
    "gsm8k.training.max_steps=1",
    "gsm8k.training.prompts_per_step=2",
    "gsm8k.training.mini_batch_size=8",
    "gsm8k.training.accuracy_range=[0.0, 1.0]",  # two steps teach nobody to calculate
    "study.training.max_steps=2",
    "study.training.prompts_per_step=2",
    "study.training.mini_batch_size=8",
    'arms=[{name="rloo", training={process_weight=0.0}}, {name="prime"}, {name="prime-batch-max", '
    'training={process_norm="batch_max"}}, {name="prime-offline", training={prm_update="none"}, '
    'prm="offline"}, {name="prime-unfiltered", training={accuracy_range="none"}}, '
    '{name="prime-pretrained", prm="pretrained"}]',
]


@pytest.mark.slow
def test_a_tiny_run_judges_what_it_can_and_draws_every_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "map", run_here)
    monkeypatch.setattr(gsm8k_chain, "read_programs", cache(gsm8k_chain.read_programs))  # else 16 times
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    outcome = run_experiment(EXPERIMENT, "laptop", assignments=TINY, results=tmp_path / "results")
    found = {claim.id: claim for claim in outcome.claims.claims}
    assert set(found) == {claim.id for claim in CLAIMS}
    judged = {name for name, claim in found.items() if claim.verdict != Verdict.NOT_TESTED}
    assert judged == {"C2", "C3", "C4", "C5", "C6"}
    assert found["C5"].verdict == Verdict.HELD
    assert "not a number" in found["C1"].reason  # it asks for steps 30 to 50
    gsm8k = data.datasets()["gsm8k-worked"].path() is not None
    assert gsm8k or "gsm8k-worked" in found["R10"].reason
    for name in ("R1", "R3", "R8", "R9", *(["R10"] if gsm8k else [])):
        assert any(word in found[name].reason for word in ("supports", "no difference", "contradicts")), name
    names = {"areas", "heat_map", "learning", "phases", "reward_model"}
    assert {file.stem for file in outcome.folder.figures.glob("*.svg")} == names


@pytest.mark.slow
def test_an_arm_whose_policy_collapses_ends_early_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = PrimeTrainer.steps

    def steps(trainer: PrimeTrainer) -> Iterator[dict[str, float]]:
        for measured in whole(trainer):
            yield measured
            if trainer.args.advantage == "grpo":
                raise NoPromptPassesError("0 of 512 prompts passed the filter in 16 rounds")

    monkeypatch.setattr(PrimeTrainer, "steps", steps)
    monkeypatch.setattr(Run, "map", run_here)
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    arms = (
        'arms=[{name="rloo", training={process_weight=0.0}}, {name="prime"}, '
        '{name="prime-grpo", training={advantage="grpo"}}]'
    )
    given = [each for each in TINY if not each.startswith(("arms=", "longer", "gsm8k"))]
    outcome = run_experiment(EXPERIMENT, "quick", assignments=[*given, arms], results=tmp_path / "results")
    found = json.loads(outcome.folder.metrics_file.read_text())["metrics"]
    assert found["steps_prime"]["samples"] == [2.0, 2.0]
    assert found["steps_prime-grpo"]["samples"] == [1.0, 1.0]
    assert len(found["gain_prime-grpo"]["samples"]) == 2


def scale_of(name: str) -> ExperimentConfig:
    config = load_config(EXPERIMENT, name, ())
    assert isinstance(config, ExperimentConfig)
    return config


@pytest.mark.parametrize("scale", ["quick", "laptop"])
def test_every_scale_has_the_arms_of_its_claims(scale: str) -> None:
    config = scale_of(scale)
    assert len(config.seeds) == (3 if scale == "quick" else 5)
    arms = {arm.name: config.study.settings(arm) for arm in config.arms}
    for claim in CLAIMS:
        if claim.metric.startswith("area_") and scale in claim.scales:
            names, _, task = claim.metric.removeprefix("area_").partition("_on_")
            assert set(names.split("_minus_")) <= arms.keys()
            assert task in {"", *other_tasks(config)}
    wanted = {"quick": set(), "laptop": {metrics.OFFLINE, metrics.UNFILTERED}}
    assert {metrics.MAIN, metrics.OUTCOMES} | wanted[scale] <= arms.keys()
    paper = PrimeConfig(output_dir="-")
    prime = arms[metrics.MAIN]
    for name in ("prm_loss", "prm_update", "advantage", "process_norm", "process_gamma", "accuracy_range"):
        assert getattr(prime, name) == getattr(paper, name), name
    assert (prime.max_steps, prime.prompts_per_step, prime.num_generations) == (50, 32, 4)
    chain = config.study.chain
    assert (chain.mod, chain.operations, chain.steps, chain.hard_share) == (31, 32, 24, 0.08)
    assert (config.study.test_prompts, config.study.test_responses, config.study.judge_every) == (256, 4, 10)


def test_other_tasks_differ_from_the_main_one_in_the_task_alone() -> None:
    config = scale_of("laptop")
    found = other_tasks(config)
    longer, main = found[metrics.LONGER], config.study
    assert (longer.chain.steps, longer.chain.max_tokens, main.chain.steps) == (32, 34, 24)
    assert longer.chain.generator.max_position_embeddings >= 32 + 1 + longer.chain.max_tokens
    same = {"chain": main.chain}
    assert longer.model_copy(update=same) == main
    assert found[metrics.GSM8K].training == main.training
    assert other_tasks(scale_of("quick")) == {}


def test_single_steps_are_right_and_of_the_tasks_own_table() -> None:
    chain = scale_of("laptop").study.chain
    task = task_of(chain, 3)
    assert isinstance(task, ModChain)
    pairs = single_steps(chain, 400, 3)
    for prompt, response in pairs:
        operation, state = (int(word[1:]) for word in prompt.split())  # the state is last
        assert response == f"s{task.table[operation, state]}"
    assert len(set(pairs)) > 300


def judged(accuracy: list[float], rollouts: list[float], **more: list[float]) -> dict[str, Any]:
    seconds = [float(place) for place in range(len(accuracy))]
    return {"judged": {"accuracy": accuracy, "rollouts": rollouts, "seconds": seconds} | more}


def test_areas_are_compared_as_far_as_both_runs_drew_responses() -> None:
    ours = judged([10.0, 30.0, 90.0], [0, 100, 200])
    theirs = judged([10.0, 20.0], [0, 150])
    # Up to 150: 100 responses at a mean of 20, 50 from 30 to 60; against a mean of 15.
    assert metrics.area_gained(ours, theirs, "rollouts") == pytest.approx((100 * 20 + 50 * 45) / 150 - 15)


def test_the_target_is_the_last_accuracy_of_outcomes_alone() -> None:
    theirs = judged([10.0, 20.0, 50.0], [0, 100, 200])
    assert metrics.target_ratio(judged([10.0, 60.0], [0, 100]), theirs) == pytest.approx(80 / 200)
    assert metrics.target_ratio(judged([10.0, 49.0], [0, 300]), theirs) == inf
    assert isnan(metrics.target_ratio(theirs, judged([50.0, 40.0], [0, 100])))


def test_variance_is_about_the_trend_and_a_fall_is_from_the_best_ten_steps() -> None:
    assert metrics.step_variance([0.0, 0.01, 0.02, 0.03]) == pytest.approx(0.5e-4)
    draws = np.random.default_rng(0).normal(size=20_000)
    assert metrics.step_variance(draws.tolist()) == pytest.approx(1.0, abs=0.05)
    accuracy = [0.5] * 10 + [0.8] * 10 + [0.7] * 9 + [None]
    assert metrics.fall({"steps": {"prm/accuracy": accuracy}}) == pytest.approx(0.1)


def test_late_is_steps_30_to_50_and_first_the_first_ten() -> None:
    steps = {"prm/accuracy": [0.4] * 10 + [0.0] * 19 + [0.7] * 21}
    areas = {"step": [0, 10, 20, 30, 40, 50], "step_auc": [0.5, 0.6, 0.0, 0.7, 0.8, 0.9]}
    found = metrics.prm_metrics([{"steps": steps, "judged": areas}])
    assert found["prm_accuracy"] == pytest.approx([0.7])
    assert found["prm_accuracy_rise"] == pytest.approx([0.3])
    assert found["prm_step_auc"] == pytest.approx([0.8])
    assert found["prm_step_auc_rise"] == pytest.approx([0.2])


def test_every_number_that_differs_in_a_repeat_counts_but_no_time() -> None:
    run = {"steps": {"reward/mean": [0.1, 0.2, 0.3], "time/step": [1.0] * 3}} | judged([1.0, 2.0], [0, 9])
    again = {"steps": {"reward/mean": [0.1, 0.2], "time/step": [2.0] * 2}} | judged([1.0], [0])
    assert metrics.differences(run, again) == 0
    again["steps"]["reward/mean"][1] += 1e-15
    again["judged"]["accuracy"][0] = 1.5
    assert metrics.differences(run, again) == 2
