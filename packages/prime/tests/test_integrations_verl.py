"""PRIME in verl: against verl's registries, functions and workers, and against our own trainer's numbers.

verl's FSDP worker runs here on the CPU, by `verl_on_cpu`; the trainer on Ray in test_integrations_verl_ray.
"""

from __future__ import annotations

import asyncio
import copy
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from implicit_prime import PrimeError, core
from implicit_prime.config import PrimeConfig
from implicit_prime.online import OnlinePRM
from implicit_prime.responses import PromptGroup, Responses
from implicit_prm import ImplicitPRM

if find_spec("verl") is not None:
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ["VERL_USE_EXTERNAL_MODULES"] = "verl_on_cpu"
pytest.importorskip("verl", reason="verl is not installed: make test-verl")
pytest.importorskip("transfer_queue", reason="verl's core extra is not installed: make test-verl")

from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict
from verl import DataProto
from verl.trainer.ppo.core_algos import compute_rloo_outcome_advantage, get_adv_estimator_fn
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import TrainingWorkerConfig
from verl.workers.utils.losses import ppo_loss

from implicit_prime.integrations.verl import filtering, main, rewards, runner, trainer, workers
from implicit_prime.integrations.verl.advantages import ESTIMATORS, process_rewards
from implicit_prime.integrations.verl.settings import compose_config, prime_settings, read_tables

LAUNCH = Path(__file__).parents[1] / "launch"
OPTIONS = {"use_remove_padding": False, "override_config": {"attn_implementation": "eager"}}
ENGINE = {"+mixed_precision": {"param_dtype": "fp32"}, "use_torch_compile": False}
REF = "ref_log_prob"


def tables(model: str = "model", **prime: Any) -> dict[str, Any]:
    """A small run: 2 prompts x 4 responses a step, one mini-batch."""
    return {
        "prime": prime,
        "verifier": {"exact": {}},
        "data": {"train_batch_size": 2, "max_prompt_length": 8, "max_response_length": 8},
        "actor_rollout_ref": {
            "model": {"path": model, **OPTIONS},
            "actor": {
                "strategy": "fsdp2",
                "ppo_mini_batch_size": 2,
                "ppo_micro_batch_size_per_gpu": 4,
                "use_torch_compile": False,
                "fsdp_config": ENGINE,
            },
            "ref": {"log_prob_micro_batch_size_per_gpu": 4, "fsdp_config": ENGINE},
            "rollout": {"name": "vllm", "n": 4, "log_prob_micro_batch_size_per_gpu": 4},
        },
        "critic": {
            "strategy": "fsdp2",
            "ppo_micro_batch_size_per_gpu": 4,
            "model": OPTIONS,
            "fsdp": ENGINE,
        },
        "trainer": {"n_gpus_per_node": 1, "logger": ["console"]},
    }


def nested(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


@pytest.fixture(scope="module")
def batch() -> Responses:
    """8 responses of 1 to 6 tokens to 2 prompts of 2 and 3 tokens, each prompt half right."""
    rng = np.random.default_rng(0)
    groups = []
    for number, length in enumerate((2, 3)):
        ids = [tuple(rng.integers(3, 48, size).tolist()) for size in (6, 1, 3, 4)]
        group = PromptGroup(
            prompt=number,
            prompt_ids=tuple(rng.integers(3, 48, length).tolist()),
            ids=ids,
            log_probs=[rng.normal(-3, 1, len(row)).astype(np.float32) for row in ids],
            truncated=[False] * 4,
            outcomes=np.array([1.0, 0.0, 1.0, 0.0]),
        )
        groups.append(group)
    return Responses.from_groups(groups)


def as_verl(batch: Responses, **non_tensors: Any) -> TensorDict:
    """The same responses as verl's workers get them."""
    rows = range(len(batch))
    real, width = batch.attention_mask, batch.prompt_length
    prompts = [batch.input_ids[row, :width][real[row, :width]] for row in rows]
    responses = [batch.input_ids[row, width:][batch.mask[row]] for row in rows]
    masks = [torch.ones_like(row) for row in responses]
    scores = [torch.zeros(len(row)) for row in responses]
    for row in rows:
        scores[row][-1] = batch.outcomes[row]
    whole = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    fields = {
        "prompts": prompts,
        "responses": responses,
        "input_ids": whole,
        "position_ids": [torch.arange(len(row)) for row in whole],
        "response_mask": masks,
        "loss_mask": masks,
        "rm_scores": scores,
        "old_log_probs": [batch.log_probs[row][batch.mask[row]] for row in rows],
    }
    if batch.ref_log_probs is not None:
        fields[REF] = [batch.ref_log_probs[row][batch.mask[row]] for row in rows]
    return tu.get_tensordict({name: nested(value) for name, value in fields.items()}, non_tensors)


@pytest.fixture(scope="module")
def saved(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_llama: Callable[..., LlamaForCausalLM],
    words: PreTrainedTokenizerFast,
) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny_llama(attn_implementation="eager").save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


# ---- advantages


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    gamma=st.sampled_from([1.0, 0.5]),
    whiten=st.booleans(),
    weight=st.sampled_from([1.0, 0.1]),
)
def test_verl_computes_the_advantages_of_the_core_on_ragged_masks(
    name: str, seed: int, gamma: float, whiten: bool, weight: float
) -> None:
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 7, (12,), generator=rng)
    mask = torch.arange(6) < lengths[:, None]
    groups = torch.randperm(12, generator=rng) % 3
    outcome = torch.randint(0, 2, (12,), generator=rng).float()
    process = torch.randn(12, 6, generator=rng) * mask
    kind = ESTIMATORS[name]
    gamma = 1.0 if kind == "implicit_value" else gamma  # which discounts nothing
    args = PrimeConfig(output_dir="-", process_gamma=gamma, whiten=whiten)
    weighed = process * weight
    wanted = {
        "rloo": lambda: core.rloo_advantage(weighed, outcome, mask, groups, gamma),
        "grpo": lambda: (
            weight * core.grpo_advantage(process, torch.zeros(12), mask, groups, gamma)
            + core.grpo_advantage(None, outcome, mask, groups)
        ),
        "reinforce": lambda: core.reinforce_advantage(weighed, outcome, mask, gamma),
        "implicit_value": lambda: core.implicit_value_advantage(weighed, outcome, mask),
    }[kind]()
    at_last = torch.arange(6) == lengths[:, None] - 1
    data = DataProto(
        batch=TensorDict(
            {"token_level_rewards": outcome[:, None] * at_last, "response_mask": mask.long()}, batch_size=12
        ),
        non_tensor_batch={"uid": np.array([f"prompt-{int(group)}" for group in groups], dtype=object)},
    )
    with process_rewards(process, args, weight):
        found = compute_advantage(data, adv_estimator=name, config=OmegaConf.create({"gamma": 1.0}))
    torch.testing.assert_close(found.batch["returns"], wanted)
    whitened = core.whiten(wanted, mask) if whiten else wanted
    torch.testing.assert_close(found.batch["advantages"], whitened)


def test_without_process_rewards_rloo_is_verls_own() -> None:
    mask = torch.arange(5) < torch.tensor([5, 2, 3, 4])[:, None]
    rewards_ = torch.zeros(4, 5)
    rewards_[0, 4] = rewards_[3, 3] = 1.0
    index = np.array(["a", "a", "b", "b"], dtype=object)
    theirs, _ = compute_rloo_outcome_advantage(rewards_.clone(), mask.float(), index)
    _, ours = get_adv_estimator_fn("prime_rloo")(rewards_, mask, index, config={"gamma": 1.0})
    torch.testing.assert_close(ours, theirs)


def test_rows_without_tokens_and_rows_alone_get_nothing_and_change_nothing() -> None:
    estimate = get_adv_estimator_fn("prime_rloo")
    mask = torch.tensor([[1, 1], [1, 0], [1, 1]])
    rewards_ = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    without, _ = estimate(rewards_[:2], mask[:2], ["a", "a"])
    padded, _ = estimate(
        torch.cat([rewards_, torch.ones(2, 2)]),
        torch.cat([mask, torch.zeros(2, 2, dtype=torch.long)]),
        ["a", "a", "alone", "a", "pad"],
    )
    torch.testing.assert_close(padded[:2], without)
    assert padded[2:].abs().sum() == 0
    nothing, _ = estimate(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.long), ["a", "a"])
    assert nothing.shape == (2, 3)
    assert nothing.abs().sum() == 0


def test_the_implicit_value_needs_process_rewards() -> None:
    with pytest.raises(PrimeError, match="no process rewards"):
        get_adv_estimator_fn("prime_implicit_value")(torch.zeros(2, 2), torch.ones(2, 2), ["a", "a"])


# ---- registries and settings


def test_verl_picks_our_trainer_and_runs_our_task_runner() -> None:
    assert get_trainer_cls("prime") is trainer.PrimePPOTrainer
    actor = runner.PrimeTaskRunner.__ray_metadata__.modified_class
    assert issubclass(actor, runner._TaskRunner)


@pytest.mark.parametrize("name", ["eurus2_7b_prime_verl", "eurus2_7b_rloo_verl"])
def test_the_launch_files_are_what_verl_accepts_and_have_the_papers_settings(name: str, saved: str) -> None:
    tables = read_tables(LAUNCH / f"{name}.toml")
    config = compose_config(tables, {"actor_rollout_ref.model.path": saved})
    main.validate(config)
    found, paper = prime_settings(config), PrimeConfig(output_dir="-")
    for key in ("prompts_per_step", "num_generations", "mini_batch_size", "beta", "accuracy_range", "whiten"):
        assert getattr(found, key) == getattr(paper, key), key
    actor, critic = config.actor_rollout_ref.actor, config.critic
    assert (actor.optim.lr, actor.optim.weight_decay, actor.optim.clip_grad) == (5e-7, 1e-2, 1.0)
    assert (critic.optim.lr, critic.optim.weight_decay, critic.optim.clip_grad) == (1e-6, 0.0, 10.0)
    assert (actor.clip_ratio, actor.kl_loss_coef, actor.entropy_coeff) == (0.2, 0.0, 0)
    assert (config.data.max_prompt_length, config.data.max_response_length) == (1024, 3072)
    prm = name == "eurus2_7b_prime_verl"
    assert (found.process_weight, critic.enable, actor.use_kl_loss) == (float(prm), prm, prm)
    assert config.algorithm.adv_estimator == "prime_rloo"
    assert config.trainer.v1.trainer_mode == "prime"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data.train_batch_sise": 4}, "did you mean 'train_batch_size'"),
        ({"algorithm.adv_estimator": "grpo"}, "is decided by"),
        ({"prime.learning_rate": 1e-6}, "it is verl's actor_rollout_ref.actor.optim.lr"),
        ({"prime.prm_replay_steps": 2}, "not to be had with verl"),
        ({"prime.betta": 2}, "did you mean 'beta'"),
        ({"prime.advantage": "ppo"}, "needs a critic"),
        ({"actor_rollout_ref.rollout.temperature": 0.7}, "of temperature 1"),
        ({"prime.process_weight": "accuracy", "prime.prm_update": "before"}, "before the PRM learns"),
        ({"prime.prm_update": "none"}, "equals its reference gives no rewards"),
        ({"prime.advantage": "implicit_value", "prime.process_weight": 0}, "asks for no PRM"),
        ({"verifier.maths": {}}, "no verifier 'maths'"),
        ({"data.train_batch_size.x": 1}, "is a value, not a table"),
    ],
)
def test_settings_that_cannot_be_are_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(PrimeError, match=told):
        compose_config(tables(), changes)


@pytest.mark.parametrize(
    "changes",
    [{"critic.model.path": "another"}, {"prime.ref": "policy"}, {"prime.process_weight": 0}],
    ids=str,
)
def test_a_frozen_prm_may_be_another_model_than_the_reference(changes: dict[str, Any]) -> None:
    config = compose_config(tables(prm_update="none"), changes)
    assert prime_settings(config).prm_update == "none"


def test_keys_below_an_empty_table_and_with_a_plus_are_added() -> None:
    rollout = "actor_rollout_ref.rollout"
    new = {f"{rollout}.engine_kwargs.vllm.{name}": number for number, name in enumerate(("a", "b", "c.d"))}
    changes = {**new, f"{rollout}.agent.+agent_loop_manager_class": "m.C"}
    found = compose_config(tables(), changes).actor_rollout_ref.rollout
    assert found.engine_kwargs.vllm == {"a": 0, "b": 1, "c": {"d": 2}}
    assert found.agent.agent_loop_manager_class == "m.C"


def test_a_users_mistake_ends_with_2_and_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([str(tmp_path / "no.toml")]) == 2
    assert "there is no file" in capsys.readouterr().err
    file = tmp_path / "run.toml"
    file.write_text("[verifier.exact]\n[actor_rollout_ref.rollout]\nname = 'vllm'\nn = 4\n")
    assert main.main([str(file), "--check"]) == 2  # micro batch sizes are missing
    assert "verl says" in capsys.readouterr().err
    assert main.main([]) == 2


# ---- losses and the worker


def test_the_loss_of_the_policy_is_that_of_our_trainer(batch: Responses) -> None:
    config = compose_config(tables())
    data = as_verl(batch, dp_size=1, global_batch_size=8, batch_num_tokens=int(batch.mask.sum()))
    rng = torch.Generator().manual_seed(1)
    advantages = torch.randn(batch.mask.shape, generator=rng) * batch.mask
    logp = batch.log_probs + torch.randn(batch.mask.shape, generator=rng)
    rows = range(len(batch))
    data["advantages"] = nested([advantages[row][batch.mask[row]] for row in rows])
    data[REF] = data["old_log_probs"].clone()
    lengths = data["input_ids"].offsets().diff().tolist()
    values = [torch.zeros(length) for length in lengths]
    for row in rows:  # verl's log-probs of a token stand one place before it
        count = int(batch.mask[row].sum())
        values[row][-count - 1 : -1] = logp[row][batch.mask[row]]
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    loss, _ = ppo_loss(config=actor, model_output={"log_probs": nested(values)}, data=data)
    wanted = core.ppo_clip_loss(logp, batch.log_probs, advantages, batch.mask)
    assert float((logp - batch.log_probs).exp()[batch.mask].max()) > 3  # where verl would clip once more
    torch.testing.assert_close(loss, wanted)


@pytest.fixture(scope="module")
def worker(saved: str) -> workers.PRMWorker:
    """verl's worker with a PRM in place of a critic, sharded by FSDP2 over one process on the CPU."""
    address = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    os.environ.update(address | {"MASTER_PORT": "29741"})
    settings = omega_conf_to_dataclass(compose_config(tables(saved), {"critic.optim.lr": 1e-3}).critic)
    settings.engine.infer_max_token_len_per_gpu = settings.engine.max_token_len_per_gpu = 24
    config = TrainingWorkerConfig(
        model_type="value_model",
        model_config=settings.model,
        engine_config=settings.engine,
        optimizer_config=settings.optim,
        checkpoint_config=settings.checkpoint,
    )
    made = workers.PRMWorker(config)
    made.reset()
    made.set_loss_fn(partial(workers.prm_ce_loss, beta=0.05, reference=REF))
    return made


def scores(worker: workers.PRMWorker, data: TensorDict, batch: Responses) -> torch.Tensor:
    """The PRM's log-probs of the responses' tokens, as the trainer reads them: [B, T]."""
    ask = data.clone()
    tu.assign_non_tensor(ask, compute_loss=False, calculate_entropy=False, temperature=1.0)
    found = trainer.response_from_nested(worker.infer_batch(ask)["log_probs"], data["response_mask"])
    return found.to_padded_tensor(0.0, output_size=batch.mask.shape)


def test_a_step_of_the_worker_is_a_step_of_our_online_prm(
    worker: workers.PRMWorker, saved: str, batch: Responses, words: PreTrainedTokenizerFast
) -> None:
    model = LlamaForCausalLM.from_pretrained(saved, attn_implementation="eager", dtype=torch.float32)
    reference = copy.deepcopy(model)
    with torch.no_grad():
        reference.lm_head.weight += 0.02 * torch.randn(reference.lm_head.weight.shape)
    args = PrimeConfig(output_dir="-", prm_learning_rate=1e-3, mini_batch_size=8, prompts_per_step=2)
    online = OnlinePRM(ImplicitPRM(model, words, reference, 0.05), args, Accelerator(cpu=True))
    batch = online.with_reference(batch)
    data = as_verl(batch)
    before = online.score(batch)
    torch.testing.assert_close(
        0.05 * (scores(worker, data, batch) - batch.ref_log_probs) * batch.mask, before
    )
    _, wanted = online.update(batch)

    # verl fills up a batch with rows without tokens: they must not count.
    empty = as_verl(batch.select(torch.tensor([1, 1])))
    for name in ("response_mask", "loss_mask"):
        empty[name] = nested([row * 0 for row in empty[name].unbind()])
    filled = tu.concat_tensordict([data, empty])
    tu.assign_non_tensor(
        filled, mini_batch_size=10, global_batch_size=10, epochs=1, seed=0, temperature=1.0,
        dataloader_kwargs={"shuffle": False}, calculate_entropy=False,
    )  # fmt: skip
    metrics = tu.get(worker.train_mini_batch(filled), "metrics")
    assert metrics["loss"] == pytest.approx([wanted["prm/loss"]], rel=1e-4)
    assert metrics["grad_norm"] == pytest.approx([wanted["prm/grad_norm"]], rel=1e-3)
    after = 0.05 * (scores(worker, data, batch) - batch.ref_log_probs) * batch.mask
    assert not torch.allclose(after, before, atol=1e-4)
    torch.testing.assert_close(after, online.score(batch), atol=2e-5, rtol=1e-3)


# ---- filter and rewards


def buffer(monkeypatch: pytest.MonkeyPatch, groups: dict[str, list[float]], **prime: Any) -> Any:
    """A replay buffer that finds these outcomes; NaN is a verifier that failed."""
    args = PrimeConfig(output_dir="-", prompts_per_step=2, num_generations=4, mini_batch_size=8, **prime)
    found = filtering.AccuracyReplayBuffer(
        prime=args, trainer_mode="sync", trainer_config=None, max_off_policy_threshold=8,
        max_off_policy_strategy="drop", sampler_kwargs={}, refill_fn=lambda count: count,
        filter_groups_metric="reward", train_batch_size=2, gen_batch_size=1,
    )  # fmt: skip
    known = {f"{uid}_{at}_0": value for uid, row in groups.items() for at, value in enumerate(row)}

    def get(keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, Any]:
        values = [known[key] for key in keys]
        infos = [{"reward_extra_info": {"judged": float(value == value)}} for value in values]
        return {
            "rm_scores": nested([torch.tensor([0.0, np.nan_to_num(value)]) for value in values]),
            "extra_fields": NonTensorStack(*infos),
        }

    monkeypatch.setattr(filtering.tq, "kv_batch_get", get)
    found.partitions["train"] = {key: {"response_len": 8 if "cut" in key else 2} for key in known}
    found.finished_keys["train"] = set(groups)
    return found


def test_the_buffer_evicts_what_the_accuracy_filter_does_not_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    nan = float("nan")
    groups = {
        "right": [1.0, 1.0, 1.0, 1.0],
        "wrong": [0.0, 0.0, 0.0, 0.0],
        "half": [1.0, 0.0, 1.0, 0.0],
        "edge": [1.0, 0.0, 0.0, 0.0, 0.0],  # 1/5, the bound itself
        "hard": [0.1, 0.0, 0.3, 0.0],  # not all equal, which verl's own filter keeps
        "unjudged": [1.0, nan, nan, nan],
        "partly": [1.0, 0.0, nan, nan],
        "cut": [1.0, 0.0, 1.0, 0.0],
    }
    found = buffer(monkeypatch, groups)
    evicted, counts = found._dapo_filtered_keys("train")
    assert evicted == {"right", "wrong", "hard", "unjudged"}
    assert counts[1.0] == 2
    assert found._dapo_filtered_keys("val") == (set(), {})
    found = buffer(monkeypatch, groups, filter_truncated=True, max_completion_length=8)
    assert "cut" in found._dapo_filtered_keys("train")[0]


def test_refilling_ends_with_the_accuracies_that_were_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = {f"p{number}": [0.0, 0.0, 0.0, 0.0] for number in range(4)}
    with pytest.raises(PrimeError, match=r"0 of 4 prompts .* accuracies were 0.00: 4"):
        buffer(monkeypatch, groups, max_refill_rounds=2)._dapo_filtered_keys("train")


def judge(words: PreTrainedTokenizerFast, text: str, answer: Any) -> dict[str, Any]:
    """What the manager says of one response; verl pads them on the right."""
    ids = words(text)["input_ids"]
    responses = torch.tensor([[*ids, 0, 0]])
    real = torch.tensor([[1, 1, *([1] * len(ids)), 0, 0]])
    row = {"data_source": "test", "reward_model": {"ground_truth": answer}, "ability": "exact"}
    data = DataProto(
        batch=TensorDict({"responses": responses, "attention_mask": real}, batch_size=1),
        non_tensor_batch={name: np.array([value], dtype=object) for name, value in row.items()},
    )
    config = OmegaConf.create({"verifier": {"exact": {}}})

    async def ask() -> dict[str, Any]:
        return await rewards.VerifierRewardManager(config, words).run_single(data)

    return asyncio.run(ask())


def test_our_verifiers_judge_the_response_without_its_padding(words: PreTrainedTokenizerFast) -> None:
    right = judge(words, "w1 w2", "w1 w2")
    assert right == {"reward_score": 1.0, "reward_extra_info": {"acc": 1.0, "judged": 1.0}}
    assert judge(words, "w1 w3", "w1 w2")["reward_score"] == 0.0


def test_a_verifier_that_fails_is_no_verdict(
    words: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(completions: Any, references: Any) -> list[float]:
        raise RuntimeError("broken")

    monkeypatch.setattr(rewards, "named_verifier", lambda table: fails)
    with pytest.warns(match="broken"):
        found = judge(words, "w1", "w1")
    assert found == {"reward_score": 0.0, "reward_extra_info": {"acc": 0.0, "judged": 0.0}}
    assert filtering.judged([{"reward_extra_info": found["reward_extra_info"]}, {}]).tolist() == [False, True]


def test_data_without_a_reference_is_told(words: PreTrainedTokenizerFast) -> None:
    with pytest.raises(PrimeError, match="ground_truth"):
        judge(words, "w1", None)


def test_responses_without_a_verdict_lose_their_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    put: dict[str, Any] = {}
    infos = [{"reward_extra_info": {"judged": value}} for value in (1.0, 0.0)]
    data = TensorDict(
        {"response_mask": nested([torch.ones(3, dtype=torch.long), torch.ones(2, dtype=torch.long)])},
        batch_size=2,
    )
    data["extra_fields"] = NonTensorStack(*infos)
    monkeypatch.setattr(trainer.tq, "kv_batch_get", lambda **_: data)
    monkeypatch.setattr(trainer.tq, "kv_batch_put", lambda **given: put.update(given))
    metrics: dict[str, Any] = {}
    made = object.__new__(trainer.PrimePPOTrainer)
    made._leave_out_unjudged(SimpleNamespace(keys=["a_0_0", "a_1_0"], partition_id="train"), metrics)
    assert metrics == {"prime/unjudged": 1.0}
    for name in ("response_mask", "loss_mask"):
        assert [row.tolist() for row in put["fields"][name].unbind()] == [[1, 1, 1], [0, 0]]
