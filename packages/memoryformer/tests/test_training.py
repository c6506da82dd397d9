"""What decays, how the learning rate goes, and when the guard calls training divergent."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memoryformer.errors import MemoryFormerError, MemoryFormerWarning
from memoryformer.layers import MemoryBlock
from memoryformer.training import GradientGuard, cosine_schedule, param_groups, trainer_callback


class NextByte(nn.Module):
    """Four bytes of context, two residual memory blocks, a tied or untied head."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 8)
        self.blocks = nn.ModuleList(MemoryBlock(32, tau=4) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(2))
        self.head = nn.Linear(32, 64)
        if tied:
            self.head = nn.Linear(8, 64, bias=False)
            self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids).flatten(-2)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x))
        return self.head(x)


SOURCE = torch.tensor(list(Path(torch.__file__).read_bytes())) % 64  # real bytes that every machine has


def train(lr: float, steps: int, guard: GradientGuard) -> list[float]:
    torch.manual_seed(0)
    model, losses = NextByte(), []
    optimizer = torch.optim.AdamW(param_groups(model), lr=lr, betas=(0.9, 0.95))
    schedule = cosine_schedule(optimizer, steps)
    for _ in range(steps):
        at = torch.randint(len(SOURCE) - 5, (256, 1))
        window = SOURCE[at + torch.arange(5)]
        loss = F.cross_entropy(model(window[:, :4]), window[:, 4])
        optimizer.zero_grad()
        loss.backward()
        if guard(nn.utils.clip_grad_norm_(model.parameters(), 1.0), schedule.get_last_lr()[0]):
            optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def test_tables_and_matrices_decay_biases_and_norms_do_not():
    model = NextByte()
    decay, rest = param_groups(model, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in decay["params"]} == {
        "embedding.weight",
        "head.weight",
        *(f"blocks.{b}.layer{n}.tables" for b in (0, 1) for n in (1, 2)),
    }
    assert all(
        names[id(p)].endswith(("bias", "norm.weight", "norms.0.weight", "norms.1.weight"))
        for p in rest["params"]
    )
    assert len(decay["params"]) + len(rest["params"]) == len(names)
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)


def test_an_untouched_row_shrinks_by_decay_alone_and_a_bias_does_not():
    model = NextByte()
    optimizer = torch.optim.AdamW(param_groups(model, weight_decay=0.1), lr=0.5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 1 - 0.5 * 0.1 if parameter.dim() > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), factor * before[name])


def test_shared_parameters_are_in_one_group_and_frozen_ones_in_none():
    model = NextByte(tied=True)
    model.blocks[0].requires_grad_(False)
    groups = param_groups(model)
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(ids) == len(set(ids))
    assert ids.count(id(model.embedding.weight)) == 1
    assert not {id(parameter) for parameter in model.blocks[0].parameters()} & set(ids)


def test_empty_groups_are_left_out():
    assert [group["name"] for group in param_groups(nn.Linear(3, 3, bias=False))] == ["decay"]


def test_the_schedule_rises_for_one_percent_and_falls_to_one_percent():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=3e-3)
    schedule = cosine_schedule(optimizer, 1000)
    rates = []
    for _ in range(1000):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(3e-4)
    assert rates[9] == rates[10] == max(rates) == 3e-3
    assert rates[505] == pytest.approx(3e-3 * (0.01 + 0.99 * (1 + math.cos(math.pi * 495 / 989)) / 2))
    assert rates[-1] == pytest.approx(3e-5)
    assert schedule.get_last_lr()[0] == pytest.approx(3e-5)  # and stays there


# The guard


def test_training_at_a_sane_rate_never_alarms_and_at_an_insane_one_soon_does():
    losses = train(1e-2, 100, GradientGuard())
    assert sum(losses[-10:]) / 10 < losses[0] - 1
    with pytest.raises(MemoryFormerError, match=r"training diverges.*Table 4.*3e-3"):
        train(10.0, 100, GradientGuard())


def test_one_high_norm_is_forgotten_and_five_in_a_row_are_not():
    guard = GradientGuard(factor=10, patience=5)
    for norm in [1.0] * 20 + [50.0] * 4 + [1.0] + [11.0] * 4:
        assert guard(norm)
    with pytest.raises(MemoryFormerError, match=r"is 11, usually 1, in step 30 at a learning rate of 0.003"):
        guard(11.0, lr=3e-3)


def test_norms_may_grow_slowly_without_end():
    guard = GradientGuard(window=10)
    assert all(guard(1.05**step) for step in range(300))


@pytest.mark.parametrize("norm", [float("nan"), float("inf")])
def test_a_norm_that_is_not_finite_is_divergence_at_once(norm):
    guard = GradientGuard()
    guard(100.0)
    guard(5000.0)  # high, and not yet told
    with pytest.raises(MemoryFormerError, match="training diverges"):
        guard(torch.tensor(norm))


def test_with_warnings_a_bad_step_is_skipped_and_told_once_each_time_it_begins():
    guard = GradientGuard(action="warn")
    bad = float("nan")
    with pytest.warns(MemoryFormerWarning) as told:
        steps = [guard(norm) for norm in (1.0, bad, bad, 1.0, bad)]
    assert steps == [True, False, False, True, False]
    assert len(told) == 2


def test_the_trainer_shows_the_guard_the_norms_that_it_logs():
    pytest.importorskip("transformers")
    callback = trainer_callback(GradientGuard(patience=1))
    callback.on_log(None, None, None, logs={"loss": 3.0})
    callback.on_log(None, None, None, logs={"grad_norm": 1.0, "learning_rate": 0.1})
    with pytest.raises(MemoryFormerError, match=r"in step 2 at a learning rate of 0\.1"):
        callback.on_log(None, None, None, logs={"grad_norm": 99.0, "learning_rate": 0.1})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: param_groups(NextByte(), -1), "weight_decay is -1; it must be 0 or more"),
        (lambda: param_groups(nn.ReLU()), "ReLU has no parameter to train"),
        (lambda: cosine_schedule(None, 0), "steps must be at least 1"),
        (lambda: GradientGuard(factor=1.0), "factor must be above 1"),
        (lambda: GradientGuard(action="stop"), "action is 'stop'; it may be 'raise' or 'warn'"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(MemoryFormerError, match=message):
        call()
