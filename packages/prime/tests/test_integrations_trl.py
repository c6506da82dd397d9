"""PRIME inside TRL: its advantages, loss and PRM are those of `PrimeTrainer`; what TRL saves goes on."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast

from implicit_prime.config import PrimeConfig
from implicit_prime.errors import PrimeError, PrimeWarning
from implicit_prime.learner import spread
from implicit_prime.refill import Refilled
from implicit_prime.responses import PromptGroup
from implicit_prime.trainer import PrimeTrainer
from implicit_prm.logprobs import causal_log_probs
from implicit_prm.pretrained import load_model

pytestmark = pytest.mark.slow
trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

K = 4
ROWS = [{"prompt": f"w{a} w{a + 1}", "answer": a} for a in range(4)]
# Of the prompts 0 and 2 one half and one quarter is right; 1 and 3 are outside the filter.
OUTCOMES = [[1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]]
KEPT = [0, 2]


def even_word_first(completions: Sequence[str], references: Sequence[Any]) -> list[float]:
    firsts = [(text.split() or ["w1"])[0] for text in completions]
    return [float(first[1:].isdigit() and int(first[1:]) % 2 == 0) for first in firsts]


@pytest.fixture(scope="module")
def in_trl(tiny_llama: Callable[..., LlamaForCausalLM], words: PreTrainedTokenizerFast) -> Callable[..., Any]:
    from implicit_prime.integrations.trl import PrimeGRPOTrainer, verifier_reward

    def build(
        folder: Path, model: Any = None, reward: Any = None, prime: Any = None, data: Any = None, **more: Any
    ) -> Any:
        others = {name: more.pop(name) for name in ("prm", "rollout_func", "peft_config") if name in more}
        defaults: dict[str, Any] = {
            "per_device_train_batch_size": 4 * K,
            "num_generations": K,
            "max_completion_length": 3,
            "loss_type": "dapo",
            "learning_rate": 3e-3,
            "beta": 0.0,
            "max_steps": 2,
            "use_cpu": True,
            "bf16": False,
            "report_to": [],
            "disable_tqdm": True,
            "save_strategy": "no",
            "logging_steps": 1,
        }
        return PrimeGRPOTrainer(
            tiny_llama() if model is None else model,
            reward or verifier_reward(even_word_first),
            trl.GRPOConfig(output_dir=str(folder), **defaults | more),
            prime={"prm_learning_rate": 3e-3, "micro_batch_size": 8} | (prime or {}),
            train_dataset=datasets.Dataset.from_list(data or ROWS),
            eval_dataset=datasets.Dataset.from_list(ROWS),
            processing_class=words,
            **others,
        )

    return build


def weights(model: Any) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def drawn(model: LlamaForCausalLM, words: PreTrainedTokenizerFast) -> list[PromptGroup]:
    """Responses of 1 to 5 tokens, with the log-probs that the model gives them."""
    random = np.random.default_rng(0)
    groups = []
    for number, (row, outcomes) in enumerate(zip(ROWS, OUTCOMES, strict=True)):
        prompt = words(row["prompt"])["input_ids"]
        ids = [(*random.integers(3, 48, random.integers(1, 6)).tolist(), 1) for _ in range(K)]
        log_probs = []
        for response in ids:
            whole = torch.tensor([[*prompt, *response]])
            with torch.no_grad():
                found = causal_log_probs(model, whole, torch.ones_like(whole))
            log_probs.append(found[0, len(prompt) :].numpy())
        group = PromptGroup(number, tuple(prompt), ids, log_probs, [False] * K, np.array(outcomes, float))
        groups.append(group)
    return groups


@pytest.mark.parametrize(
    "prime",
    [
        {"whiten": False},
        {"process_norm": "batch_max", "process_baseline": "official", "prm_train_on": "all"},
        {
            "ref": "policy",
            "advantage": "grpo",
            "prm_update": "before",
            "whiten": False,
            "process_weight": 0.3,
        },
        {"process_weight": 0.0, "whiten": False},
    ],
    ids=lambda prime: next(iter(prime)),
)
def test_advantages_loss_gradient_and_prm_are_those_of_prime_trainer(
    prime: dict[str, Any],
    in_trl: Callable[..., Any],
    tiny_llama: Callable[..., LlamaForCausalLM],
    words: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = drawn(tiny_llama(), words)
    # Reference and PRM differ from the start: else there would be no process rewards before the first update.
    given = {} if prime.get("process_weight") == 0 else {"prm": _prm(tiny_llama, words)}
    alone = PrimeTrainer(
        tiny_llama(),
        given.get("prm"),
        args=PrimeConfig(
            output_dir=str(tmp_path / "alone"),
            prompts_per_step=4,
            max_completion_length=8,
            learning_rate=3e-3,
            max_grad_norm=1e9,
            use_cpu=True,
            **{"prm_learning_rate": 3e-3, "micro_batch_size": 8} | prime,
        ),
        train_dataset=ROWS,
        verifier=even_word_first,
        processing_class=words,
    )
    seen: dict[str, Any] = {}
    update = alone.policy.update

    def watched(batch: Any, advantages: Tensor, targets: Any = None) -> dict[str, float]:
        seen["advantages"] = advantages
        return update(batch, advantages, targets)

    monkeypatch.setattr(alone.policy, "update", watched)
    kept, others = [groups[n] for n in KEPT], [groups[n] for n in range(4) if n not in KEPT]
    metrics = alone._learn(Refilled(kept, others, 1, len(kept)))

    def rollouts(prompts: list[str], trainer: Any) -> dict[str, Any]:
        ids = [response for group in groups for response in group.ids]
        return {
            "prompt_ids": [list(group.prompt_ids) for group in groups for _ in range(K)],
            "completion_ids": [list(response) for response in ids],
            "logprobs": None,
        }

    reward = lambda completions, **_: [float(x) for group in OUTCOMES for x in group]  # noqa: E731
    given = {} if not given else {"prm": _prm(tiny_llama, words)}
    trainer = in_trl(tmp_path / "trl", reward=reward, prime=prime, rollout_func=rollouts, **given)
    trainer.model.train()
    out = trainer._generate_and_score_completions([row for row in ROWS for _ in range(K)])
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.compute_loss(trainer.model, out)
    loss.backward()

    rows = torch.tensor([group * K + at for group in KEPT for at in range(K)])
    wanted = spread([rows], [seen["advantages"]], 4 * K, out["advantages"].shape[1])
    torch.testing.assert_close(out["advantages"], wanted, rtol=0, atol=1e-5)
    assert out["completion_mask"].sum(1).gt(0).nonzero()[:, 0].tolist() == rows.tolist()
    assert loss.item() == pytest.approx(metrics["policy/loss"], abs=1e-5)
    assert prime.get("whiten", True) or abs(loss.item()) > 1e-2
    norm = torch.stack([weight.grad.norm() for weight in trainer.model.parameters()]).norm()
    assert float(norm) == pytest.approx(metrics["policy/grad_norm"], rel=1e-4)
    if given:
        for ours, theirs in zip(trainer.prm.model.parameters(), alone.prm.model.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        told = trainer._metrics["train"]
        assert told["prm/accuracy"] == [pytest.approx(metrics["prm/accuracy"])]
        assert told["prime/pass_rate"] == [0.5]


def _prm(tiny_llama: Callable[..., LlamaForCausalLM], words: PreTrainedTokenizerFast) -> Any:
    from implicit_prm import ImplicitPRM

    return ImplicitPRM(tiny_llama(seed=1), words, tiny_llama(), 0.05)


def test_a_run_trains_both_models_and_logs_the_prm(in_trl: Callable[..., Any], tmp_path: Path) -> None:
    trainer = in_trl(tmp_path, loss_type="bnpo", prime={"accuracy_range": "none"})
    policy, prm = weights(trainer.model), weights(trainer.prm.model)
    trainer.train()
    assert not same(policy, weights(trainer.model))
    assert not same(prm, weights(trainer.prm.model))
    assert same(prm, weights(trainer.prm.ref_model))
    logged = [entry for entry in trainer.state.log_history if "prm/loss" in entry]
    assert [entry["step"] for entry in logged] == [1, 2]
    assert all(entry["prime/pass_rate"] == 1.0 for entry in logged)


def test_a_resumed_run_goes_on_with_the_saved_prm(in_trl: Callable[..., Any], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    prime = {"prm_replay_steps": 2, "accuracy_range": "none"}
    whole = in_trl(tmp_path, prime=prime, **settings)
    whole.train()
    folder = tmp_path / "checkpoint-1" / "prm"
    saved = weights(AutoModelForCausalLM.from_pretrained(folder))
    assert not same(saved, weights(whole.prm.model))
    resumed = in_trl(tmp_path / "again", prime=prime, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert resumed.online.state_dict()["steps"] == 2

    (folder / "training.pt").unlink()
    with pytest.raises(PrimeError, match=r"checkpoint-1 has no PRM.*earlier checkpoint"):
        in_trl(tmp_path / "third", prime=prime, **settings).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-1")
        )


def test_a_prm_that_is_an_adapter_loads_from_where_it_is_saved(
    in_trl: Callable[..., Any], tmp_path: Path, tiny_llama: Callable[..., LlamaForCausalLM]
) -> None:
    peft = pytest.importorskip("peft")
    tiny_llama().save_pretrained(tmp_path / "base")
    model = LlamaForCausalLM.from_pretrained(tmp_path / "base")
    adapter = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"])
    settings: dict[str, Any] = {
        "save_strategy": "steps",
        "save_steps": 1,
        "prime": {"accuracy_range": "none"},
    }
    trainer = in_trl(tmp_path / "run", model=model, peft_config=adapter, max_steps=1, **settings)
    trainer.train()
    trainer.save_prm(tmp_path / "prm")
    trained = {name: x for name, x in weights(trainer.prm.model).items() if ".prm." in name}
    assert any(x.abs().max() > 0 for name, x in trained.items() if "lora_B" in name)
    for folder in (tmp_path / "prm", tmp_path / "run" / "checkpoint-1" / "prm"):
        loaded = weights(load_model(str(folder)))
        assert all(torch.equal(loaded[name.replace(".prm.", ".default.")], x) for name, x in trained.items())


@pytest.mark.xfail(
    strict=True, reason="known: the policy differs in the fourth decimal, the cause is not found"
)
def test_a_resumed_run_ends_with_the_same_prm_and_policy(in_trl: Callable[..., Any], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    prime = {"prm_replay_steps": 2, "accuracy_range": "none"}
    whole = in_trl(tmp_path, prime=prime, **settings)
    whole.train()
    resumed = in_trl(tmp_path / "again", prime=prime, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert same(weights(resumed.model), weights(whole.model))
    assert same(weights(resumed.prm.model), weights(whole.prm.model))


def test_evaluation_trains_nothing(in_trl: Callable[..., Any], tmp_path: Path) -> None:
    trainer = in_trl(tmp_path, per_device_eval_batch_size=K)
    prm = weights(trainer.prm.model)
    metrics = trainer.evaluate()
    assert 0 <= metrics["eval_reward"] <= 1
    assert same(prm, weights(trainer.prm.model))
    assert trainer.online.steps == 0
    assert not trainer.online.learner.optimizer.state


def test_a_step_without_a_prompt_in_the_filter_is_told_and_learns_nothing(
    in_trl: Callable[..., Any], tmp_path: Path
) -> None:
    trainer = in_trl(tmp_path, reward=lambda completions, **_: [1.0] * len(completions), max_steps=1)
    prm = weights(trainer.prm.model)
    policy = weights(trainer.model)
    with pytest.warns(PrimeWarning, match="no prompt of step 1"):
        trainer.train()
    assert same(prm, weights(trainer.prm.model))
    assert same(policy, weights(trainer.model))


def test_a_response_without_a_verdict_is_learned_from_by_nobody(
    in_trl: Callable[..., Any], tmp_path: Path
) -> None:
    def unsure(completions: Sequence[str], **_: Any) -> list[float | None]:
        return [None if at % K == 0 else float(at % K == 1) for at in range(len(completions))]

    trainer = in_trl(tmp_path, reward=unsure)
    trainer.model.train()
    out = trainer._generate_and_score_completions([row for row in ROWS for _ in range(K)])
    learned = out["completion_mask"].any(1).view(-1, K)
    assert learned.tolist() == [[False, True, True, True]] * 4
    assert trainer._metrics["train"]["prm/responses"] == [12.0]


@pytest.mark.parametrize(
    ("prime", "args", "message"),
    [
        ({"learning_rate": 1e-6}, {}, "learning_rate has no place"),
        ({"prm_lerning_rate": 1e-6}, {}, "prm_learning_rate"),
        ({"advantage": "ppo"}, {}, "value head"),
        ({"ref": "policy"}, {"temperature": 0.7}, "recompute_ref"),
        ({}, {"loss_type": "grpo"}, "'dapo' or 'bnpo'"),
        ({}, {"importance_sampling_level": "sequence"}, "'token'"),
    ],
)
def test_settings_that_do_not_fit_are_told_before_anything_is_loaded(
    prime: dict[str, Any], args: dict[str, Any], message: str, in_trl: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(PrimeError, match=message):
        in_trl(tmp_path, model="no such model", prime=prime, **args)


def test_outcomes_beyond_one_are_refused(in_trl: Callable[..., Any], tmp_path: Path) -> None:
    trainer = in_trl(tmp_path, reward=lambda completions, **_: [2.0] * len(completions))
    with pytest.raises(PrimeError, match=r"outcome 2\.0.*reward_weights"):
        trainer.train()


def test_a_verifier_is_asked_of_texts_and_messages() -> None:
    from implicit_prime.integrations.trl import verifier_reward

    def equal(completions: Sequence[str], references: Sequence[Any]) -> list[float]:
        pairs = zip(completions, references, strict=True)
        return [float("nan") if text == "?" else float(text == str(x)) for text, x in pairs]

    reward = verifier_reward(equal)
    message = [{"role": "assistant", "content": "3"}]
    with pytest.warns(PrimeWarning, match="could not be judged"):
        assert reward(completions=["2", message, "?"], answer=[1, 3, 1], prompts=[]) == [0.0, 1.0, None]
    with pytest.raises(PrimeError, match="'answer'"):
        reward(completions=["2"])


def test_the_script_in_launch_has_settings_that_both_take(tmp_path: Path) -> None:
    from implicit_prime.integrations.trl import prime_config

    path = Path(__file__).parents[1] / "launch" / "qwen25_1p5b_trl.py"
    script = runpy.run_path(str(path))
    # Sampling needs vLLM, whose settings are not looked at here.
    args = trl.GRPOConfig(**script["ARGS"] | {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False})
    found, paper = prime_config(args, script["PRIME"]), PrimeConfig(output_dir="-")
    for name in ("beta", "prm_loss", "prm_learning_rate", "mini_batch_size", "accuracy_range", "advantage"):
        assert getattr(found, name) == getattr(paper, name), name
    assert (found.prompts_per_step, found.num_generations) == (256, 4)
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == 256
