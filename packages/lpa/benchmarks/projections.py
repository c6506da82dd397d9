"""q, k and v of one attention layer, forward and backward: LPA with stacked A's beside its peers.

    python benchmarks/projections.py [--widths 768 1024] [--tokens 4096] [--fractions 8 6 4] [--repeats 10]

Peers: `sequential` is the official code's layer, two `nn.Linear` in a `Sequential` for each of q, k, v;
`cola` the same with SiLU between them; `lora` a frozen dense layer with a trained adapter of the same rank
(PEFT), which trains as few parameters; `dense` is `nn.Linear`. All in one process and in turn, so that a busy
machine slows both; a ratio is (time of the peer / time of LPA), the median over pairs with its 95% interval:
above 1, LPA is faster.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from lmlab.accounting import interleaved_ratio
from lpa.layers import LowRankLinear, StackedDown


def lpa(width: int, rank: int) -> nn.ModuleList:
    layers = nn.ModuleList(LowRankLinear(width, width, rank) for _ in range(3))
    stack = StackedDown(list(layers))
    for layer in layers:
        layer.stack = stack
    return layers


def sequential(width: int, rank: int) -> nn.ModuleList:
    def pair() -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False))

    return nn.ModuleList(pair() for _ in range(3))


def cola(width: int, rank: int) -> nn.ModuleList:
    return nn.ModuleList(LowRankLinear(width, width, rank, bottleneck="silu") for _ in range(3))


def lora(width: int, rank: int) -> nn.ModuleList:
    model = nn.ModuleDict({name: nn.Linear(width, width, bias=False) for name in "qkv"})
    inject_adapter_in_model(LoraConfig(r=rank, target_modules=list("qkv")), model)
    return nn.ModuleList(model.values())


def dense(width: int, rank: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(3))


PEERS = {"sequential": sequential, "cola": cola, "lora": lora, "dense": dense}


def forward_backward(layers: nn.ModuleList, x: torch.Tensor) -> Callable[[], None]:
    gradient = torch.randn_like(x)

    def step() -> None:
        layers.zero_grad(set_to_none=True)
        x.grad = None
        outputs = [layer(x) for layer in layers]
        torch.autograd.backward(outputs, [gradient] * len(outputs))

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[768, 1024, 2048])
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096])
    parser.add_argument("--fractions", type=int, nargs="+", default=[8, 6, 4], help="rank = width / fraction")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    device = (
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    )
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    print(f"{device.type}, {dtype}, {torch.get_num_threads()} thread(s), torch {torch.__version__}\n")
    print(f"| width | rank | tokens | {' | '.join(f'{peer} / LPA' for peer in PEERS)} |")
    print(f"|---|---|---|{'---|' * len(PEERS)}")
    for width in options.widths:
        for fraction in options.fractions:
            for tokens in options.tokens:
                rank = width // fraction
                x = torch.randn(tokens, width, device=device, dtype=dtype, requires_grad=True)
                ours = forward_backward(lpa(width, rank).to(device, dtype), x)
                ratios = [
                    interleaved_ratio(
                        forward_backward(peer(width, rank).to(device, dtype), x),
                        ours,
                        repeats=options.repeats,
                    )
                    for peer in PEERS.values()
                ]
                print(f"| {width} | {rank} | {tokens} | {' | '.join(map(str, ratios))} |", flush=True)


if __name__ == "__main__":
    main()
