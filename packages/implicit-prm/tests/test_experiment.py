"""The experiment: a small run ends with judged claims and figures; its parts measure what they are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from implicit_prm.reproduce import evaluation, generation, metrics, real_responses
from implicit_prm.reproduce.experiment import EXPERIMENT, ExperimentConfig
from implicit_prm.reproduce.generation import Responses
from implicit_prm.reproduce.prm_study import MAIN
from implicit_prm.tasks.base import ChainTask
from implicit_prm.tasks.gsm8k_chain import GSM8KChain
from implicit_prm.tasks.modchain import ModChain
from tenfold import Run, Verdict, run_experiment
from tenfold.configs import load_config
from tenfold.testing import run_here

TINY = [
    "seeds=[0]",
    "modchain.chain.mod=3",
    "modchain.chain.operations=2",
    "modchain.chain.steps=2",
    "modchain.chain.fitting_steps=12",
    "modchain.chain.pool_prompts=40",
    "gsm8k.chain.fitting_steps=60",
    "gsm8k.chain.enough=0.0",
    "gsm8k.chain.pool_prompts=12",
    "gsm8k.chain.max_tokens=8",
    *(
        f"{chain}.chain.{change}"
        for chain in ("modchain", "gsm8k")
        for change in (
            "test_prompts=3",
            "generator.hidden_size=8",
            "generator.intermediate_size=8",
            "generator.num_hidden_layers=1",
            "generator.num_attention_heads=1",
            "generator.batch_size=16",
        )
    ),
    "shepherd.prompts=20",
    "shepherd.completions=2",
    "real.train_questions=4",
    "real.test_questions=6",
]
ARMS = (("ce", 125, 8), ("ce", 500, 8), ("ce", 1000, 8), ("ce", 500, 1), ("ce", 4000, 1), ("dpo", 500, 8))
TINY.append(
    "modchain.arms=["
    + ", ".join(
        f'{{loss="{loss}", prompts={prompts}, responses={responses}, epochs=1}}'
        for loss, prompts, responses in ARMS
    )
    + "]"
)
PROGRAMS = ("1+1;#1*2?", "4-2;#1/2?", "3*1;5-#1?", "5-3;#1+#1?")


def questions(seed: int) -> list[list[dict[str, Any]]]:
    """Ten questions with a right and a wrong solution each."""
    return [
        [
            {"prompt": f"{n} + 1 = ", "completion": f"first\n{n + error}", "label": error == 1}
            for error in (1, 2)
        ]
        for n in range(10)
    ]


@pytest.mark.slow
def test_a_tiny_run_of_all_parts_judges_every_claim_and_draws_every_figure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_llama: Callable[..., LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    def task_of(config: generation.ChainConfig, seed: int) -> ChainTask:
        return GSM8KChain(PROGRAMS[:1], PROGRAMS[1:], seed) if config.task == "gsm8k" else usual(config, seed)

    usual = generation.task_of
    monkeypatch.setattr(generation, "task_of", task_of)
    monkeypatch.setattr(real_responses, "load_prior", lambda: (tiny_llama(), tokenizer))
    monkeypatch.setattr(real_responses, "read_questions", questions)
    monkeypatch.setattr(Run, "map", run_here)
    monkeypatch.setattr(Run, "has_data", lambda run, name: True)
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    outcome = run_experiment(EXPERIMENT, "laptop", assignments=TINY, results=tmp_path / "results")
    found = {claim.id: claim for claim in outcome.claims.claims}
    assert set(found) == {claim.id for claim in EXPERIMENT.claims}
    reported = {name for name in found if name.startswith("R")}
    never_right = {"C1-gsm8k"}  # no step of so small a generator is
    for name, claim in found.items():
        assert claim.ours is not None, name
        assert (claim.verdict == Verdict.NOT_TESTED) == (name in reported | never_right), name
    assert all("no pass rule" in found[name].reason for name in reported)
    assert {file.stem for file in outcome.folder.figures.glob("*.svg")} == {
        "best_of_n",
        "best_of_n_gsm8k",
        "cost",
        "heat_map",
        "heat_map_gsm8k",
        "losses",
        "over_optimization",
        "real_responses",
        "roc",
        "scaling",
    }


def test_samples_are_drawn_anew_when_the_code_that_draws_them_changes() -> None:
    package = Path(generation.__file__).parents[1]
    named = generation.what_draws()
    assert all(path.is_file() for path in named)
    for name in ("sampling", "decoding", "encoding", "backends/prompts", "tasks/modchain"):
        assert package / f"{name}.py" in named


def rows_of(task: ModChain, responses: dict[str, list[str]]) -> list[Responses]:
    return [
        Responses(
            prompt=prompt,
            completions=texts,
            ids=[[0]] * len(texts),
            grades=[task.grade(prompt, text) for text in texts],
        )
        for prompt, texts in responses.items()
    ]


@pytest.fixture(scope="module")
def task() -> ModChain:
    """f0, f1 on three states, two steps."""
    return ModChain(mod=3, operations=2, steps=2)


def with_error(task: ModChain, prompt: str, step: int) -> str:
    """The right response but for one wrong state."""
    states = task.solve(prompt).split()
    states[step] = f"s{(int(states[step][1:]) + 1) % task.mod}"
    return " ".join(states)


def test_only_steps_up_to_the_first_error_are_asked_for(task: ModChain) -> None:
    prompt = "s0 f0 f1"
    rows = rows_of(
        task, {prompt: [task.solve(prompt), with_error(task, prompt, 0), with_error(task, prompt, 1)]}
    )
    rewards = [[[0.5, 0.4], [-1.0, 9.0], [0.3, -2.0]]]
    scores, wrong = evaluation.first_error_scores(rows, rewards)
    assert scores.tolist() == [-0.5, -0.4, 1.0, -0.3, 2.0]  # not the 9.0 after an error
    assert wrong.tolist() == [False, False, True, False, True]
    assert evaluation.step_auc(rows, rewards) == 1.0
    assert evaluation.step_auc(rows, [[[-5.0, 0.4], [-1.0, 9.0], [0.3, -2.0]]]) == pytest.approx(2 / 3)


def test_best_of_n_chooses_by_the_rewards_and_votes_by_the_answers(task: ModChain) -> None:
    prompt = "s0 f0 f1"
    right, wrong = task.solve(prompt), with_error(task, prompt, 1)
    rows = rows_of(task, {prompt: [wrong, wrong, wrong, right]})
    rewards = [[[0.0, -1.0]] * 3 + [[-0.5, 0.0]]]
    curves = evaluation.selection_curves(rows, rewards)
    # Among n of 4 responses the right one is with probability n / 4, and has the highest lowest step.
    assert curves["min"] == pytest.approx([25, 50, 100])
    assert curves["last"] == pytest.approx([25, 50, 100])
    assert evaluation.oracle_curve(rows) == pytest.approx([25, 50, 100])
    # Blocks of 1: one of four; of 2: wrong-wrong and wrong-right, a draw that the first wins; of 4: wrong.
    assert evaluation.vote_curve(task, rows) == pytest.approx([25, 0, 0])
    heavy = np.array([[-9.0, -9.0, -9.0, 9.0]])
    assert evaluation.vote_curve(task, rows, heavy) == pytest.approx([25, 50, 100])


def test_the_curve_of_first_errors_has_the_area_that_is_reported() -> None:
    random = np.random.default_rng(0)
    wrong = random.random(5000) < 0.3
    scores = random.normal(size=5000) + 1.5 * wrong
    points = evaluation.roc(scores, wrong)
    area = np.trapezoid([0, *points["true"], 1], [0, *points["false"], 1])
    # Two normals 1.5 apart: Phi(1.5 / sqrt 2) = 0.8556.
    assert area == pytest.approx(0.8556, abs=0.015)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wrong", [True, False])
def test_without_a_right_or_without_a_wrong_step_there_is_no_curve(wrong: bool) -> None:
    scores, kind = np.array([0.3, -1.0, 2.0]), np.full(3, wrong)
    assert evaluation.roc(scores, kind) == {"false": [], "true": []}
    assert np.isnan(evaluation.auc(scores, kind))


def test_what_the_claims_name_is_in_the_metrics() -> None:
    def judged(best: float, auc: float) -> dict[str, Any]:
        curves = {"min": [best] * 7, "sum": [best] * 7, "last": [*[45.0] * 6, 40.0]}
        return {"best": curves, "weighted": [70.0] * 7, "step_auc": auc}

    def result(best: float) -> dict[str, Any]:
        parts: dict[str, Any] = {"majority": [52.0] * 7, "oracle": [95.0] * 7}
        parts |= {"with": judged(best, 0.9), "without": judged(best + 1, 0.8)}
        return {"temperatures": {"0.5": parts}, "flops": {"responses": 1, "training": 2}}

    bests = {
        "ce-125x8": 60.0,
        "ce-500x8": 59.0,
        MAIN: 88.0,
        "ce-500x1": 58.0,
        "ce-4000x1": 84.0,
        "dpo-500x8": 71.0,
    }
    results = {arm: {0: result(best), 1: result(best + 2)} for arm, best in bests.items()}
    results["untrained"] = {0: result(50.0), 1: result(52.0)}
    found = metrics.chain_metrics(results, MAIN) | metrics.arm_metrics(results)
    assert (found["bon16"], found["bon64"], found["bon64_last"]) == ([88.0, 90.0], [88.0, 90.0], [40.0, 40.0])
    assert found["flops_ce-125x8"] == [3.0, 3.0]
    assert found["bon16_minus_majority16"] == [36.0, 38.0]
    assert found["bon16_minus_likelihood16"] == [37.0, 37.0]  # without a reference: 51 and 53
    assert found["bon16_without_minus_with_reference"] == [1.0, 1.0]
    assert found["weighted16_minus_majority16"] == [18.0, 18.0]
    assert found["smallest_bon16_step"] == -1.0  # from 125 to 500 prompts
    assert found["bon16_one_response_minus_pass1"] == [6.0, 8.0]
    assert found["bon16_dpo_minus_ce"] == [12.0, 12.0]
    assert found["bon16_prompts_minus_responses"] == [25.0, 25.0]


@pytest.mark.parametrize("scale", ["quick", "laptop"])
def test_every_scale_tests_its_claims_with_three_seeds(scale: str) -> None:
    config = load_config(EXPERIMENT, scale, ())
    assert isinstance(config, ExperimentConfig)
    assert config.seeds == (0, 1, 2)
    arms = {arm.name: arm for arm in config.modchain.arms}
    assert arms[MAIN].every_seed
    assert arms["ce-500x1"].every_seed
    chain = config.modchain.chain
    assert max(arm.prompts for arm in arms.values()) <= chain.pool_prompts
    assert max(arm.responses for arm in arms.values()) <= chain.pool_responses
    assert (chain.test_prompts, chain.test_responses, chain.temperatures[0]) == (200, 64, 0.5)
    if scale == "laptop":
        assert {f"ce-{count}x8" for count in (125, 250, 500, 1000, 3000)} | {"ce-4000x1", "dpo-500x8"} <= set(
            arms
        )
        assert config.shepherd is not None
        assert config.gsm8k is not None
        assert config.real is not None
        assert 1.0 in chain.temperatures
