"""The paper's arithmetic: Tables 1, 3 and 5, Figure 1, and what the real modules do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from memoryformer import flops
from memoryformer.errors import MemoryFormerError
from memoryformer.layers import MemoryBlock, MemoryLayer


def shape(hidden_size: int, layers: int = 1, **changes: Any) -> SimpleNamespace:
    fields: dict[str, Any] = {
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "vocab_size": 50304,
        "tau": 8,
        "expand_bits": 2,
        "expand": "bits",
        "bias": True,
        "norm": "layernorm",
    }
    return SimpleNamespace(**fields | changes)


TINY, SMALL, BASE = shape(512, 6), shape(768, 12), shape(1024, 24)


def printed(value: float, digits: int, unit: float = 1e9) -> float:
    return round(value / unit, digits)


# Table 1: (transformer without attention, total, MemoryFormer without attention, total), G multiply-adds


@pytest.mark.parametrize(
    ("config", "expected"),
    [(TINY, (6.4, 10.7, 0.4, 4.7)), (SMALL, (14.5, 20.9, 0.9, 7.3)), (BASE, (25.8, 34.4, 1.6, 10.2))],
    ids=["tiny", "small", "base"],
)
def test_table_1_at_its_printed_precision(config, expected):
    dense = flops.count(config, architecture="transformer")
    ours = flops.count(config)
    found = (dense["fc"], dense["total"], ours["fc"], ours["total"])
    assert tuple(printed(value, 1) for value in found) == expected


def test_mf_small_is_printed_as_1_0_and_7_4_but_its_formula_gives_0_906_and_7_348():
    small = flops.count(SMALL)
    assert small == {"fc": 905_969_664, "attention": 6_442_450_944, "total": 7_348_420_608}
    assert printed(small["fc"], 1) != 1.0


@pytest.mark.parametrize(("config", "expected"), [(TINY, 0.352), (SMALL, 0.793), (BASE, 1.409)])
def test_exact_gathers_are_fewer_than_the_papers_formula(config, expected):
    exact, paper = flops.count(config, convention="exact"), flops.count(config)
    assert printed(exact["fc"], 3) == expected
    assert exact["fc"] / paper["fc"] == pytest.approx(21 / 24)  # K (3 + 10/8 + 1) d = 5.25 K d against 6 K d
    assert exact["attention"] == paper["attention"]


def test_figure_1_needs_19_percent_at_2048():
    config = shape(2048)
    dense = flops.count(config, architecture="transformer")["total"]
    assert round(100 * flops.count(config, convention="exact")["total"] / dense) == 19
    assert flops.count(config)["total"] / dense == pytest.approx(5632 / 28672)  # 19.6 %


# Tables 3 and 5


@pytest.mark.parametrize(
    ("in_features", "tau", "operations", "megabytes"),
    [(512, 4, 0.14, 2.1), (512, 8, 0.07, 16.8), (510, 10, 0.06, 53.5)],
)
def test_table_3_counts_the_hash_and_its_510_has_rows_of_512(in_features, tau, operations, megabytes):
    assert printed(flops.count_layer(in_features, 512, tau)["total"], 2) == operations
    assert printed(flops.table_bytes(in_features, 512, tau, "float16"), 1, 1e6) == megabytes


def test_the_gather_alone_rounds_below_what_table_3_prints():
    assert printed(flops.count_layer(512, 512, 4)["gather"], 2) == 0.13
    assert printed(flops.count_layer(510, 510, 10)["gather"], 2) == 0.05
    assert printed(flops.table_bytes(510, 510, 10, "float16"), 1, 1e6) == 53.3


@pytest.mark.parametrize(("expand_bits", "megabytes"), [(0, 33.6), (1, 52.4), (2, 88.1), (3, 157.3)])
def test_table_5(expand_bits, megabytes):
    assert printed(flops.block_bytes(512, 8, expand_bits, torch.float16), 1, 1e6) == megabytes


# What the paper does not say


@pytest.mark.parametrize(
    ("config", "tables", "embeddings", "dense"),
    [(TINY, 69.2, 51.5, 18.9), (SMALL, 155.7, 77.3, 84.9), (BASE, 276.8, 103.0, 302.0)],
)
def test_parameters_of_the_presets(config, tables, embeddings, dense):
    found = flops.parameters(config)
    assert printed(found["tables"] / config.num_hidden_layers, 1, 1e6) == tables
    assert found["embedding"] + found["head"] == pytest.approx(embeddings * 1e6, rel=2e-3)
    assert flops.parameters(config, "transformer")["fc"] == pytest.approx(dense * 1e6, rel=2e-3)
    assert found["total"] == sum(found.values()) - found["total"]


@pytest.mark.parametrize(
    ("config", "tables", "dense", "head"),
    [(TINY, 4.1, 75, 103), (SMALL, 18.6, 340, 155), (BASE, 66.1, 1208, 206)],
)
def test_bytes_read_per_decoded_token(config, tables, dense, head):
    ours = flops.bytes_per_token(config)
    theirs = flops.bytes_per_token(config, architecture="transformer")
    assert printed(ours["fc"], 1, 1e6) == tables
    assert theirs["fc"] == pytest.approx(dense * 1e6, rel=0.01)
    assert printed(ours["head"], 0, 1e6) == printed(theirs["head"], 0, 1e6) == head
    assert theirs["fc"] / ours["fc"] == pytest.approx(12 * 8 / 5.25)  # 18.3 in every preset


@pytest.mark.parametrize(("config", "ratio"), [(TINY, 1.7), (BASE, 5.2)])
def test_the_head_eats_up_the_gain_in_traffic(config, ratio):
    dense = flops.bytes_per_token(config, architecture="transformer")["total"]
    assert dense / flops.bytes_per_token(config)["total"] == pytest.approx(ratio, abs=0.05)


def test_int8_tables_are_read_beside_a_float32_head():
    int8, float32 = flops.bytes_per_token(TINY, "int8"), flops.bytes_per_token(TINY, "float32")
    assert int8 == {"fc": float32["fc"] // 4, "head": float32["head"], "total": int8["fc"] + int8["head"]}


@pytest.mark.parametrize(("config", "gigabytes"), [(TINY, 7.5), (SMALL, 31), (BASE, 108)])
def test_bytes_to_train_with_adam(config, gigabytes):
    assert flops.training_bytes(config) == pytest.approx(gigabytes * 1e9, rel=0.01)
    assert flops.training_bytes(config, 32) == pytest.approx(gigabytes / 32 * 1e9, rel=0.01)


# The real modules


@settings(deadline=None)
@given(
    chunks=st.integers(1, 4),
    tau=st.integers(1, 4),
    out_features=st.integers(1, 9),
    tokens=st.integers(1, 5),
)
def test_flop_counter_mode_counts_each_multiply_add_of_a_layer_twice(chunks, tau, out_features, tokens):
    layer = MemoryLayer(chunks * tau, out_features, tau)
    with FlopCounterMode(display=False) as counter:
        layer(torch.randn(tokens, chunks * tau))
    expected = flops.count_layer(chunks * tau, out_features, tau, tokens)["gather"]
    assert counter.get_total_flops() == 2 * expected


@pytest.mark.parametrize("expand", ["bits", "tables"])
@pytest.mark.parametrize("expand_bits", [0, 2])
def test_a_memory_block_has_the_tables_and_the_arithmetic_that_are_counted(expand, expand_bits):
    config = shape(32, tau=4, expand=expand, expand_bits=expand_bits)
    block = MemoryBlock(32, tau=4, expand_bits=expand_bits, expand=expand)
    tables = flops.block_tables(config)
    for name in ("layer1", "layer2"):
        expected = (tables[name].chunks, 2 ** tables[name].tau, tables[name].width)
        assert tuple(block.get_submodule(name).tables.shape) == expected
    with FlopCounterMode(display=False) as counter:
        block(torch.randn(3, 32))
    assert counter.get_total_flops() == 2 * 3 * (tables["layer1"].fetched + tables["layer2"].fetched)
    if expand == "bits":
        weights = block.layer1.tables.numel() + block.layer2.tables.numel()
        assert flops.block_bytes(32, 4, expand_bits) == 4 * weights


def test_the_backward_of_a_layer_is_counted_too():
    layer = MemoryLayer(8, 6, 4)
    x = torch.randn(5, 8, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    # Into the tables, and <g, row> for the input: as many multiply-adds as forward, each.
    assert counter.get_total_flops() == 3 * 2 * flops.count_layer(8, 6, 4, 5)["gather"]


@pytest.mark.parametrize(
    "changes",
    [{}, {"norm": "rmsnorm", "bias": False, "expand": "tables"}, {"tie_word_embeddings": True, "tau": 8}],
    ids=["default", "others", "tied"],
)
def test_the_language_model_has_the_parameters_and_the_arithmetic_that_are_counted(changes):
    pytest.importorskip("transformers")
    from memoryformer.hf.config import MemoryFormerConfig
    from memoryformer.hf.modeling import MemoryFormerForCausalLM

    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "tau": 4}
    config = MemoryFormerConfig(**sizes | changes, attn_implementation="eager")
    model = MemoryFormerForCausalLM(config)
    kinds = {"tables": 0, "biases": 0, "norms": 0, "embedding": 0, "head": 0}
    for name, parameter in model.named_parameters():
        *_, owner, last = name.split(".")
        if last == "tables":
            kinds["tables"] += parameter.numel()
        elif "norm" in owner:
            kinds["norms"] += parameter.numel()
        elif last == "bias":
            kinds["biases"] += parameter.numel()
        else:
            kinds["embedding" if "embed" in owner else "head"] += parameter.numel()
    assert flops.parameters(config) == kinds | {"total": sum(kinds.values())}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.randint(50, (3, 16)))
    assert counter.get_total_flops() == 2 * 3 * flops.count_model(config, 16)["total"]


# Mistakes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: flops.count(shape(510)),
            "510, which tau = 8 does not divide; the nearest widths are 504 and 512",
        ),
        (lambda: flops.table_bytes(510, 510, 17), "tau is 17; it must be an integer from 1 to 16"),
        (lambda: flops.count(TINY, convention="real"), "convention is 'real'; it may be 'paper' or 'exact'"),
        (lambda: flops.count(TINY, architecture="rnn"), "architecture is 'rnn'; it may be"),
        (lambda: flops.parameters(TINY, "rnn"), "architecture is 'rnn'; it may be"),
        (lambda: flops.count(TINY, 0), "seq_len is 0; it must be at least 1"),
        (lambda: flops.table_bytes(512, 512, 8, "fp16"), "dtype is 'fp16'; it may be float64, float32"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(MemoryFormerError, match=message):
        call()
