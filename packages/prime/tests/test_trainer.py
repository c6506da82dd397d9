from __future__ import annotations

import json
import os
import resource
import signal
import warnings
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast

from implicit_prime import checkpoint
from implicit_prime.config import PrimeConfig
from implicit_prime.core import loss_weights
from implicit_prime.dumps import inspect_dump
from implicit_prime.errors import NoPromptPassesError, PrimeError, PrimeWarning
from implicit_prime.responses import Responses
from implicit_prime.trainer import PrimeTrainer
from implicit_prime.verifiers import VerifierResult
from implicit_prm import ImplicitPRM, ImplicitPRMError
from implicit_prm.pretrained import load_model

ROWS = [{"prompt": f"w{a} w{b}", "answer": a} for a in range(6) for b in range(2)]
Start = Callable[..., PrimeTrainer]


def even_word_first(completions: Sequence[str], references: Sequence[Any]) -> list[float]:
    """Right is a response whose first word has an even number: about half of a random policy's."""
    firsts = [(text.split() or ["w1"])[0] for text in completions]
    return [float(first[1:].isdigit() and int(first[1:]) % 2 == 0) for first in firsts]


def terminating(completions: Sequence[str], references: Sequence[Any]) -> list[float]:
    """The same, while the run is asked to end."""
    os.kill(os.getpid(), signal.SIGTERM)
    return even_word_first(completions, references)


@pytest.fixture(scope="module")
def start(
    tiny_llama: Callable[..., LlamaForCausalLM], words: PreTrainedTokenizerFast
) -> Callable[..., PrimeTrainer]:
    def build(
        folder: Path, model: Any = None, prm: Any = None, verifier: Any = None, **settings: Any
    ) -> PrimeTrainer:
        defaults: dict[str, Any] = {
            "max_steps": 2,
            "prompts_per_step": 3,
            "mini_batch_size": 6,
            "micro_batch_size": 8,
            "learning_rate": 3e-3,
            "prm_learning_rate": 3e-3,
            "max_completion_length": 3,
            "max_prompt_length": 8,
            "use_cpu": True,
        }
        return PrimeTrainer(
            tiny_llama() if model is None else model,
            prm,
            args=PrimeConfig(output_dir=str(folder), **defaults | settings),
            train_dataset=ROWS,
            verifier=verifier or even_word_first,
            eval_dataset={"all": ROWS},
            processing_class=words,
        )

    return build


def weights(model: Any) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_times(entries: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: x for name, x in entry.items() if not name.startswith("time/")} for entry in entries]


def test_a_run_leaves_log_checkpoint_and_models_that_load(start: Start, tmp_path: Path) -> None:
    trainer = start(tmp_path, eval_steps=2)
    before = weights(trainer.model)
    state = trainer.train()
    assert (state.step, state.responses) == (
        2,
        int(sum(entry["rollout/responses"] for entry in log(tmp_path))),
    )
    assert [entry["step"] for entry in log(tmp_path)] == [1, 2]
    assert 0 <= log(tmp_path)[1]["eval/all/accuracy"] <= 1
    assert checkpoint.last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert not list(tmp_path.glob(".*partial"))
    assert not same(before, weights(trainer.model))
    for name, model in (("policy", trainer.model), ("prm", trainer.prm.model)):
        saved = AutoModelForCausalLM.from_pretrained(tmp_path / "final" / name)
        assert same(weights(saved), weights(model)), name
    assert same(before, weights(trainer.prm.ref_model))
    # The PRM's last rewards are of the last step's responses, 0 outside them.
    assert trainer.last_process.shape == trainer.last_batch.mask.shape
    assert trainer.last_process[~trainer.last_batch.mask].abs().sum() == 0


def test_a_step_is_timed_by_phase(start: Start, tmp_path: Path) -> None:
    metrics = next(start(tmp_path).steps())
    phases = {name: seconds for name, seconds in metrics.items() if name.startswith("time/")}
    assert phases.keys() == {"time/rollout", "time/verify", "time/prm", "time/policy", "time/step"}
    parts = sum(phases.values()) - phases["time/step"]
    assert 0 < parts <= phases["time/step"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"prm_replay_steps": 2, "prm_train_on": "all"}, {"advantage": "ppo", "process_weight": "accuracy"}],
)
def test_a_resumed_run_equals_one_in_one_piece_bit_for_bit(
    start: Start, tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = start(tmp_path / "whole", max_steps=3, **settings)
    whole.train()
    start(tmp_path / "parts", max_steps=1, **settings).train()
    checkpoint.append_log(tmp_path / "parts", {"step": 2, "left": "by a run that was killed"})
    resumed = start(tmp_path / "parts", max_steps=3, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert same(weights(whole.model), weights(resumed.model))
    assert same(weights(whole.prm.model), weights(resumed.prm.model))
    assert without_times(log(tmp_path / "whole")) == without_times(log(tmp_path / "parts"))
    assert whole.state == resumed.state


def test_another_seed_is_another_run_and_the_same_seed_the_same(start: Start, tmp_path: Path) -> None:
    runs = [start(tmp_path / str(number), seed=seed, max_steps=1) for number, seed in enumerate((0, 0, 1))]
    for run in runs:
        run.train()
    assert same(weights(runs[0].model), weights(runs[1].model))
    assert not same(weights(runs[0].model), weights(runs[2].model))


def test_outcomes_alone_equal_a_prm_of_weight_zero(
    start: Start, tmp_path: Path, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    alone = start(tmp_path / "alone", process_weight=0.0)
    beside = start(tmp_path / "beside", prm=tiny_llama(seed=3), process_weight=0.0)
    alone.train()
    beside.train()
    assert alone.prm is None
    assert same(weights(alone.model), weights(beside.model))
    assert log(tmp_path / "beside")[0]["prm/weight"] == 0


@pytest.mark.parametrize("advantage", ["grpo", "reinforce", "ppo", "implicit_value"])
def test_every_advantage_trains(start: Start, tmp_path: Path, advantage: str) -> None:
    trainer = start(tmp_path, advantage=advantage, kl_coef=0.1, max_steps=1)
    before = weights(trainer.model)
    metrics = next(trainer.steps())
    assert metrics["policy/skipped"] == 0
    assert metrics["policy/grad_norm"] > 0
    assert not same(before, weights(trainer.model))
    # Of the first mini-batch KL is 0, and the second sees one update.
    assert 0 < metrics["policy/kl"] < 0.1
    assert ("policy/value_loss" in metrics) is (advantage == "ppo")


@pytest.mark.slow
def test_the_task_is_learned(start: Start, tmp_path: Path) -> None:
    trainer = start(tmp_path, max_steps=8, prompts_per_step=6, mini_batch_size=24, micro_batch_size=24)
    before = trainer.evaluate(n=4, temperature=1.0)["eval/all/accuracy"]
    trainer.train()
    after = trainer.evaluate(n=4, temperature=1.0)["eval/all/accuracy"]
    assert after > before + 0.2


@pytest.mark.parametrize("loss_agg", ["token-mean", "micro-batch-mean"])
def test_the_policy_gradient_is_that_of_the_whole_mini_batch(
    start: Start, tmp_path: Path, loss_agg: Any
) -> None:
    """With p = p_old the gradient of PPO is that of -sum of w A log p: here from the model's own logits."""
    trainer = start(tmp_path, mini_batch_size=64, micro_batch_size=3, loss_agg=loss_agg, max_grad_norm=1e9)
    trainer.engine.sync_weights(trainer.model)
    groups = trainer.collector.draw(trainer.rows, range(4), [0], 4, 1.0)
    batch = Responses.from_groups(groups)
    advantages = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(0))
    share = loss_weights(batch.mask, loss_agg, 3)
    model, loss = trainer.model, torch.zeros(())
    for row in range(len(batch)):
        tokens = batch.input_ids[row][batch.attention_mask[row]][None]
        logps = model(tokens).logits[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
        length = int(batch.mask[row].sum())
        loss = loss - share[row] * (advantages[row, :length] * logps[-length:]).sum()
    loss.backward()
    expected = torch.stack([weight.grad.square().sum() for weight in model.parameters()]).sum().sqrt()
    model.zero_grad()
    assert trainer.policy.update(batch, advantages)["policy/grad_norm"] == pytest.approx(
        expected.item(), rel=1e-4
    )


def test_responses_without_a_verdict_are_left_out_and_counted(start: Start, tmp_path: Path) -> None:
    def faulty(completions: Sequence[str], references: Sequence[Any]) -> list[VerifierResult]:
        scores = even_word_first(completions, references)
        broken = VerifierResult(0.0, "error", "the server is away")
        return [broken if at % 4 == 3 else VerifierResult(score) for at, score in enumerate(scores)]

    trainer = start(tmp_path, verifier=faulty)
    trained: list[int] = []
    update = trainer.policy.update
    trainer.policy.update = lambda batch, *rest: trained.append(len(batch)) or update(batch, *rest)  # type: ignore[method-assign, func-returns-value]
    metrics = next(trainer.steps())
    assert metrics["verify/error"] == metrics["rollout/responses"] / 4
    assert trained == [9]


def test_a_task_that_is_too_hard_ends_with_a_histogram(start: Start, tmp_path: Path) -> None:
    trainer = start(tmp_path, verifier=lambda texts, answers: [0.0] * len(texts), max_refill_rounds=2)
    with pytest.raises(PrimeError, match="0: 6"):
        trainer.train()


def test_what_is_not_finite_is_left_out_and_dumped(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = start(tmp_path, max_steps=9, save_steps=100, advantage="ppo")
    before = weights(trainer.model)
    monkeypatch.setattr(
        "implicit_prime.trainer.token_advantages", lambda args, batch, *_: batch.log_probs * float("nan")
    )
    with pytest.warns(PrimeWarning, match="not finite"), pytest.raises(PrimeError, match="5 steps in a row"):
        trainer.train()
    assert same(before, weights(trainer.model))
    dumped = torch.load(tmp_path / "not-finite-1.pt")
    assert dumped["input_ids"].shape[0] == dumped["advantages"].shape[0] == 12
    # It has all that advantages are made of, so that they can be made anew.
    last = tmp_path / "not-finite-5.pt"
    assert torch.equal(torch.load(last)["process"], trainer.last_process)
    made = inspect_dump(last, trainer.args)
    assert any(one.process for one in made)
    assert not any(one.not_finite for one in made)


def test_responses_all_cut_off_are_warned_of(start: Start, tmp_path: Path) -> None:
    with pytest.warns(PrimeWarning, match="max_completion_length"):
        next(start(tmp_path, max_completion_length=1).steps())


def test_two_runs_in_one_folder_are_refused(start: Start, tmp_path: Path) -> None:
    first = start(tmp_path).steps()
    next(first)
    with pytest.raises(PrimeError, match=f"another run \\(process {os.getpid()}\\)"):
        next(start(tmp_path).steps())
    first.close()
    start(tmp_path, max_steps=1).train()
    with pytest.raises(PrimeError, match="resume_from_checkpoint=True, start anew with overwrite=True"):
        start(tmp_path).train()
    assert start(tmp_path, max_steps=1, beta=0.1).train(overwrite=True).step == 1
    assert [entry["step"] for entry in log(tmp_path)] == [1]


def test_a_trainer_that_was_interrupted_goes_on_from_its_checkpoint_as_a_new_one_would(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"save_steps": 1, "prm_replay_steps": 2}
    whole = start(tmp_path / "whole", **settings)
    whole.train()
    trainer = start(tmp_path / "parts", **settings)
    steps = trainer.steps()
    next(steps)

    def interrupted() -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer.policy.learner, "step", interrupted)  # the PRM has learned, gradients are there
        with pytest.raises(KeyboardInterrupt):
            next(steps)
    trainer.train(resume_from_checkpoint=True)
    assert same(weights(whole.model), weights(trainer.model))
    assert same(weights(whole.prm.model), weights(trainer.prm.model))
    assert without_times(log(tmp_path / "whole")) == without_times(log(tmp_path / "parts"))


def test_a_trainer_that_has_made_steps_does_not_start_anew(start: Start, tmp_path: Path) -> None:
    trainer = start(tmp_path, max_steps=1)
    trainer.train()
    with pytest.raises(PrimeError, match=r"is at step 1.* another PrimeTrainer"):
        trainer.train(overwrite=True)
    assert (tmp_path / "checkpoint-1").exists()


def test_sigterm_finishes_the_step_and_leaves_a_checkpoint(start: Start, tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    assert start(tmp_path, verifier=terminating, max_steps=5).train().step == 1
    assert signal.getsignal(signal.SIGTERM) == handler
    assert (tmp_path / "checkpoint-1").exists()
    assert not (tmp_path / "final").exists()


def test_models_of_a_shorter_run_do_not_pass_for_those_of_a_longer_one(start: Start, tmp_path: Path) -> None:
    start(tmp_path, max_steps=1).train()
    ended = start(tmp_path, verifier=terminating, max_steps=5)
    assert ended.train(resume_from_checkpoint=True).step == 2
    assert not (tmp_path / "final").exists()


@pytest.mark.parametrize("room", [50_000, 400_000])
def test_a_full_disk_keeps_the_checkpoint_before(start: Start, tmp_path: Path, room: int) -> None:
    """Files may only grow to `room` bytes: too few for the weights, or only for the optimisers."""
    steps = start(tmp_path, save_steps=1).steps()
    next(steps)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(PrimeError, match="checkpoint-1 is whole"):
            next(steps)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.glob("*checkpoint*")] == ["checkpoint-1"]
    assert not list(tmp_path.glob(".*partial"))


def test_changed_settings_are_told_when_a_run_goes_on(start: Start, tmp_path: Path) -> None:
    start(tmp_path, max_steps=1).train()
    with pytest.warns(PrimeWarning, match=r"beta was 0\.05 and is 0\.1"):
        start(tmp_path, beta=0.1).train(resume_from_checkpoint=True)
    with pytest.raises(PrimeError, match="no checkpoint"):
        start(tmp_path).train(resume_from_checkpoint=tmp_path / "final")


def test_the_size_of_micro_batches_may_change_unless_the_loss_is_made_of_them(
    start: Start, tmp_path: Path
) -> None:
    changed = {}
    for kind in ("token-mean", "micro-batch-mean"):
        start(tmp_path / kind, max_steps=1, loss_agg=kind).train()
        other = start(tmp_path / kind, max_steps=1, loss_agg=kind, micro_batch_size=3)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            other.train(resume_from_checkpoint=True)
        changed[kind] = [str(one.message) for one in told if one.category is PrimeWarning]
    settings = "the run goes on with other settings: micro_batch_size was 8 and is 3"
    assert changed == {"token-mean": [], "micro-batch-mean": [settings]}


def test_the_end_of_the_data_ends_the_run(start: Start, tmp_path: Path) -> None:
    state = start(tmp_path, max_steps=None, accuracy_range=None).train()
    assert state.step == 4  # 12 prompts, 3 a step


def test_data_that_makes_no_step_is_an_error_and_leaves_no_model(start: Start, tmp_path: Path) -> None:
    trainer = start(tmp_path, max_steps=None, prompts_per_step=24, mini_batch_size=96)  # of 12 rows
    with pytest.raises(NoPromptPassesError, match=r"of 12 prompts .* 24 are wanted"):
        trainer.train()
    assert not (tmp_path / "final").exists()


def test_a_run_that_has_more_steps_than_asked_for_ends(start: Start, tmp_path: Path) -> None:
    start(tmp_path, max_steps=2).train()
    shorter = start(tmp_path, max_steps=1).steps(resume_from_checkpoint=True)
    assert not list(islice(shorter, 1))
    assert log(tmp_path)[-1]["step"] == 2


def test_an_implicit_prm_brings_its_own_reference(
    start: Start, tmp_path: Path, tiny_llama: Callable[..., LlamaForCausalLM], words: PreTrainedTokenizerFast
) -> None:
    offline = ImplicitPRM(tiny_llama(seed=5), words, tiny_llama(seed=6), 0.05)
    trainer = start(tmp_path, prm=offline, prm_update="none", max_steps=1)
    before = weights(offline.model)
    trainer.train()
    assert trainer.prm is offline
    assert same(before, weights(offline.model))
    assert log(tmp_path)[0]["prm/token_reward"] > 0


def test_models_that_do_not_fit_are_refused(
    start: Start, tmp_path: Path, tiny_llama: Callable[..., LlamaForCausalLM], words: PreTrainedTokenizerFast
) -> None:
    from implicit_prm.tasks.vocabulary import word_tokenizer

    model = tiny_llama()
    with pytest.raises(PrimeError, match="one object"):
        start(tmp_path, model=model, prm=model)
    with pytest.raises(PrimeError, match="gives no rewards"):
        start(tmp_path, prm_update="none")
    with pytest.raises(PrimeError, match="asks for no PRM"):
        start(tmp_path, advantage="implicit_value", process_weight=0.0)
    other = word_tokenizer([f"x{number}" for number in range(9)], between=" ")
    with pytest.raises(ImplicitPRMError, match="different tokenizers"):
        start(tmp_path, prm=ImplicitPRM(tiny_llama(), other, tiny_llama(), 0.05))
    with pytest.raises(PrimeError, match="beta"):
        start(tmp_path, prm=ImplicitPRM(tiny_llama(), words, tiny_llama(), 0.5))
    with pytest.warns(PrimeWarning, match="float32"):
        start(tmp_path, model=tiny_llama().bfloat16(), process_weight=0.0)
    with pytest.raises(PrimeError, match="processing_class"):
        PrimeTrainer(
            model,
            args=PrimeConfig(output_dir=str(tmp_path), use_cpu=True),
            train_dataset=ROWS,
            verifier=even_word_first,
        )


def test_evaluation_is_greedy_and_counts_missing_verdicts_as_wrong(start: Start, tmp_path: Path) -> None:
    trainer = start(tmp_path)
    assert trainer.evaluate() == trainer.evaluate(seed=1)
    trainer.collector.verifier = lambda texts, answers: [VerifierResult(0.0, "error")] * len(texts)
    assert trainer.evaluate() == {"eval/all/accuracy": 0.0}
    assert not trainer.clock.read()  # the next step pays for none of it


@pytest.mark.slow
def test_policy_prm_and_reference_share_one_model_by_adapters(
    start: Start, tmp_path: Path, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    peft = pytest.importorskip("peft")

    tiny_llama().save_pretrained(tmp_path / "base")

    def adapted() -> Any:
        torch.manual_seed(0)
        return peft.get_peft_model(
            LlamaForCausalLM.from_pretrained(tmp_path / "base"),
            peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"]),
        )

    def named(model: Any, what: str) -> dict[str, Tensor]:
        return {name: weight for name, weight in weights(model).items() if what in name}

    settings = {"learning_rate": 0.05, "prm_learning_rate": 0.05}
    whole = start(tmp_path / "whole", model=adapted(), max_steps=2, **settings)
    base = {name: x for name, x in weights(whole.model).items() if "lora_" not in name}
    whole.train()
    assert whole.prm.model is whole.model
    assert same(base, {name: x for name, x in weights(whole.model).items() if "lora_" not in name})
    policy, prm = named(whole.model, ".default."), named(whole.model, ".prm.")
    changed = [name for name in policy if not torch.equal(policy[name], prm[name.replace("default", "prm")])]
    assert changed
    assert np.isfinite(log(tmp_path / "whole")[1]["prm/token_reward"])
    assert log(tmp_path / "whole")[0]["prm/token_reward"] == 0  # both adapters are 0 at first
    assert log(tmp_path / "whole")[1]["prm/token_reward"] > 0

    start(tmp_path / "parts", model=adapted(), max_steps=1, **settings).train()
    resumed = start(tmp_path / "parts", model=adapted(), max_steps=2, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert same(weights(whole.model), weights(resumed.model))
    # Both are models of their own in the folders of `save_model`; PEFT calls an only adapter "default".
    for name, trained in (("policy", policy), ("prm", prm)):
        loaded = named(load_model(str(tmp_path / "whole" / "final" / name)), "lora_")
        assert same(loaded, {key.replace(".prm.", ".default."): x for key, x in trained.items()}), name
    # Whoever scores with it meets the PRM's adapter, though the policy's is the active one.
    row = [{"prompt_ids": [5, 6], "completion_ids": [7, 1]}]
    rewards = whole.prm.score(row, steps="token")[0].token_rewards
    assert whole.model.active_adapter == "default"
    assert np.abs(rewards).max() > 0
