"""Counts are those of a loop, their summaries have closed forms, and flips are those of a real copy."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from memoryformer.errors import MemoryFormerError
from memoryformer.layers import MemoryBlock, MemoryLayer
from memoryformer.quantization import quantize_tables_
from memoryformer.statistics import BucketMonitor, BucketStats, bucket_stats


class Stack(nn.Module):
    """Residual memory blocks over embedded bytes, [B, T] -> [B, T, 32]."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(256, 32)
        self.blocks = nn.ModuleList(MemoryBlock(32, tau=4, init_std=0.5) for _ in range(blocks))
        self.idle = nn.Linear(2, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = x + block(x)
        return x


TEXT = torch.tensor(list(Path(torch.__file__).read_bytes()[:4096])).view(32, 128)


def stats_of(*rows: list[int]) -> BucketStats:
    return BucketStats(torch.tensor(rows))


def test_counts_are_those_of_a_loop():
    model = Stack(1)
    x = model.embedding(TEXT)
    found = bucket_stats(model, TEXT)
    assert list(found) == ["blocks.0.layer1", "blocks.0.layer2"]
    expected = [Counter[int]() for _ in range(8)]
    for token in x.flatten(0, 1).tolist():
        for k, counter in enumerate(expected):
            chunk = token[4 * k : 4 * k + 4]
            counter[sum((number >= 0) << (3 - i) for i, number in enumerate(chunk))] += 1
    counts = found["blocks.0.layer1"].counts
    assert counts.tolist() == [[counter[row] for row in range(16)] for counter in expected]
    assert found["blocks.0.layer1"].tokens == TEXT.numel()
    assert found["blocks.0.layer2"].tau == 6


def test_summaries_of_uniform_single_and_half_used_tables():
    stats = stats_of([4, 4, 4, 4], [16, 0, 0, 0], [8, 8, 0, 0])
    assert stats.tau == 2
    torch.testing.assert_close(stats.entropy, torch.tensor([1.0, 0.0, 0.5]).double())
    assert stats.dead_rows.tolist() == [0, 3, 2]
    assert stats.max_share.tolist() == [0.25, 1.0, 0.5]
    # Pairs in the same row, of the 16·15 ordered pairs: 4·4·3, 16·15, 2·8·7.
    expected = torch.tensor([48 / 240, 1.0, 112 / 240]).double()
    torch.testing.assert_close(stats.collision_rate, expected)
    assert stats.summary() == {
        "entropy": pytest.approx(0.5),
        "dead_rows": pytest.approx(5 / 12),
        "max_share": 1.0,
        "collision_rate": pytest.approx((48 + 240 + 112) / 720),
    }


def test_signs_of_gaussian_numbers_use_all_rows_alike():
    layer = MemoryLayer(16, 1, 8)
    x = torch.randn(100_000, 16, generator=torch.Generator().manual_seed(0))
    found = bucket_stats(layer, x, batch_size=len(x))[""]
    # The entropy of N draws from R rows falls short by about (R - 1) / 2N nats: 0.00023 of 8 bits here.
    assert 1 - found.entropy.min() == pytest.approx(255 / 2e5 / (8 * 0.6931), rel=0.5)
    assert found.collision_rate.mean() == pytest.approx(2**-8, rel=0.01)
    assert found.dead_rows.tolist() == [0, 0]


@settings(max_examples=30, deadline=None)
@given(
    tokens=st.integers(1, 40),
    tau=st.integers(1, 5),
    chunks=st.integers(1, 3),
    batch_size=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_neither_order_nor_batches_of_tokens_matter(tokens, tau, chunks, batch_size, seed):
    generator = torch.Generator().manual_seed(seed)
    layer, x = MemoryLayer(chunks * tau, 2, tau), torch.randn(tokens, chunks * tau, generator=generator)
    found = bucket_stats(layer, x)[""]
    shuffled = bucket_stats(layer, x[torch.randperm(tokens, generator=generator)], batch_size=batch_size)[""]
    assert torch.equal(found.counts, shuffled.counts)
    assert (found.counts.sum(1) == tokens).all()
    assert (found.entropy >= 0).all()
    assert (found.entropy <= 1 + 1e-12).all()


def test_a_layer_that_sees_256_bytes_fetches_no_more_rows_than_there_are_bytes():
    found = bucket_stats(Stack(), TEXT)
    distinct = len(TEXT.unique())
    for stats in found.values():
        assert ((stats.counts > 0).sum(1) <= distinct).all()
    assert found["blocks.0.layer2"].dead_rows.float().mean() / 64 > 0.1


def test_counting_leaves_the_model_as_it_was():
    model = Stack()
    model.blocks[1].eval()
    modes = [module.training for module in model.modules()]
    bucket_stats(model, TEXT)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


# Flipped codes


def test_flips_against_bfloat16_are_those_of_a_real_copy_and_grow_with_depth():
    model = Stack()
    found = bucket_stats(model, TEXT, other=torch.bfloat16)
    half = copy.deepcopy(model).bfloat16()
    x, y = model.embedding(TEXT), half.embedding(TEXT)
    rates = []
    for b in range(3):
        ours = model.blocks[b].layer1.hash(x)[0]
        theirs = half.blocks[b].layer1.hash(y)[0]
        rates.append((ours != theirs).double().mean(dim=(0, 1)))
        torch.testing.assert_close(found[f"blocks.{b}.layer1"].flip_rate, rates[-1])
        x, y = x + model.blocks[b](x), y + half.blocks[b](y)
    assert rates[0].max() == 0  # rounding an embedding does not change its signs
    assert 0 < rates[1].mean() < rates[2].mean() < 0.1


def test_the_same_signs_are_no_flips():
    found = bucket_stats(Stack(), TEXT, other=Stack())
    assert all(stats.flip_rate.max() == 0 for stats in found.values())
    x = torch.randn(9, 32)
    assert (
        bucket_stats(MemoryBlock(32, tau=4), x, other=MemoryBlock(32, tau=4))["layer1"].flip_rate.max() == 0
    )


def test_int8_tables_flip_more_codes_with_depth_and_can_be_counted_themselves():
    model = Stack()
    int8 = quantize_tables_(Stack())
    found = bucket_stats(model, TEXT, other=int8)
    assert found["blocks.0.layer1"].flip_rate.max() == 0
    assert 0 < found["blocks.0.layer2"].flip_rate.mean() < found["blocks.2.layer2"].flip_rate.mean()
    assert torch.equal(bucket_stats(int8, TEXT)["blocks.0.layer1"].counts, found["blocks.0.layer1"].counts)
    assert "flip_rate" in found["blocks.2.layer2"].summary()


# While training


def test_a_monitor_counts_every_other_pass_in_training_and_none_in_evaluation():
    model = Stack()
    monitor = BucketMonitor(model, every=2)
    assert monitor.summary() == {}
    for batch in TEXT.split(8):  # passes 1 and 3 of 4
        model.train()
        model(batch).sum().backward()
        model.eval()
        model(batch)
    expected = bucket_stats(model, torch.cat([TEXT[:8], TEXT[16:24]]))
    found = monitor.stats()
    assert all(torch.equal(found[name].counts, expected[name].counts) for name in expected)
    assert monitor.summary()["blocks.2.layer2/entropy"] == expected["blocks.2.layer2"].summary()["entropy"]


def test_a_monitor_begins_anew_after_reset_and_sees_nothing_after_remove():
    model = Stack()
    monitor = BucketMonitor(model, every=100)
    model(TEXT[:8])
    monitor.reset()
    model(TEXT[:2])
    assert monitor.stats()["blocks.0.layer1"].tokens == 2 * 128
    monitor.remove()
    monitor.reset()
    model(TEXT[:2])
    assert monitor.stats() == {}


def test_a_layer_that_is_called_by_keyword_is_counted_too():
    class ByKeyword(Stack):
        def forward(self, ids: Tensor) -> Tensor:
            x = self.embedding(ids)
            return self.blocks[0].layer1(x=x)

    model = ByKeyword(1)
    del model.blocks[0].layer2, model.blocks[0].norm
    expected = model.blocks[0].layer1.hash(model.embedding(TEXT))[0]
    monitor = BucketMonitor(model, every=1)
    model(TEXT)
    for found in (bucket_stats(model, TEXT), monitor.stats()):
        counts = found["blocks.0.layer1"].counts
        assert torch.equal(counts[2], torch.bincount(expected[..., 2].flatten(), minlength=16))


# Models of transformers


def test_the_language_model_is_counted_without_its_head():
    pytest.importorskip("transformers")
    from memoryformer.hf.config import MemoryFormerConfig
    from memoryformer.hf.modeling import MemoryFormerForCausalLM

    config = MemoryFormerConfig(
        vocab_size=256, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, tau=4
    )
    model = MemoryFormerForCausalLM(config)
    model.lm_head.register_forward_hook(lambda *_: pytest.fail("the head ran"))
    found = bucket_stats(model, TEXT)
    assert len(found) == 3 * 2
    assert all(stats.tokens == TEXT.numel() for stats in found.values())


# Mistakes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bucket_stats(nn.Linear(4, 4), TEXT), "Linear has no MemoryLayer"),
        (lambda: bucket_stats(Stack(), TEXT[:0]), r"the input is \[0, 128\]: no token to count"),
        (lambda: bucket_stats(Stack(), TEXT, other=Stack(2)), "does not have the same memory layers"),
        (lambda: BucketMonitor(Stack(), every=0), "every is 0; it must be at least 1"),
        (lambda: BucketMonitor(nn.ReLU()), "ReLU has no MemoryLayer"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(MemoryFormerError, match=message):
        call()


def test_a_layer_that_is_never_called_is_named():
    model = Stack()
    model.idle = MemoryLayer(8, 8, 4)
    with pytest.raises(MemoryFormerError, match="never calls its memory layer 'idle'"):
        bucket_stats(model, TEXT)
