"""Training: repeatable, resumable bit for bit, and the same blocks in the same order for everyone."""

import math

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from lmlab.batching import permutation
from lmlab.models import build_model
from lmlab.schedule import learning_rate_factor
from lmlab.trainer import save_given
from lmlab.training import CheckpointError, NonFiniteLossError, TrainingConfig, train

SETTINGS = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "attention_dropout": 0.1,  # so that a lost random state would show
}
CONFIG = TrainingConfig(
    max_steps=10, batch_size=4, learning_rate=1e-2, warmup_steps=2, eval_every=4, checkpoint_every=3
)


NO_CHECKPOINTS = CONFIG.model_copy(update={"checkpoint_every": 0})


@pytest.fixture(scope="module")
def blocks() -> torch.Tensor:
    return torch.randint(0, 64, (22, 16), generator=torch.Generator().manual_seed(0))


def without_time(curve):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in curve]


def equal_weights(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def interrupted_at(step):
    def on_step(done):
        if done == step:
            raise KeyboardInterrupt

    return on_step


@pytest.mark.slow
@pytest.mark.parametrize("stop", [4, 7])
@pytest.mark.parametrize("tied", [False, True])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, blocks, stop, tied):
    settings = {**SETTINGS, "tie_word_embeddings": tied}
    whole = build_model(settings, seed=1)
    expected = train(whole, blocks, NO_CHECKPOINTS, valid_data=blocks[:5])

    broken = build_model(settings, seed=1)
    with pytest.raises(KeyboardInterrupt):
        train(broken, blocks, CONFIG, valid_data=blocks[:5], directory=tmp_path, on_step=interrupted_at(stop))
    steps = []
    fresh = build_model(settings, seed=99)
    torch.manual_seed(12345)
    got = train(fresh, blocks, CONFIG, valid_data=blocks[:5], directory=tmp_path, on_step=steps.append)

    assert steps == list(range(stop // 3 * 3 + 1, 11))
    assert equal_weights(whole, fresh)
    assert without_time(got.curve) == without_time(expected.curve)
    assert [entry["step"] for entry in got.curve] == [4, 8, 10]


@pytest.mark.slow
def test_evaluation_does_not_disturb_training(blocks):
    often, never = build_model(SETTINGS, 1), build_model(SETTINGS, 1)
    train(
        often, blocks, CONFIG.model_copy(update={"eval_every": 1, "checkpoint_every": 0}), valid_data=blocks
    )
    train(never, blocks, CONFIG.model_copy(update={"eval_every": 0, "checkpoint_every": 0}))
    assert equal_weights(often, never)


def test_accumulation_and_batch_size_are_of_the_whole_step(blocks):
    settings = {**SETTINGS, "attention_dropout": 0.0}
    one, two = build_model(settings, 1), build_model(settings, 1)
    a = train(one, blocks, NO_CHECKPOINTS)
    b = train(two, blocks, NO_CHECKPOINTS.model_copy(update={"gradient_accumulation_steps": 2}))
    for x, y in zip(a.curve, b.curve, strict=True):
        assert x["loss"] == pytest.approx(y["loss"], rel=1e-5)
        assert x["grad_norm"] == pytest.approx(y["grad_norm"], rel=1e-4)
        assert x["tokens"] == y["tokens"] == x["step"] * 4 * 16


def test_the_curve_is_the_bare_loop_written_out(blocks):
    """The same numbers from a plain PyTorch loop: block order, groups, schedule, clipping, mean loss."""
    settings = {**SETTINGS, "attention_dropout": 0.0}
    config = CONFIG.model_copy(update={"checkpoint_every": 0, "eval_every": 5, "weight_decay": 0.3})
    curve = train(build_model(settings, 1), blocks, config).curve

    model = build_model(settings, 1)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    schedule = get_cosine_schedule_with_warmup(optimizer, 2, 10)
    order = [index for epoch in range(2) for index in permutation(22, 0, epoch)]
    losses = []
    for step in range(10):
        batch = blocks[order[4 * step : 4 * step + 4]]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step in (4, 9):
            entry = curve[step // 5]
            assert entry["loss"] == pytest.approx(sum(losses) / 5, rel=1e-5)
            assert entry["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
            losses = []


def test_two_models_see_the_same_batches(blocks):
    def batches(settings, config):
        model, seen = build_model(settings, 1), []
        model.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["input_ids"].clone()), with_kwargs=True
        )
        train(model, blocks, config)
        return torch.cat(seen)

    llama = batches(SETTINGS, NO_CHECKPOINTS)
    gpt2 = {
        "model_type": "gpt2",
        "vocab_size": 64,
        "n_embd": 16,
        "n_layer": 1,
        "n_head": 2,
        "n_positions": 16,
    }
    assert torch.equal(
        llama, batches(gpt2, NO_CHECKPOINTS.model_copy(update={"seed": 7, "learning_rate": 1e-3}))
    )
    assert not torch.equal(llama, batches(SETTINGS, NO_CHECKPOINTS.model_copy(update={"data_seed": 1})))
    # 22 blocks and 40 places: each block once before any comes again.
    assert sorted(map(tuple, llama[:22].tolist())) == sorted(map(tuple, blocks.tolist()))
    assert torch.equal(llama[:22], blocks[permutation(22, 0, 0)])
    assert torch.equal(llama[22:], blocks[permutation(22, 0, 1)][:18])


def test_half_written_checkpoint_is_not_used(tmp_path, blocks, monkeypatch):
    """The disk fills up while the second checkpoint is written: the first one is continued."""
    real, calls = torch.save, []

    def save(value, path, *args, **kwargs):
        calls.append(path)
        if len(calls) == 6:  # four files a checkpoint: weights, optimizer, schedule, random state
            raise OSError("No space left on device")
        return real(value, path, *args, **kwargs)

    whole = build_model(SETTINGS, 1)
    train(whole, blocks, NO_CHECKPOINTS)
    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match="No space"):
        train(build_model(SETTINGS, 1), blocks, CONFIG, directory=tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "unfinished" / "checkpoint-6").is_dir()
    (tmp_path / "checkpoint-9").mkdir()  # what an in-place writer would have left behind
    steps = []
    fresh = build_model(SETTINGS, 5)
    train(fresh, blocks, CONFIG, directory=tmp_path, on_step=steps.append)
    assert steps[0] == 4
    assert equal_weights(whole, fresh)


def test_checkpoint_of_another_run_is_refused_by_the_key_that_differs(tmp_path, blocks):
    with pytest.raises(KeyboardInterrupt):
        train(build_model(SETTINGS, 1), blocks, CONFIG, directory=tmp_path, on_step=interrupted_at(4))
    other = CONFIG.model_copy(update={"learning_rate": 3e-3})
    with pytest.raises(CheckpointError, match=r"learning_rate was 0\.01, is 0\.003"):
        train(build_model(SETTINGS, 1), blocks, other, directory=tmp_path)
    with pytest.raises(CheckpointError, match="blocks was 22, is 20"):
        train(build_model(SETTINGS, 1), blocks[:20], CONFIG, directory=tmp_path)
    deeper = build_model({**SETTINGS, "num_hidden_layers": 3}, 1)
    with pytest.raises(CheckpointError, match=r"another model.*model\.layers\.2"):
        train(deeper, blocks, CONFIG, directory=tmp_path)
    steps = []
    train(build_model(SETTINGS, 1), blocks, other, directory=tmp_path, resume=False, on_step=steps.append)
    assert steps[0] == 1


@pytest.mark.parametrize("stop", [2, 4])
def test_a_run_begun_anew_leaves_nothing_of_the_one_before(tmp_path, blocks, stop):
    """Interrupted, before or after its first checkpoint, it never goes on from the earlier run's weights."""
    with pytest.raises(KeyboardInterrupt):
        train(build_model(SETTINGS, 1), blocks, CONFIG, directory=tmp_path, on_step=interrupted_at(10))
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "checkpoint-of-mine").mkdir()
    model = build_model(SETTINGS, 2)
    with pytest.raises(KeyboardInterrupt):
        train(model, blocks, CONFIG, directory=tmp_path, resume=False, on_step=interrupted_at(stop))
    kept = ["checkpoint-3"] if stop == 4 else []
    assert sorted(path.name for path in tmp_path.iterdir()) == [*kept, "checkpoint-of-mine"]
    steps = []
    train(build_model(SETTINGS, 2), blocks, CONFIG, directory=tmp_path, on_step=steps.append)
    assert steps[0] == (4 if stop == 4 else 1)


def test_divergence_stops_with_step_rate_norm_and_last_checkpoint(tmp_path, blocks):
    model = build_model(SETTINGS, 1)

    def poison(step):
        if step == 4:
            with torch.no_grad():
                model.lm_head.weight[0, 0] = math.inf

    with pytest.raises(NonFiniteLossError, match="diverged at step 5") as caught:
        train(model, blocks, CONFIG, directory=tmp_path, on_step=poison)
    error = caught.value
    assert (error.step, error.checkpoint) == (5, tmp_path / "checkpoint-3")
    assert not math.isfinite(error.loss)
    # Step 5 is the third after the warm-up of 2 out of 10: cosine at 2/8.
    assert error.learning_rate == pytest.approx(1e-2 * 0.5 * (1 + math.cos(math.pi * 2 / 8)))


def test_optimizer_groups_keep_their_own_rates(blocks):
    model = build_model(SETTINGS, 1)
    head = model.lm_head.weight.detach().clone()
    embedding = model.model.embed_tokens.weight.detach().clone()

    def groups(m):
        return [
            {"params": list(m.model.parameters()), "lr": 0.0, "weight_decay": 0.0},
            {"params": list(m.lm_head.parameters())},
        ]

    train(model, blocks, NO_CHECKPOINTS, optimizer_groups=groups)
    assert torch.equal(model.model.embed_tokens.weight, embedding)
    assert not torch.equal(model.lm_head.weight, head)


def test_bf16_and_progress(blocks):
    seen = []
    result = train(
        build_model(SETTINGS, 1),
        blocks,
        CONFIG.model_copy(update={"precision": "bf16", "checkpoint_every": 0}),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(step, 10) for step in range(1, 11)]
    exact = train(build_model(SETTINGS, 1), blocks, NO_CHECKPOINTS)
    assert result.curve[-1]["loss"] != exact.curve[-1]["loss"]
    assert result.curve[-1]["loss"] == pytest.approx(exact.curve[-1]["loss"], rel=0.02)
    assert result.tokens_per_second == pytest.approx(640 / result.seconds)


def test_training_is_silent(blocks, capfd):
    train(build_model(SETTINGS, 1), blocks, NO_CHECKPOINTS, valid_data=blocks)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rte": 1}, "learning_rte"),
        ({"schedule": "step"}, "schedule"),
        ({"max_steps": 0}, "max_steps"),
        ({"batch_size": 4, "gradient_accumulation_steps": 3}, "batch_size 4 is not a multiple"),
        ({"betas": (0.9, 1.0)}, "betas"),
    ],
)
def test_impossible_configs_name_the_key(changes, message):
    with pytest.raises(ValidationError, match=message):
        TrainingConfig(**{**CONFIG.model_dump(), **changes})


def test_errors_before_the_first_step(blocks):
    with pytest.raises(ValueError, match="checkpoint_every needs a directory"):
        train(build_model(SETTINGS, 1), blocks, CONFIG)
    with pytest.raises(ValueError, match="not a single block"):
        train(build_model(SETTINGS, 1), blocks[:0], CONFIG, directory="unused")


class Plugin(HfQuantizer):
    """A quantiser as LPA's: it changes modules and leaves the weights to transformers."""

    requires_calibration = False
    is_trainable = True

    def is_serializable(self):
        return True


@pytest.mark.parametrize("plugged", [False, True])
def test_the_weights_that_are_saved_are_those_that_were_gathered(plugged, tmp_path):
    model = build_model(SETTINGS, 1)
    if plugged:
        model.hf_quantizer = Plugin(QuantizationConfigMixin("none"))
    gathered = {name: 2 * weight for name, weight in model.state_dict().items()}
    save_given(model, str(tmp_path), dict(gathered))
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == gathered.keys()
    assert all(weight.equal(gathered[name]) for name, weight in saved.items())
    if plugged:  # and the next one who saves the model gets its own
        model.save_pretrained(tmp_path)
        assert load_file(tmp_path / "model.safetensors")["lm_head.weight"].equal(model.lm_head.weight)


@pytest.mark.parametrize("peer", ["cosine", "linear"])
def test_schedule_is_that_of_transformers_and_ends_at_the_minimum(peer):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    make = get_cosine_schedule_with_warmup if peer == "cosine" else get_linear_schedule_with_warmup
    theirs = make(optimizer, 5, 40)
    ours = learning_rate_factor(peer, 40, 5, 0.0)
    for step in range(40):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()
    assert learning_rate_factor(peer, 40, 5, 0.1)(40) == pytest.approx(0.1)
    assert learning_rate_factor("constant", 40, 5, 0.1)(39) == 1.0
