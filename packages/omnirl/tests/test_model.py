"""What the model sees and remembers, for every layout and every mixer that runs on a CPU."""

import json
import math
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor

from omnirl.errors import OmniRLError
from omnirl.model.config import OmniRLConfig
from omnirl.model.embeddings import reward_features
from omnirl.model.layouts import parse_layout
from omnirl.model.losses import context_weights, policy_loss, policy_weight, world_losses
from omnirl.model.memory import detach, fork, join, select_rows
from omnirl.model.modeling import OmniRL, OmniRLOutput

STATES, ACTIONS = 7, 3
KINDS = [
    ("fused", "attention"),
    ("star", "attention"),
    ("fused", "gated_deltanet"),
    ("star", "gated_deltanet"),
]


def make(layout: str, mixer: str = "attention", **settings: object) -> OmniRL:
    torch.manual_seed(1)
    config = OmniRLConfig(STATES, ACTIONS, 16, 2, 2, layout=layout, mixer=mixer, **settings)  # type: ignore[arg-type]
    return OmniRL(config).eval()


@pytest.fixture(scope="module")
def models() -> dict[tuple[str, str], OmniRL]:
    return {kind: make(*kind) for kind in KINDS}


@pytest.fixture(params=KINDS, ids="-".join)
def model(request: pytest.FixtureRequest, models: dict[tuple[str, str], OmniRL]) -> OmniRL:
    return models[request.param]


def history(batch: int, length: int, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    ids = [torch.randint(limit, (batch, length), generator=draw) for limit in (STATES, 8, ACTIONS + 1)]
    return [*ids, torch.randn(batch, length, generator=draw)]


def parts(steps: list[Tensor], *cuts: int) -> list[list[Tensor]]:
    return [
        [array[:, low:high] for array in steps] for low, high in zip((0, *cuts), (*cuts, None), strict=True)
    ]


def step_by_step(model: OmniRL, steps: list[Tensor], memory: object = None) -> list[OmniRLOutput]:
    outputs = []
    for t in range(steps[0].shape[1]):
        outputs.append(model.step(*(array[:, t] for array in steps), memory=memory))  # type: ignore[arg-type]
        memory = outputs[-1].memory
    return outputs


@pytest.mark.parametrize("changed", range(4), ids=["observation", "tag", "action", "reward"])
def test_what_happens_at_a_step_changes_nothing_before_it_bit_for_bit(model: OmniRL, changed: int) -> None:
    steps = history(2, 70)
    before = model(*steps).policy_logits
    other = [array.clone() for array in steps]
    other[changed][:, 40] = 1 if steps[changed][0, 40] != 1 else 2
    other[changed][1, 40] = 1 if steps[changed][1, 40] != 1 else 2
    after = model(*other).policy_logits
    blind = 40 if changed == 0 else 41  # the policy of step 40 sees its state, not its tag, action or reward
    assert torch.equal(before[:, :blind], after[:, :blind])
    assert (before[:, blind:] != after[:, blind:]).any()


@pytest.mark.parametrize("length", [96, pytest.param(512, marks=pytest.mark.long)])
def test_step_by_step_equals_the_whole_history(model: OmniRL, length: int) -> None:
    steps = history(2, length)
    whole = model(*steps)
    single = step_by_step(model, steps)
    logits = torch.stack([output.policy_logits for output in single], dim=1)
    torch.testing.assert_close(logits, whole.policy_logits, atol=1e-4, rtol=0)
    if whole.reward is not None:
        reward = torch.stack([output.reward for output in single], dim=1)
        states = torch.stack([output.next_state_logits for output in single], dim=1)
        torch.testing.assert_close(reward, whole.reward, atol=1e-4, rtol=0)
        torch.testing.assert_close(states, whole.next_state_logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("cuts", [(64, 128, 192), (128,), (1, 2, 250)])
def test_segments_with_carried_memory_give_the_same_logits_and_gradients(
    model: OmniRL, cuts: tuple[int, ...]
) -> None:
    steps = history(2, 256)
    weights = torch.randn(2, 256, ACTIONS, generator=torch.Generator().manual_seed(5))

    def gradients(loss: Tensor) -> list[Tensor]:
        used = [
            parameter for name, parameter in model.named_parameters() if not name.startswith(("state", "rew"))
        ]
        return list(torch.autograd.grad(loss, used))

    whole = model(*steps).policy_logits
    memory, pieces = None, []
    for segment in parts(steps, *cuts):
        output = model(*segment, memory=memory)
        memory, pieces = output.memory, [*pieces, output.policy_logits]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-4, rtol=0)
    for one, other in zip(
        gradients((whole * weights).sum()), gradients((torch.cat(pieces, 1) * weights).sum()), strict=True
    ):
        assert (one - other).norm() <= 1e-5 * one.norm() + 1e-6


def test_a_detached_memory_has_the_numbers_and_no_gradient(model: OmniRL) -> None:
    memory = model(*history(2, 5)).memory
    cut = detach(memory)
    key = next(iter(memory["layers"][0]))
    assert memory["layers"][0][key].requires_grad
    assert not cut["layers"][0][key].requires_grad
    assert torch.equal(memory["layers"][0][key], cut["layers"][0][key])


def test_histories_of_one_batch_do_not_touch_each_other(model: OmniRL) -> None:
    steps = history(3, 40)
    together = model(*steps).policy_logits
    for row in range(3):
        alone = model(*(array[row : row + 1] for array in steps)).policy_logits
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)


def test_asking_the_policy_leaves_the_memory_as_it_was(model: OmniRL) -> None:
    steps = history(2, 30)
    memory = step_by_step(model, steps)[-1].memory
    state = torch.tensor([1, 2])
    first, _ = model.policy(state, memory)
    model.policy(state + 3, memory)
    again, waiting = model.policy(state, memory)
    assert torch.equal(first, again)
    with pytest.raises(OmniRLError, match="waits for an action"):
        model.policy(state, waiting)
    with pytest.raises(OmniRLError, match="nothing to commit"):
        model.commit(memory, state, state, state.float())


def test_a_forked_memory_goes_two_ways(model: OmniRL) -> None:
    memory = step_by_step(model, history(2, 10))[-1].memory
    left = step_by_step(model, history(2, 3, seed=1), fork(memory))[-1]
    right = step_by_step(model, history(2, 3, seed=2), fork(memory))[-1]
    assert torch.equal(
        left.policy_logits, step_by_step(model, history(2, 3, seed=1), memory)[-1].policy_logits
    )
    assert (left.policy_logits != right.policy_logits).any()


def test_an_emptied_row_begins_anew_and_the_other_goes_on(model: OmniRL) -> None:
    first, second = history(2, 20), history(2, 15, seed=1)
    memory = step_by_step(model, first)[-1].memory
    memory = model.reset_rows(memory, torch.tensor([True, False]))
    mixed = model(*second, memory=memory).policy_logits
    stepped = step_by_step(model, second, memory)[-1].policy_logits
    fresh = model(*second).policy_logits
    carried = model(*(torch.cat(pair, 1) for pair in zip(first, second, strict=True))).policy_logits[:, 20:]
    torch.testing.assert_close(mixed[0], fresh[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed[1], carried[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(stepped, mixed[:, -1], atol=1e-5, rtol=0)


def test_joined_memories_of_different_length_go_on_as_each_would(model: OmniRL) -> None:
    short, long, more = history(1, 4), history(1, 25, seed=1), history(2, 6, seed=2)
    memories = [model(*steps).memory for steps in (short, long)]
    both = model(*more, memory=join(memories)).policy_logits
    swapped = model(
        *(array.flip(0) for array in more), memory=select_rows(join(memories), [1, 0])
    ).policy_logits
    for row, memory in enumerate(memories):
        alone = model(*(array[row : row + 1] for array in more), memory=memory).policy_logits
        torch.testing.assert_close(both[row : row + 1], alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(swapped[1 - row], both[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", ["fused", "star"])
def test_a_window_forgets_what_lies_further_back(layout: str) -> None:
    model = OmniRL(OmniRLConfig(STATES, ACTIONS, 16, 1, 2, layout=layout, window=5)).eval()
    steps, other = history(1, 30), history(1, 30, seed=1)
    for one, two in zip(steps, other, strict=True):
        two[:, 20:] = one[:, 20:]
    a, b = model(*steps).policy_logits, model(*other).policy_logits
    assert torch.allclose(a[:, 26:], b[:, 26:], atol=1e-6)
    assert not torch.allclose(a[:, 22:24], b[:, 22:24], atol=1e-6)
    single = torch.stack([output.policy_logits for output in step_by_step(model, steps)], 1)
    torch.testing.assert_close(single, a, atol=1e-5, rtol=0)
    memory, pieces = None, []
    for segment in parts(steps, 12, 13):
        output = model(*segment, memory=memory)
        memory, pieces = output.memory, [*pieces, output.policy_logits]
    torch.testing.assert_close(torch.cat(pieces, 1), a, atol=1e-5, rtol=0)
    assert memory["layers"][0]["keys"].shape[2] == 5 * model.layout.size


def test_the_fused_model_counts_and_has_no_order() -> None:
    """Without positions, stretches far back may change places in a layer: only what happened counts."""
    one, two, end = history(1, 8), history(1, 8, seed=1), history(1, 4, seed=2)
    for array in (one, two):
        for key in range(4):
            array[key][:, -1] = one[key][:, -1]  # the step before the second part is the same both ways round
    forth = [torch.cat(arrays, 1) for arrays in zip(one, two, one, end, strict=True)]
    back = [torch.cat(arrays, 1) for arrays in zip(one, one, two, end, strict=True)]
    layer = OmniRL(OmniRLConfig(STATES, ACTIONS, 16, 1, 2, layout="fused")).eval()
    torch.testing.assert_close(
        layer(*forth).policy_logits[:, -1], layer(*back).policy_logits[:, -1], atol=1e-5, rtol=0
    )
    star = make("star")
    assert not torch.allclose(star(*forth).policy_logits[:, -1], star(*back).policy_logits[:, -1], atol=1e-5)


def test_states_are_hidden_in_training_only() -> None:
    model, steps = make("fused", state_dropout=0.5), history(2, 20)
    assert torch.equal(model(*steps).policy_logits, model(*steps).policy_logits)
    model.train()
    assert not torch.equal(model(*steps).policy_logits, model(*steps).policy_logits)


def test_the_policy_only_knows_real_actions_and_the_world_model_sees_the_action(
    models: dict[tuple[str, str], OmniRL],
) -> None:
    star, steps = models["star", "attention"], history(2, 10)
    output = star(*steps)
    assert output.policy_logits.shape == (2, 10, ACTIONS)
    assert output.next_state_logits.shape == (2, 10, STATES)
    other = [array.clone() for array in steps]
    other[2][:, 9] = (steps[2][:, 9] + 1) % ACTIONS
    assert (star(*other).next_state_logits[:, 9] != output.next_state_logits[:, 9]).any()
    other[3][:, 9] += 1
    blind = [*steps[:3], other[3]]
    assert torch.equal(star(*blind).reward, output.reward)
    assert models["fused", "attention"](*steps).reward is None


@pytest.mark.parametrize(
    ("name", "tokens", "policy", "world"),
    [
        ("star", "otar", 0, 2),
        ("podtaw", "pota", 1, 3),
        ("sptar", "optar", 1, None),
        ("opdtawr", "optar", 1, 3),
    ],
)
def test_the_official_letters_say_which_token_feeds_what(
    name: str, tokens: str, policy: int, world: int | None
) -> None:
    layout = parse_layout(name)
    assert (layout.tokens, layout.policy_slot, layout.world_slot) == (tokens, policy, world)
    model = make(name)
    steps = history(2, 6)
    single = torch.stack([output.policy_logits for output in step_by_step(model, steps)], 1)
    torch.testing.assert_close(single, model(*steps).policy_logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["", "tar", "oodta", "star2", "dota", "owdta", "otda"])
def test_letters_that_make_no_layout_are_refused(name: str) -> None:
    with pytest.raises(OmniRLError, match="layout"):
        parse_layout(name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hiden_size": 8}, "hidden_size"),
        ({"num_heads": 3}, "num_heads 3"),
        ({"mixer": "lstm"}, "gated_deltanet"),
        ({"dropout": 1.0}, "dropout"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"layout": "fused", "world_model": True}, "world_model"),
        ({"mixer": "gated_deltanet", "window": 5}, "window"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(OmniRLError, match=message):
        OmniRLConfig.from_dict({"num_states": 7, "num_actions": 3, "hidden_size": 16, **values})


def test_a_memory_of_another_model_or_batch_and_ids_out_of_range_are_refused(model: OmniRL) -> None:
    memory = model(*history(2, 3)).memory
    with pytest.raises(OmniRLError, match="another config"):
        make("podtaw")(*history(2, 3), memory=memory)
    with pytest.raises(OmniRLError, match="2 histories"):
        model(*history(3, 3), memory=memory)
    for key, value, name in ((0, STATES, "observations"), (1, 8, "tags"), (2, ACTIONS + 2, "actions")):
        steps = history(1, 3)
        steps[key][0, 1] = value
        with pytest.raises(OmniRLError, match=f"{name} has id {value}"):
            model(*steps)
    with pytest.raises(OmniRLError, match="differ in shape"):
        model(*(array[:, :2] if i else array for i, array in enumerate(history(1, 3))))


def test_a_saved_model_comes_back_from_its_folder(model: OmniRL, tmp_path: object) -> None:
    model.save_pretrained(tmp_path)  # type: ignore[arg-type]
    assert json.loads((tmp_path / "config.json").read_text())["layout"] == model.config.layout  # type: ignore[operator]
    again, steps = OmniRL.from_pretrained(tmp_path), history(1, 5)  # type: ignore[arg-type]
    assert not again.training
    assert torch.equal(again(*steps).policy_logits, model(*steps).policy_logits)
    (tmp_path / "model.safetensors").unlink()  # type: ignore[operator]
    with pytest.raises(OmniRLError, match=r"no model\.safetensors"):
        OmniRL.from_pretrained(tmp_path)  # type: ignore[arg-type]


def test_what_is_no_folder_is_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, asked = make("fused"), []
    saved.save_pretrained(tmp_path)

    def download(name: str, **options: object) -> str:
        asked.append((name, options))
        return str(tmp_path)

    monkeypatch.setattr("omnirl.model.modeling.snapshot_download", download)
    again = OmniRL.from_pretrained("someone/their-model", revision="v1")
    assert asked == [
        ("someone/their-model", {"allow_patterns": ["config.json", "model.safetensors"], "revision": "v1"})
    ]
    assert again.config == saved.config


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("no net"), OSError("no net")])
def test_without_a_net_a_hub_id_is_met_with_what_needs_none(
    monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def download(name: str, **options: object) -> str:
        raise error

    monkeypatch.setattr("omnirl.model.modeling.snapshot_download", download)
    with pytest.raises(
        OmniRLError, match=r"no folder 'someone/their-model'.*'omnirl/mini', which needs no net"
    ):
        OmniRL.from_pretrained("someone/their-model")


def test_reward_features_are_those_of_the_formula() -> None:
    expected = [
        [-2.0, -math.log(13), math.tanh(-36), -1.0],
        [0.0, 0.0, 0.0, 0.0],
        [0.4, math.log(3), math.tanh(6), 0],
    ]
    torch.testing.assert_close(reward_features(torch.tensor([-12.0, 0.0, 2.0])), torch.tensor(expected))


def test_context_weights_are_the_official_ones() -> None:
    weights = context_weights(0, 48_000)
    assert weights[0] == pytest.approx(1e-3)
    assert weights[511] == 1
    assert float(weights.double().sum()) == pytest.approx(47_744.256, abs=1e-2)
    assert torch.equal(context_weights(torch.tensor([0, 300]), 20)[1], weights[300:320])


def test_the_loss_counts_valid_labels_only_and_a_certain_target_is_a_label() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]]))
    labels, weights = torch.tensor([[0, -100, 3]]), torch.tensor([2.0, 1.0, 1.0])
    assert float(policy_loss(logits, labels, weights)) == pytest.approx(2 * math.log(2))
    assert float(policy_weight(labels, weights, 3)) == 2
    certain = torch.eye(3)[torch.tensor([[0, 1, 1]])]
    assert float(policy_loss(logits, labels, weights, certain)) == pytest.approx(2 * math.log(2))


def test_world_losses_leave_out_filler_steps() -> None:
    steps = {
        "observations": torch.tensor([[0, 1, 2]]),
        "actions": torch.tensor([[0, 3]]),
        "rewards": torch.tensor([[1.0, 0.0]]),
    }
    states, reward = world_losses(torch.zeros(1, 2, 4), torch.tensor([[0.5, 9.0]]), steps, num_actions=3)
    assert float(states) == pytest.approx(math.log(4))
    assert float(reward) == pytest.approx(0.25)
