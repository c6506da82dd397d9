"""FoPE on a CPU beside its peers: the rotation, its tables, and a whole training step.

    python benchmarks/cpu.py [--shapes 8x8x64] [--batch 1 8] [--length 512] [--repeats 20] [--step]

All in one process and in turn, so that a busy machine slows both sides of a pair; a ratio is the median over
pairs with its 95% interval. "RoPE" is transformers' eager `apply_rotary_pos_emb` with its tables at hand;
"einsum" is the released code's way (`fope.compat.olmo`), tables and all, for q and k. "In place" is FoPE
with a folded zero phase (ζ = 0), which leaves the pairs of frequency zero alone. Goals: out of place ≤ 1.0
RoPE, in place ≤ 0.6, einsum ≥ 2, the tables of a length ≤ 0.05 of one attention call, a training step of the
experiment's model ≤ 1.03 RoPE's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from fope import FopeConfig, FourierPositionEmbedding
from fope.compat.olmo import released_rotation
from fope.functional import fope_basis, series_tables
from lmlab.accounting import Ratio, interleaved_ratio

Call = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["8x8x64", "2x2x64", "32x8x128"], help="Hq x H x d")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument(
        "--threads", type=int, default=1, help="more than the machine has free measure waiting"
    )
    parser.add_argument("--step", action="store_true", help="only the training step of the quick model")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{torch.get_num_threads()} thread(s), torch {torch.__version__}, float32, T {options.length}\n")
    if not options.step:
        print(
            "| heads x kv x d | batch | out of place / RoPE | in place / RoPE | einsum / ours | with "
            "backward |"
        )
        print("|---|---|---|---|---|---|")
        for shape in options.shapes:
            for batch in options.batch:
                ratios = rotation(shape, batch, options.length, options.repeats)
                print(f"| {shape} | {batch} | {' | '.join(map(str, ratios))} |", flush=True)
        print("\n| heads x kv x d | positions | tables / attention |\n|---|---|---|")
        for shape in options.shapes:
            for length in (options.length, 4 * options.length):
                print(f"| {shape} | {length} | {tables(shape, length, options.repeats)} |", flush=True)
    print("\n| a training step of the quick model | FoPE / RoPE |\n|---|---|")
    print(f"| forward, backward, AdamW | {training_step(options.repeats)} |")


def inputs(
    shape: str, batch: int, length: int
) -> tuple[list[Tensor], FourierPositionEmbedding, list[Tensor]]:
    """q and k as a projection leaves them, the embedding, and RoPE's cos and sin."""
    heads, kv, width = map(int, shape.split("x"))
    x = [torch.randn(batch, length, h, width).transpose(1, 2) for h in (heads, kv)]
    embedding = FourierPositionEmbedding(FopeConfig(width, kv, train_length=length))
    config = LlamaConfig(hidden_size=heads * width, num_attention_heads=heads, head_dim=width)
    return x, embedding, list(LlamaRotaryEmbedding(config)(x[0], torch.arange(length)[None]))


@torch.no_grad()
def rotation(shape: str, batch: int, length: int, repeats: int) -> list[Ratio]:
    """Out of place, in place and with backward against RoPE; einsum against out of place."""
    (q, k), fope, (cos, sin) = inputs(shape, batch, length)
    folded = FourierPositionEmbedding(
        FopeConfig(fope.config.head_dim, fope.config.num_heads, length, zero_sin=0.0)
    )
    positions = torch.arange(length)
    group = q.shape[1] // k.shape[1]
    by_query_head = [coef.repeat_interleave(group, dim=0) for coef in (fope.cos_coef, fope.sin_coef)]

    def rope() -> object:
        return apply_rotary_pos_emb(q, k, cos, sin)

    def ours() -> object:
        return fope(q, k, positions)

    def in_place() -> object:
        return folded(q, k, positions, inplace=True)

    def einsum() -> object:
        bank = fope.inv_freq.float()
        rotated_q = released_rotation(q, positions, bank, *by_query_head)
        return rotated_q, released_rotation(k, positions, bank, fope.cos_coef, fope.sin_coef)

    def with_backward(rotate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Call:
        leaves = [x.detach().requires_grad_() for x in (q, k)]
        gradients = [torch.randn_like(x) for x in (q, k)]

        @torch.enable_grad()
        def step() -> None:
            torch.autograd.grad(rotate(*leaves), leaves, gradients)

        return step

    pairs: list[tuple[Call, Call]] = [(ours, rope), (in_place, rope), (einsum, ours)]
    rope_step = with_backward(lambda q, k: apply_rotary_pos_emb(q, k, cos, sin))
    pairs.append((with_backward(lambda q, k: fope(q, k, positions)), rope_step))
    return [interleaved_ratio(a, b, repeats=repeats) for a, b in pairs]


@torch.no_grad()
def tables(shape: str, length: int, repeats: int) -> Ratio:
    """A layer's tables, from the basis that all layers share, against one attention call at batch 1."""
    (q, k), fope, _ = inputs(shape, 1, length)
    grouped = q.shape[1] != k.shape[1]
    basis = fope_basis(torch.arange(length), fope.inv_freq)

    def build() -> object:
        return series_tables(*basis, fope.cos_coef, fope.sin_coef)

    def attention() -> object:
        return scaled_dot_product_attention(q, k, k, is_causal=True, enable_gqa=grouped)

    return interleaved_ratio(build, attention, repeats=repeats)


def training_step(repeats: int) -> Ratio:
    """The experiment's quick model and step, with FoPE against with RoPE."""
    from transformers import LlamaForCausalLM

    from fope.hf import convert_to_fope

    config = LlamaConfig(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=2,
        head_dim=64,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    tokens = torch.randint(256, (16, 64))

    def step(model: LlamaForCausalLM) -> Call:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def run() -> None:
            model(input_ids=tokens, labels=tokens).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        return run

    rope = LlamaForCausalLM(config)
    fope = convert_to_fope(LlamaForCausalLM(config), train_length=64, zero_sin=1.0, preserve=False)
    return interleaved_ratio(step(fope), step(rope), repeats=2 * repeats)


if __name__ == "__main__":
    main()
