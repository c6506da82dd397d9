"""The engine writes with the weights of now, adapters and shards included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from implicit_prime.errors import PrimeError, PrimeWarning
from implicit_prime.rollout.base import RolloutEngine, Rollouts, Sampling, check_drift, log_prob_drift
from implicit_prime.rollout.transformers import HFEngine
from implicit_prime.rollout.weights import is_sharded, whole_weights
from implicit_prm.errors import ImplicitPRMError

PROMPTS = [(5, 6, 7), (8,), (9, 10)]


def expected(model, rollouts: Rollouts) -> list[np.ndarray]:
    """By definition: a row at a time, the log-softmax of all logits."""
    each = len(rollouts.ids) // len(PROMPTS)
    found = []
    for at, ids in enumerate(rollouts.ids):
        prompt = PROMPTS[at // each]
        row = torch.tensor([[*prompt, *ids]])
        with torch.no_grad():
            table = model(row).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        found.append(table.gather(1, torch.tensor(ids)[:, None])[:, 0].numpy())
    return found


def drawn(engine: HFEngine, seed: int = 0) -> Rollouts:
    return engine.generate(PROMPTS, 4, Sampling(max_tokens=12, seed=seed))


def test_responses_come_prompt_after_prompt_with_the_models_log_probs(tiny_llama, words) -> None:
    model = tiny_llama()
    engine = HFEngine(model, words, batch_size=5)
    assert isinstance(engine, RolloutEngine)
    rollouts = drawn(engine)
    assert [len(part) for part in (rollouts.ids, rollouts.log_probs, rollouts.truncated, rollouts.texts)] == [
        12
    ] * 4
    assert log_prob_drift(expected(model, rollouts), rollouts.log_probs) < 1e-5
    assert set(rollouts.truncated) == {True, False}
    for ids, cut, text in zip(rollouts.ids, rollouts.truncated, rollouts.texts, strict=True):
        assert cut == (ids[-1] != words.eos_token_id)
        assert len(text.split()) == len(ids) - (not cut)
    assert drawn(HFEngine(model, words, batch_size=64)).ids == rollouts.ids
    assert drawn(engine, seed=1).ids != rollouts.ids


def test_a_gradient_step_changes_what_is_written_and_no_second_model_is_kept(tiny_llama, words) -> None:
    model = tiny_llama()
    engine = HFEngine(model, words)
    before = drawn(engine)
    with torch.no_grad():
        model.lm_head.weight += torch.randn(model.lm_head.weight.shape, generator=torch.manual_seed(1))
    engine.sync_weights(model)
    after = drawn(engine)
    assert after.ids != before.ids
    assert log_prob_drift(expected(model, after), after.log_probs) < 1e-5
    assert log_prob_drift(expected(model, before), before.log_probs) > 0.1
    assert engine._sampler.model is model


def test_the_active_adapter_writes_and_its_merged_weights_are_the_models(tiny_llama, words) -> None:
    model = get_peft_model(
        tiny_llama(), LoraConfig(r=4, target_modules=["q_proj", "down_proj"], modules_to_save=["lm_head"])
    )
    model.add_adapter("prm", LoraConfig(r=2, target_modules=["v_proj"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter += torch.randn(parameter.shape, generator=torch.manual_seed(len(name)))
    weights = {name: value.clone() for name, value in model.named_parameters()}
    plain = tiny_llama(seed=1)
    for adapter in ("default", "prm"):
        model.set_adapter(adapter)
        plain.load_state_dict(dict(whole_weights(model)))
        rollouts = drawn(HFEngine(model, words))
        assert log_prob_drift(expected(plain, rollouts), rollouts.log_probs) < 1e-4
    with model.disable_adapter():
        plain.load_state_dict(dict(whole_weights(model)))
    for ours, theirs in zip(plain.parameters(), tiny_llama().parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for name, value in model.named_parameters():
        assert torch.equal(value, weights[name])


def test_tied_weights_come_once_under_the_names_of_a_checkpoint(tiny_llama) -> None:
    names = [name for name, _ in whole_weights(tiny_llama(tie_word_embeddings=True))]
    assert names == [name for name, _ in tiny_llama(tie_word_embeddings=True).named_parameters()]
    assert "lm_head.weight" not in names


@pytest.mark.parametrize("tied", [False, True])
def test_shards_are_gathered_into_a_whole_model(tiny_llama, words, tied, one_process) -> None:
    model = tiny_llama(tie_word_embeddings=tied)
    whole = drawn(HFEngine(model, words))
    engine = HFEngine(model, words)
    mesh = init_device_mesh("cpu", (1,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert is_sharded(model)
    generator = torch.get_rng_state()
    engine.sync_weights(model)
    assert torch.equal(generator, torch.get_rng_state())
    replica = engine._sampler.model
    assert not is_sharded(replica)
    assert drawn(engine).ids == whole.ids
    engine.sync_weights(model)
    assert engine._sampler.model is replica


def test_adapters_of_a_sharded_model_are_merged_into_the_whole_one(tiny_llama, words, one_process) -> None:
    model = get_peft_model(tiny_llama(), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    whole = drawn(HFEngine(model, words))
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    engine = HFEngine(model, words)
    engine.sync_weights(model)
    sharded = drawn(engine)
    assert sharded.ids == whole.ids
    assert log_prob_drift(sharded.log_probs, whole.log_probs) < 1e-5


@pytest.fixture
def one_process(tmp_path):
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_prompt_that_does_not_fit_is_named(tiny_llama, words) -> None:
    engine = HFEngine(tiny_llama(), words)
    with pytest.raises(ImplicitPRMError, match=r"prompt 0 has 3 tokens; with max_tokens=62 .* than the 64"):
        engine.generate(PROMPTS, 2, Sampling(max_tokens=62))


def test_an_adapter_that_cannot_be_merged_is_named(tiny_llama, monkeypatch) -> None:
    model = get_peft_model(tiny_llama(), LoraConfig(r=4, target_modules=["q_proj"]))
    layer = model.get_base_model().model.layers[0].self_attn.q_proj

    def refuse(self: object) -> None:
        raise NotImplementedError("quantised")

    monkeypatch.setattr(type(layer), "merge", refuse)
    with pytest.raises(PrimeError, match=r"adapter of 'model.layers.0.self_attn.q_proj' cannot.*quantised"):
        list(whole_weights(model))


def test_drift_is_the_mean_difference_of_a_token() -> None:
    ours = [np.array([-1.0, -2.0], np.float32), np.array([-3.0], np.float32)]
    engine = [np.array([-1.5, -2.0], np.float32), np.array([-2.75], np.float32)]
    assert log_prob_drift(ours, engine) == pytest.approx((0.5 + 0 + 0.25) / 3)
    assert log_prob_drift([], []) == 0
    with pytest.raises(PrimeError, match=r"\[2, 1\] and \[2\] tokens"):
        log_prob_drift(ours, engine[:1])


def test_drift_beyond_rounding_warns_and_other_weights_stop_the_run() -> None:
    check_drift(0.03)
    with pytest.warns(PrimeWarning, match="differ from the trainer's by 0.2 a token"):
        check_drift(0.2)
    for drift in (1.5, float("nan")):
        with pytest.raises(PrimeError, match="it writes with other weights"):
            check_drift(drift)
