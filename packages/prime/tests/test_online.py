from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from implicit_prime.config import PrimeConfig
from implicit_prime.core import pair_accuracy
from implicit_prime.errors import PrimeError, PrimeWarning
from implicit_prime.online import OnlinePRM
from implicit_prime.responses import PromptGroup, Responses
from implicit_prm import ImplicitPRM

GENERATOR = np.random.default_rng(0)
Make = Callable[..., OnlinePRM]


def responses(prompts: int, of_each: int = 4, separable: bool = True) -> Responses:
    """Right is what begins with an even token; the first two of every prompt are one of each kind."""
    groups = []
    for number in range(prompts):
        lengths = GENERATOR.integers(1, 7, of_each)
        ids = [tuple(GENERATOR.integers(3, 40, length).tolist()) for length in lengths]
        ids[0], ids[1] = (4, *ids[0][1:]), (5, *ids[1][1:])
        outcomes = [float(one[0] % 2 == 0) for one in ids] if separable else GENERATOR.random(of_each)
        prompt = tuple(GENERATOR.integers(3, 40, GENERATOR.integers(1, 5)).tolist())
        log_probs = [GENERATOR.normal(-3, 1, len(one)).astype(np.float32) for one in ids]
        groups.append(PromptGroup(number, prompt, ids, log_probs, [False] * of_each, np.array(outcomes)))
    return Responses.from_groups(groups)


BATCH, OTHERS = responses(4), responses(3, separable=False)


@pytest.fixture(scope="module")
def make(
    tiny_llama: Callable[..., LlamaForCausalLM], words: PreTrainedTokenizerFast
) -> Callable[..., OnlinePRM]:
    def build(trained: bool = False, **settings: Any) -> OnlinePRM:
        """A PRM that equals its reference, or with `trained` does not."""
        defaults = {"beta": 0.5, "prm_learning_rate": 3e-3, "micro_batch_size": 3, "use_cpu": True}
        args = PrimeConfig(output_dir="unused", **defaults | settings)
        model, reference = tiny_llama(seed=1 if trained else 0), tiny_llama(seed=0)
        return OnlinePRM(ImplicitPRM(model, words, reference, args.beta), args, Accelerator(cpu=True))

    return build


def rewards_of(prm: OnlinePRM, batch: Responses, reference: Any = None) -> Tensor:
    """beta log(p/p_ref) of the responses one by one from the models' logits."""
    found = torch.zeros(batch.mask.shape)
    for row in range(len(batch)):
        tokens = batch.input_ids[row][batch.attention_mask[row]][None]
        length = int(batch.mask[row].sum())
        for sign, model in ((1, prm.prm.model), (-1, reference or prm.prm.ref_model)):
            with torch.no_grad():
                logps = model(tokens).logits[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
            found[row, :length] += sign * prm.args.beta * logps[-length:]
    return found


def spy(prm: OnlinePRM, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    for name in ("score", "update"):
        original = getattr(prm, name)

        def noted(*args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
            calls.append(_name)
            return _original(*args, **kwargs)

        monkeypatch.setattr(prm, name, noted)
    return calls


def weights(prm: OnlinePRM) -> list[Tensor]:
    return [weight.detach().clone() for weight in prm.prm.model.parameters()]


def test_scores_are_beta_log_ratios_token_by_token(make: Make) -> None:
    prm = make(trained=True)
    torch.testing.assert_close(prm.score(BATCH), rewards_of(prm, BATCH), atol=2e-5, rtol=1e-4)


def test_a_prm_that_equals_its_reference_gives_no_rewards(make: Make) -> None:
    assert make().score(BATCH).abs().max() == 0


def test_with_the_policy_as_reference_its_own_log_probs_are_taken(make: Make) -> None:
    prm = make(trained=True, ref="policy")
    sft = make(trained=True)
    ratio = sft.score(BATCH) / 0.5 + sft.with_reference(BATCH).ref_log_probs  # type: ignore[operator]
    torch.testing.assert_close(prm.score(BATCH), 0.5 * (ratio - BATCH.log_probs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"prm_update": "after"}, ["update"]),
        ({"prm_update": "after", "mini_batch_size": 4}, ["update", "score"]),
        ({"prm_update": "before"}, ["update", "score"]),
        ({"prm_update": "none"}, ["score"]),
        ({"score_pass": "fused"}, ["update"]),
    ],
)
def test_the_order_is_that_of_the_settings(
    make: Make, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], expected: list[str]
) -> None:
    prm = make(**settings)
    calls = spy(prm, monkeypatch)
    prm.step(BATCH)
    assert calls == expected


def test_after_scores_with_the_old_weights_and_before_with_the_new(make: Make) -> None:
    after, before = make(trained=True), make(trained=True, prm_update="before")
    old = after.score(BATCH)
    one, two = after.step(BATCH), before.step(BATCH)
    torch.testing.assert_close(one.process, old, atol=1e-5, rtol=1e-4)
    assert torch.equal(two.process, before.score(BATCH))
    assert torch.equal(two.process, after.score(BATCH))
    # What is logged of the PRM is what it said before it was trained on these responses.
    assert two.metrics["prm/accuracy"] == one.metrics["prm/accuracy"]
    assert one.accuracy == pair_accuracy(old.sum(1), BATCH.outcomes, BATCH.groups)


@pytest.mark.parametrize("size", [4, 8, 256])
@pytest.mark.parametrize("settings", [{}, {"prm_train_on": "all", "prm_replay_steps": 2}])
def test_whatever_the_mini_batches_are_separate_scores_are_those_of_the_old_weights(
    make: Make, size: int, settings: dict[str, Any]
) -> None:
    """Those of the first mini-batch come from its own pass, before which nothing has moved."""
    prm = make(trained=True, mini_batch_size=size, prm_epochs=2, **settings)
    for batch, others in ((BATCH, OTHERS), (OTHERS, BATCH)):
        old = prm.score(batch)
        torch.testing.assert_close(prm.step(batch, others).process, old, atol=1e-5, rtol=1e-4)


def test_fused_equals_separate_with_one_mini_batch_and_not_with_several(make: Make) -> None:
    for size, same in ((256, True), (4, False)):
        separate, fused = (
            make(trained=True, score_pass=kind, mini_batch_size=size) for kind in ("separate", "fused")
        )
        one, two = separate.step(BATCH), fused.step(BATCH)
        assert torch.allclose(one.process, two.process, atol=1e-5) is same
        # The same training in both, but for what other batches round.
        for weight, other in zip(weights(separate), weights(fused), strict=True):
            torch.testing.assert_close(weight, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("loss", ["ce", "ce_loo", "dpo", "nca"])
def test_a_separable_batch_is_learned_by_every_loss(make: Make, loss: str) -> None:
    prm = make(prm_loss=loss, prm_epochs=6, micro_batch_size=8)
    first = prm.step(BATCH)
    assert pair_accuracy(prm.score(BATCH).sum(1), BATCH.outcomes, BATCH.groups) == 1.0
    assert prm.step(BATCH).metrics["prm/loss"] < first.metrics["prm/loss"]


@pytest.mark.parametrize("loss", ["ce", "ce_loo", "nca"])
def test_the_gradient_does_not_depend_on_the_micro_batches(make: Make, loss: str) -> None:
    one, two = (make(trained=True, prm_loss=loss, micro_batch_size=size) for size in (3, 64))
    norms = [prm.step(BATCH).metrics["prm/grad_norm"] for prm in (one, two)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert norms[0] > 0


def test_others_are_trained_on_only_when_asked(make: Make) -> None:
    for kind, expected in (("filtered", len(BATCH)), ("all", len(BATCH) + len(OTHERS))):
        step = make(prm_train_on=kind).step(BATCH, OTHERS)
        assert step.metrics["prm/responses"] == expected
        assert step.process.shape == BATCH.mask.shape


def test_the_replay_holds_so_many_past_steps(make: Make) -> None:
    prm = make(prm_replay_steps=2)
    counts = [prm.step(batch).metrics["prm/responses"] for batch in (BATCH, OTHERS, BATCH, BATCH)]
    assert counts == [16, 28, 44, 44]


def test_a_frozen_prm_does_not_change_and_refuses_to(make: Make) -> None:
    prm = make(trained=True, prm_update="none")
    before = weights(prm)
    prm.step(BATCH)
    assert all(torch.equal(one, two) for one, two in zip(before, weights(prm), strict=True))
    with pytest.raises(PrimeError, match="frozen"):
        prm.update(BATCH)


def test_without_a_pair_nothing_moves(make: Make) -> None:
    """AdamW with momentum from a step before would otherwise go on."""
    prm = make(prm_loss="dpo")
    prm.step(BATCH)
    before = weights(prm)
    prm.step(replace(BATCH, outcomes=torch.ones(len(BATCH))))
    assert all(torch.equal(one, two) for one, two in zip(before, weights(prm), strict=True))


def test_a_gradient_that_is_no_number_is_skipped(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    prm = make(trained=True)
    before = weights(prm)
    assert prm.learner is not None
    original = prm.learner.backward
    monkeypatch.setattr(prm.learner, "backward", lambda loss: original(loss * float("nan")))
    assert prm.step(BATCH).metrics["prm/skipped"] == 1
    assert all(torch.equal(one, two) for one, two in zip(before, weights(prm), strict=True))


def test_rewards_that_are_no_numbers_are_told(make: Make) -> None:
    prm = make()
    with torch.no_grad():
        prm.prm.model.lm_head.weight[0] = float("nan")
    with pytest.raises(PrimeError, match="not finite"):
        prm.step(BATCH)


def test_anti_correlated_rewards_are_warned_of_after_ten_steps(make: Make) -> None:
    prm = make(trained=True, prm_update="none")
    rewards = prm.score(BATCH).sum(1)
    # The opposite of what the PRM says.
    inverted = replace(BATCH, outcomes=(rewards < rewards.median()).float())
    for _ in range(9):
        prm.step(inverted)
    with pytest.warns(PrimeWarning, match="anti-correlated"):
        prm.step(inverted)


def test_a_resumed_prm_goes_on_bit_for_bit(make: Make) -> None:
    whole, resumed = (make(prm_replay_steps=3, prm_epochs=2, mini_batch_size=8) for _ in range(2))
    whole.step(BATCH)
    assert whole.learner is not None
    assert resumed.learner is not None
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    resumed.prm.model.load_state_dict(whole.prm.model.state_dict())
    resumed.learner.optimizer.load_state_dict(copy.deepcopy(whole.learner.optimizer.state_dict()))
    one, two = whole.step(OTHERS), resumed.step(OTHERS)
    assert torch.equal(one.process, two.process)
    assert one.metrics == two.metrics
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


def test_a_prm_that_goes_back_forgets_what_came_after(make: Make) -> None:
    prm = make(prm_replay_steps=3)
    prm.step(BATCH)
    before = copy.deepcopy(prm.state_dict())
    prm.step(OTHERS)
    prm.load_state_dict(before)
    assert prm.state_dict()["accuracies"] == before["accuracies"]
    assert prm.step(BATCH).metrics["prm/responses"] == 2 * len(BATCH)


def test_a_prm_without_a_reference_is_refused(
    tiny_llama: Callable[..., LlamaForCausalLM], words: PreTrainedTokenizerFast
) -> None:
    args = PrimeConfig(output_dir="unused", use_cpu=True)
    with pytest.raises(PrimeError, match="ref='policy'"):
        OnlinePRM(ImplicitPRM(tiny_llama(), words), args, Accelerator(cpu=True))
