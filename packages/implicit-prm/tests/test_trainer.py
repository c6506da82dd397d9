from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.trainer_callback import TrainerCallback

from implicit_prm.config import ImplicitPRMConfig
from implicit_prm.errors import ImplicitPRMError, ImplicitPRMWarning
from implicit_prm.logprobs import causal_log_probs
from implicit_prm.reference_cache import model_digest
from implicit_prm.trainer import ImplicitPRMTrainer

BETA = 0.5
Build = Callable[..., LlamaForCausalLM]
GENERATOR = np.random.default_rng(0)


def ids(length: int) -> list[int]:
    return GENERATOR.integers(3, 60, length).tolist()


def responses(prompts: int, of_each: int) -> list[dict[str, Any]]:
    """Right is what begins with an even token: learnable from a few rows."""
    rows = []
    for _ in range(prompts):
        prompt = ids(int(GENERATOR.integers(2, 5)))
        for _ in range(of_each):
            completion = ids(int(GENERATOR.integers(1, 7)))
            rows.append({"prompt_ids": prompt, "completion_ids": completion, "label": completion[0] % 2 == 0})
    return rows


ROWS = responses(6, 4)


def trainer(
    model: nn.Module, folder: Path, rows: Any = ROWS, ref_model: Any = None, **settings: Any
) -> ImplicitPRMTrainer:
    defaults: dict[str, Any] = {
        "beta": BETA,
        "learning_rate": 3e-3,
        "per_device_train_batch_size": 8,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "use_cpu": True,
    }
    config = ImplicitPRMConfig(output_dir=str(folder), **defaults | settings)
    return ImplicitPRMTrainer(model, ref_model, args=config, train_dataset=rows)


def outcome(
    model: nn.Module, ref: nn.Module | None, prompt: list[int], completion: list[int]
) -> torch.Tensor:
    """h of one response from the models' logits, without any of the package's batching."""
    tokens = torch.tensor([prompt + completion])
    total = torch.zeros(())
    for sign, scored in ((1, model), (-1, ref)):
        if scored is not None:
            log_probs = scored(tokens).logits[0, :-1].double().log_softmax(-1)
            chosen = log_probs.gather(1, tokens[0, 1:, None])[len(prompt) - 1 :, 0]
            total = total + sign * chosen.sum()
    return BETA * total


def outcomes(model: nn.Module, ref: nn.Module | None, rows: Any, key: str = "completion_ids") -> torch.Tensor:
    with torch.no_grad():
        return torch.stack([outcome(model, ref, row["prompt_ids"], row[key]) for row in rows]).double()


def loss_of(tested: ImplicitPRMTrainer) -> float:
    """The loss of all training data as one batch."""
    dataset: Any = tested.train_dataset
    with torch.no_grad():
        return float(tested.compute_loss(tested.model, dataset.batch(range(len(dataset)))))


@pytest.fixture
def models(tiny_llama: Build) -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    return tiny_llama(0), tiny_llama(1)


def test_ce_is_the_weighted_cross_entropy_of_all_outcomes(models: Any, tmp_path: Path) -> None:
    model, ref = models
    h, label = outcomes(model, ref, ROWS), torch.tensor([float(row["label"]) for row in ROWS])
    right, wrong = nn.functional.softplus(-h), nn.functional.softplus(h)
    tested = trainer(model, tmp_path, ref_model=ref, desirable_weight=2.0, undesirable_weight=0.5)
    assert loss_of(tested) == pytest.approx(
        float((2 * label * right + (1 - label) * wrong / 2).mean()), rel=1e-5
    )


@pytest.mark.parametrize("loss", ["dpo", "nca"])
def test_pairs(loss: str, models: Any, tmp_path: Path) -> None:
    model, ref = models
    rows = [{"prompt_ids": ids(3), "chosen_ids": ids(n), "rejected_ids": ids(6 - n)} for n in range(1, 6)]
    chosen, rejected = (outcomes(model, ref, rows, key) for key in ("chosen_ids", "rejected_ids"))
    softplus = nn.functional.softplus
    expected = {
        "dpo": softplus(rejected - chosen),
        "nca": softplus(-chosen) + (softplus(chosen) + softplus(rejected)) / 2,
    }[loss]
    tested = trainer(model, tmp_path, rows, ref, loss=loss)
    assert loss_of(tested) == pytest.approx(float(expected.mean()), rel=1e-5)


def test_kto_measures_its_divergence_on_responses_of_other_prompts(models: Any, tmp_path: Path) -> None:
    model, ref = models
    tested = trainer(model, tmp_path, ref_model=ref, loss="kto", undesirable_weight=2.0)
    store: Any = tested.train_dataset.store  # type: ignore[union-attr]
    unmatched = [
        {"prompt_ids": whole[:prompt], "completion_ids": whole[prompt:]}
        for number in range(len(ROWS), 2 * len(ROWS))
        for whole, prompt in [(store.sequence(number).tolist(), int(store.prompt_lengths[number]))]
    ]
    z0 = (outcomes(model, ref, unmatched).mean() / BETA).clamp(min=0)
    margin = outcomes(model, ref, ROWS) - BETA * z0
    label = torch.tensor([float(row["label"]) for row in ROWS])
    expected = (label * torch.sigmoid(-margin) + 2 * (1 - label) * torch.sigmoid(margin)).mean()
    assert loss_of(tested) == pytest.approx(float(expected), rel=1e-5)


def test_steps_are_sums_of_their_tokens(models: Any, tmp_path: Path) -> None:
    model, _ = models
    prompt, first, second = ids(3), ids(2), ids(3)
    rows = [
        {"prompt_ids": prompt, "completion_ids": first + second, "step_ends": [1, 4], "step_labels": [1, 0]},
        {"prompt_ids": prompt, "completion_ids": second, "step_ends": [2], "step_labels": [1]},
    ]
    of_first = outcome(model, None, prompt, first)
    steps = [of_first, outcome(model, None, prompt, first + second) - of_first]
    steps.append(outcome(model, None, prompt, second))
    expected = sum(
        nn.functional.softplus(-sign * step).item() for sign, step in zip((1, -1, 1), steps, strict=True)
    )
    tested = trainer(model, tmp_path, rows, loss="step", reference="none")
    assert loss_of(tested) == pytest.approx(expected / 3, rel=1e-5)
    metrics = tested.evaluate(rows)
    assert metrics["eval_rewards/margins"] == pytest.approx(
        ((steps[0] + steps[2]) / 2 - steps[1]).item(), rel=1e-4
    )


def test_training_begins_at_reward_zero_and_learns(tiny_llama: Build, tmp_path: Path) -> None:
    rows = responses(20, 8)
    tested = trainer(tiny_llama(), tmp_path, rows, num_train_epochs=6, per_device_train_batch_size=16)
    tested.train()
    first, last = tested.state.log_history[0], tested.evaluate(rows)
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-6)  # model and reference are equal
    assert first["rewards/chosen"] == first["rewards/rejected"] == 0
    assert last["eval_loss"] < 0.55
    assert last["eval_rewards/auc"] > 0.85
    assert last["eval_rewards/auc_within_prompts"] > 0.85
    assert last["eval_rewards/margins"] > 0


def test_the_model_alone_is_trained_and_its_copy_is_the_reference(tiny_llama: Build, tmp_path: Path) -> None:
    model, before = tiny_llama(), tiny_llama()
    tested = trainer(model, tmp_path, max_steps=2)
    tested.train()
    scorer = tested.reference.scorer
    assert scorer is not None
    for name, weight in before.state_dict().items():
        assert torch.equal(scorer.state_dict()[name], weight)
    assert not torch.equal(model.lm_head.weight, before.lm_head.weight)


@pytest.mark.parametrize("loss", ["ce", "kto"])
def test_precomputed_reference_gives_the_same_training(loss: str, tiny_llama: Build, tmp_path: Path) -> None:
    trained = []
    for precompute in (False, True):
        model = tiny_llama()
        settings = {"loss": loss, "max_steps": 4, "precompute_ref_log_probs": precompute}
        tested = trainer(model, tmp_path, **settings)
        tested.train()
        assert (tested.reference.scorer is None) == precompute
        trained.append(model.state_dict())
    for name, weight in trained[0].items():
        torch.testing.assert_close(trained[1][name], weight, rtol=1e-4, atol=1e-5)


def test_training_without_padding_is_the_same_training(tiny_llama: Build, tmp_path: Path) -> None:
    trained = []
    for packed in (False, True):
        model = tiny_llama().double()  # AdamW makes much of what rounding leaves of a small gradient
        trainer(model, tmp_path, loss="dpo", max_steps=4, padding_free=packed).train()
        trained.append(model.state_dict())
    for name, weight in trained[0].items():
        torch.testing.assert_close(trained[1][name], weight, rtol=1e-4, atol=1e-5)


def test_packing_is_tried_on_the_device_and_in_the_dtype_of_training(
    tiny_llama: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an attention that, as FlashAttention, has no way for float32 without autocast."""
    placed: list[nn.Module] = []
    move = Trainer._move_model_to_device
    monkeypatch.setattr(
        Trainer,
        "_move_model_to_device",
        lambda self, model, device: (placed.append(model), move(self, model, device)),
    )

    def attention(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        assert torch.is_autocast_enabled("cpu"), "only 16 bits"
        assert any(module in model.modules() for model in placed), "not on the device"
        return sdpa_attention_forward(module, *args, **kwargs)

    AttentionInterface.register("sixteen_bits", attention)
    AttentionMaskInterface.register("sixteen_bits", sdpa_mask)
    AttentionInterface.register("sees_all", sdpa_attention_forward)
    AttentionMaskInterface.register("sees_all", lambda *args, **kwargs: None)
    settings = {"padding_free": True, "bf16": True, "max_steps": 1, "reference": "none"}
    model = tiny_llama()
    model.set_attn_implementation("sixteen_bits")
    trainer(model, tmp_path, **settings).train()
    model = tiny_llama()
    model.set_attn_implementation("sees_all")
    with pytest.raises(ImplicitPRMError, match="'sees_all' lets packed sequences see each other"):
        trainer(model, tmp_path, **settings)
    with pytest.raises(ImplicitPRMError, match="'sees_all' lets packed sequences see each other"):
        trainer(tiny_llama(), tmp_path, ref_model=model, **settings | {"reference": "model"})


def test_rows_that_come_after_the_reference_is_gone(tiny_llama: Build, tmp_path: Path) -> None:
    tested = trainer(tiny_llama(), tmp_path, precompute_ref_log_probs=True)
    with pytest.raises(ImplicitPRMError, match="give all data sets to the trainer when it is made"):
        tested.evaluate(ROWS)


def test_an_adapter_is_trained_against_its_base(tiny_llama: Build, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = peft.get_peft_model(tiny_llama(), peft.LoraConfig(r=4, target_modules="all-linear"))
    digest = model_digest(model, adapter_off=True)
    adapters = {name: weight.clone() for name, weight in model.state_dict().items() if "lora_B" in name}
    tested = trainer(model, tmp_path, max_steps=3, precompute_ref_log_probs=True)
    whole = trainer(model, tmp_path)
    assert whole.reference.scorer is None  # one model in memory
    assert whole.train_dataset.ref is None  # type: ignore[union-attr]
    tested.train()
    assert tested.state.log_history[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)
    after = model.state_dict()
    assert all(not torch.equal(after[name], weight) for name, weight in adapters.items())
    # What was computed before training is what the base still says.
    assert loss_of(whole) == pytest.approx(loss_of(tested), rel=1e-5)
    assert model.get_model_status().enabled is True
    assert model_digest(model, adapter_off=True) == digest


def test_two_adapters_on_one_base_are_two_references(tiny_llama: Build, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")

    def adapted(seed: int, **changes: Any) -> nn.Module:
        base = tiny_llama()
        torch.manual_seed(seed)
        settings = {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": False, **changes}
        return peft.get_peft_model(base, peft.LoraConfig(**settings))

    settings = {"precompute_ref_log_probs": True, "reference_cache_dir": str(tmp_path / "cache")}
    known = []
    for ref in (adapted(1), adapted(2), adapted(1, lora_alpha=64), tiny_llama()):
        expected = outcomes(tiny_llama(), ref, ROWS) - outcomes(tiny_llama(), None, ROWS)
        tested = trainer(tiny_llama(), tmp_path, ref_model=ref, **settings)
        values = torch.from_numpy(np.array(tested.train_dataset.ref))  # type: ignore[union-attr]
        assert -BETA * values.double().sum() == pytest.approx(expected.sum().item(), rel=1e-4)
        known.append(values)
    assert len({tuple(values.tolist()) for values in known}) == 4
    trainer(tiny_llama(), tmp_path, ref_model=adapted(1), **settings)  # the first one again
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_rewards_that_are_no_numbers_name_their_rows(tiny_llama: Build, tmp_path: Path) -> None:
    model = tiny_llama()
    rows = [*ROWS, {"id": "poisoned", "prompt_ids": [3], "completion_ids": [61, 4], "label": 1}]
    with torch.no_grad():
        model.model.embed_tokens.weight[61] = math.nan
    with pytest.raises(ImplicitPRMError, match="rewards of rows 'poisoned' are not finite"):
        trainer(model, tmp_path, rows, ref_model=tiny_llama(1), max_steps=9).train()
    with pytest.raises(ImplicitPRMError, match="reference's log-probs of row 'poisoned' are no numbers"):
        trainer(tiny_llama(), tmp_path, rows, ref_model=model, precompute_ref_log_probs=True)


def test_models_that_do_not_fit(tiny_llama: Build, tmp_path: Path) -> None:
    model = tiny_llama()
    with pytest.raises(ImplicitPRMError, match="no weight of the model can be trained"):
        trainer(tiny_llama().requires_grad_(False), tmp_path)
    classifier = LlamaForSequenceClassification(model.config)
    with pytest.raises(ImplicitPRMError, match="an implicit PRM is a causal LM"):
        trainer(classifier, tmp_path)
    with pytest.raises(ImplicitPRMError, match="one object"):
        trainer(model, tmp_path, ref_model=model)
    with pytest.raises(ImplicitPRMError, match="takes no ref_model"):
        trainer(model, tmp_path, ref_model=tiny_llama(1), reference="none")
    with pytest.raises(ImplicitPRMError, match=r"token 320 of row 'x' is outside .* of 320"):
        trainer(model, tmp_path, [*ROWS, {"id": "x", "prompt_ids": [1], "completion_ids": [320], "label": 1}])


def test_weights_too_coarse_for_small_steps_are_warned_of(tiny_llama: Build, tmp_path: Path) -> None:
    with pytest.warns(ImplicitPRMWarning, match=r"bfloat16, in which a step of 0\.00390625 of a weight"):
        trainer(tiny_llama().bfloat16(), tmp_path)


def test_text_is_read_with_the_tokenizer(
    tiny_llama: Build, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    grouped = [
        {"prompt": "the answer is", "completions": [" 42", " 4", " 24"], "labels": [True, False, True]}
    ]
    config = ImplicitPRMConfig(
        output_dir=str(tmp_path), loss="dpo", pairing="all", add_eos=True, use_cpu=True
    )
    tested = ImplicitPRMTrainer(tiny_llama(), args=config, train_dataset=grouped, processing_class=tokenizer)
    store = tested.train_dataset.store  # type: ignore[union-attr]
    assert tested.train_dataset.examples.tolist() == [[0, 1], [2, 1]]  # type: ignore[union-attr]
    assert tokenizer.decode(store.sequence(0)) == "the answer is 42<|im_end|>"
    with pytest.raises(ImplicitPRMError, match="processing_class"):
        trainer(tiny_llama(), tmp_path, grouped)


def test_resumed_after_an_interrupt_equals_uninterrupted(tiny_llama: Build, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 2}
    whole, model = tiny_llama(), tiny_llama()
    trainer(whole, tmp_path / "whole", **settings).train()

    class Interrupt(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 5:  # in the middle of an epoch of 3 steps
                raise KeyboardInterrupt

    interrupted = trainer(model, tmp_path / "cut", **settings)
    interrupted.add_callback(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    # A newer checkpoint that was being written when the process died.
    partial = tmp_path / "cut" / "checkpoint-6"
    partial.mkdir()
    (partial / "trainer_state.json").write_text(json.dumps({})[:1])
    resumed = tiny_llama()
    tested = trainer(resumed, tmp_path / "cut", **settings)
    tested.train(resume_from_checkpoint=True)
    assert tested.state.global_step == 9
    for name, weight in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight), name


def test_the_cache_is_found_again_and_belongs_to_one_model(tiny_llama: Build, tmp_path: Path) -> None:
    settings = {"precompute_ref_log_probs": True, "reference_cache_dir": str(tmp_path / "cache")}
    for seed, files in ((0, 1), (0, 1), (1, 2)):
        trainer(tiny_llama(seed), tmp_path, **settings)
        assert len(list((tmp_path / "cache").iterdir())) == files


def test_a_cache_that_was_interrupted_is_filled_up(
    tiny_llama: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[int] = []

    def counted(model: Any, input_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(len(input_ids))
        return causal_log_probs(model, input_ids, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("implicit_prm.reference.causal_log_probs", counted)
        with pytest.raises(KeyboardInterrupt):
            trainer(tiny_llama(), tmp_path, precompute_ref_log_probs=True)
    tested = trainer(tiny_llama(), tmp_path, precompute_ref_log_probs=True)
    assert scored == [8, 8]  # of the 24 rows
    (file,) = (tmp_path / "reference").iterdir()
    values = np.load(file)
    assert values.shape == (sum(len(row["completion_ids"]) for row in ROWS),)
    assert np.isfinite(values).all()
    batch = tested.train_dataset.batch(range(len(ROWS)))  # type: ignore[union-attr]
    assert loss_of(tested) == pytest.approx(math.log(2), rel=1e-5)
    assert batch["ref_log_probs"].shape == batch["input_ids"].shape
