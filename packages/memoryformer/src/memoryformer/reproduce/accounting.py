"""Claim C1: the numbers of FLOPs and bytes that the paper prints, counted on the real modules.

Two questions. Do the counters of `memoryformer.flops` say what the modules are and do (built on the meta
device, run under torch's `FlopCounterMode`)? And do they print as the paper prints them?
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lmlab.accounting import forward_flops
from lmlab.models import build_model
from memoryformer import MemoryBlock, MemoryFormerConfig, MemoryFormerForCausalLM, MemoryLayer, flops

SIZES = {"tiny": "Pythia-70M", "small": "Pythia-160M", "base": "Pythia-410M"}
LENGTH = 2048
TABLE_3 = ((512, 4, "0.14", "2.1"), (512, 8, "0.07", "16.8"), (510, 10, "0.06", "53.5"))  # width of Q: 512
TABLE_5 = ("33.6", "52.4", "88.1", "157.3")  # MB of a block with 0, 1, 2, 3 more bits


@dataclass(frozen=True)
class Printed:
    """A number of the paper as it is printed, and what we count, in the same unit."""

    where: str
    printed: str
    counted: float

    @property
    def rounded(self) -> str:
        """What we count, with as many decimals as the paper prints."""
        return f"{self.counted:.{len(self.printed.partition('.')[2])}f}"

    @property
    def agrees(self) -> bool:
        """Whether it prints the same."""
        return self.rounded == self.printed


def printed_numbers() -> list[Printed]:
    """Every number of FLOPs, share and bytes in Tables 1, 3, 5 and Figure 1."""
    return [*_table_1(), *_table_3(), *_table_5(), _figure_1()]


def accounting_metrics() -> dict[str, float]:
    """How many printed numbers differ, what MF-small counts, and what the paper does not print."""
    numbers = printed_numbers()
    metrics = {
        "printed_numbers": float(len(numbers)),
        "printed_numbers_off": float(sum(not n.agrees for n in numbers if "MF-small" not in n.where)),
        "modules_minus_counters": float(sum(abs(found - said) for found, said in measured_and_counted())),
        "figure_1_share_exact": figure_1_share(2048, "exact"),
        "figure_1_share_paper": figure_1_share(2048, "paper"),
    }
    for name in SIZES:
        config = MemoryFormerConfig.preset(name)
        ours, dense = flops.parameters(config), flops.parameters(config, "transformer")
        metrics |= {
            f"parameters_tables_{name}": float(ours["tables"]),
            f"parameters_dense_fc_{name}": float(dense["fc"]),
            f"tables_over_dense_fc_{name}": ours["tables"] / dense["fc"],
            f"bytes_a_token_ratio_{name}": flops.bytes_per_token(config, architecture="transformer")["total"]
            / flops.bytes_per_token(config)["total"],
            f"gigaflops_fc_{name}": flops.count(config)["fc"] / 1e9,
            f"gigaflops_fc_exact_{name}": flops.count(config, convention="exact")["fc"] / 1e9,
        }
    return metrics


def figure_1_share(width: int, convention: flops.Convention) -> float:
    """FLOPs of a MemoryFormer block over those of a transformer's, at length 2048 and tau 8."""
    config = MemoryFormerConfig(hidden_size=width, num_attention_heads=8)
    ours = flops.count(config, LENGTH, convention)["total"]
    return ours / flops.count(config, LENGTH, architecture="transformer")["total"]


def measured_and_counted() -> Iterator[tuple[int, int]]:
    """Pairs that must be equal: what a module is or does, and what the counters say."""
    for name in SIZES:
        config, length = MemoryFormerConfig.preset(name), 16
        with torch.device("meta"):
            model = MemoryFormerForCausalLM(config)
            dense = build_model(transformer_of(config), seed=0)
        yield sum(p.numel() for p in model.parameters()), flops.parameters(config)["total"]
        yield forward_flops(model, 1, length), 2 * flops.count_model(config, length)["total"]
        counted = flops.count_model(config, length, architecture="transformer")["total"]
        yield forward_flops(dense, 1, length), 2 * counted
    for width, tau, _, _ in TABLE_3:
        layer = MemoryLayer(width, 512, tau, device="meta")
        with FlopCounterMode(display=False) as counter:
            layer(torch.empty(LENGTH, width, device="meta"))
        yield counter.get_total_flops(), 2 * flops.count_layer(width, 512, tau, LENGTH)["gather"]
        yield 2 * layer.tables.numel(), flops.table_bytes(width, 512, tau, "float16")
    for bits in range(len(TABLE_5)):
        block = MemoryBlock(512, 8, bits, device="meta")
        yield 2 * _table_numbers(block), flops.block_bytes(512, 8, bits, "float16")


def transformer_of(config: MemoryFormerConfig) -> dict[str, object]:
    """The GPT-NeoX of the same depth, width, heads and vocabulary, with sequential residuals."""
    return {
        "model_type": "gpt_neox",
        "use_parallel_residual": False,
        "tie_word_embeddings": False,
        "intermediate_size": 4 * config.hidden_size,
    } | {
        key: getattr(config, key)
        for key in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        )
    }


def _table_1() -> Iterator[Printed]:
    rows = {
        "tiny": ("6.4", "10.7", "0.4", "4.7"),
        "small": ("14.5", "20.9", "1.0", "7.4"),
        "base": ("25.8", "34.4", "1.6", "10.2"),
    }
    for name, printed in rows.items():
        config = MemoryFormerConfig.preset(name)
        dense, ours = flops.count(config, architecture="transformer"), flops.count(config)
        names = [f"{SIZES[name]} without attention", SIZES[name]]
        names += [f"MF-{name} without attention", f"MF-{name}"]
        for label, text, value in zip(
            names, printed, (dense["fc"], dense["total"], ours["fc"], ours["total"]), strict=True
        ):
            yield Printed(f"Table 1, {label} (G)", text, value / 1e9)


def _table_3() -> Iterator[Printed]:
    for width, tau, gflops, megabytes in TABLE_3:
        where = f"Table 3, d {width}, tau {tau}"
        yield Printed(f"{where} (G)", gflops, flops.count_layer(width, 512, tau, LENGTH)["total"] / 1e9)
        yield Printed(f"{where} (MB)", megabytes, flops.table_bytes(width, 512, tau, "float16") / 1e6)


def _table_5() -> Iterator[Printed]:
    for bits, megabytes in enumerate(TABLE_5):
        size = flops.block_bytes(512, 8, bits, "float16")
        yield Printed(f"Table 5, {bits} more bits (MB)", megabytes, size / 1e6)


def _figure_1() -> Printed:
    return Printed(
        "Figure 1, share of the FLOPs at s = d = 2048 (%)", "19", 100 * figure_1_share(2048, "exact")
    )


def _table_numbers(module: nn.Module) -> int:
    return sum(layer.tables.numel() for layer in module.modules() if isinstance(layer, MemoryLayer))
