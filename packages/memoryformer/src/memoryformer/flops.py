"""What MemoryFormer costs beside the transformer of the same shape: arithmetic, parameters, bytes.

Per block, in multiply-adds, with s tokens, width d, tau bits, K = d / tau chunks and e expanding bits, so
that K (tau + e) numbers stand between the two layers of the feed-forward part:

    attention           2 s² d                               the same in both
    transformer         12 s d²                              q, k, v, o and the two layers of 4 d
    MemoryFormer        6 K s d                              as the paper counts it, for tau 8 and e 2
                        s K (3 d + (tau + e) K + d)          exactly: every number of every fetched row

A FLOP is a multiply-add here, as in the paper; torch's `FlopCounterMode` counts each as 2. Nothing is built:
every function asks the config alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from memoryformer.errors import MemoryFormerError
from memoryformer.layers import check_sizes

Architecture = Literal["memoryformer", "transformer"]
Convention = Literal["paper", "exact"]

# Operations per number hashed: its sign bit into the code, exp(-2|z|/t), a factor of the product.
HASH_OPS = 3


@dataclass(frozen=True)
class TableShape:
    """The tables of one memory layer: `chunks` of them, each of 2**`tau` rows of `width` numbers."""

    chunks: int
    tau: int
    width: int

    @property
    def in_features(self) -> int:
        """Numbers hashed per token, K·tau."""
        return self.chunks * self.tau

    @property
    def fetched(self) -> int:
        """Numbers read and multiply-adds done per token, K·h: one row of each table."""
        return self.chunks * self.width

    @property
    def parameters(self) -> int:
        """Numbers in the tables, K·2**tau·h."""
        return self.fetched * 2**self.tau


def block_tables(config: Any) -> dict[str, TableShape]:
    """The memory layers of one block: "qkv" (hashed once, rows of 3 d), "layer1" and "layer2".

    `config` is any object with `hidden_size`, `tau`, `expand_bits` and `expand`. With expand="tables", the
    middle is 2 d wide and hashed by tau bits, and e does nothing.

    Raises `MemoryFormerError` for a tau that is impossible or does not divide the width.
    """
    d, tau = config.hidden_size, config.tau
    chunks = _chunks(d, tau)
    if config.expand == "tables":
        layer1, layer2 = TableShape(chunks, tau, 2 * d), TableShape(2 * chunks, tau, d)
    else:
        bits = tau + config.expand_bits
        layer1, layer2 = TableShape(chunks, tau, bits * chunks), TableShape(chunks, bits, d)
    return {"qkv": TableShape(chunks, tau, 3 * d), "layer1": layer1, "layer2": layer2}


def count(
    config: Any,
    seq_len: int = 2048,
    convention: Convention = "paper",
    architecture: Architecture = "memoryformer",
) -> dict[str, int]:
    """Multiply-adds of one block for one sequence: {"fc": ..., "attention": ..., "total": ...}.

    `convention` "paper" is the formula behind Tables 1 and 2, 6 K s d, whatever e is; "exact" counts every
    number of every fetched row. They differ for MemoryFormer only. Neither counts the hash and the norms:
    `elementwise` does. The attention is counted in full, masked or not, as the paper and torch do.

    Raises `MemoryFormerError` for an unknown convention or architecture, or a `seq_len` below 1.
    """
    _check(architecture, seq_len)
    if convention not in ("paper", "exact"):
        raise MemoryFormerError(f"convention is {convention!r}; it may be 'paper' or 'exact'")
    d = config.hidden_size
    if architecture == "transformer":
        fc = 12 * seq_len * d**2
    elif convention == "paper":
        fc = 6 * _chunks(d, config.tau) * seq_len * d
    else:
        fc = seq_len * sum(tables.fetched for tables in block_tables(config).values())
    attention = 2 * seq_len**2 * d
    return {"fc": fc, "attention": attention, "total": fc + attention}


def count_model(
    config: Any,
    seq_len: int = 2048,
    convention: Convention = "exact",
    architecture: Architecture = "memoryformer",
) -> dict[str, int]:
    """Multiply-adds of the whole model for one sequence: {"fc", "attention", "head", "total"}.

    `count` of all blocks, and s d V of the head, which is a matrix in both. Raises as `count` does.
    """
    block = count(config, seq_len, convention, architecture)
    fc, attention = (config.num_hidden_layers * block[part] for part in ("fc", "attention"))
    head = seq_len * config.hidden_size * config.vocab_size
    return {"fc": fc, "attention": attention, "head": head, "total": fc + attention + head}


def count_layer(in_features: int, out_features: int, tau: int, seq_len: int = 2048) -> dict[str, int]:
    """The arithmetic of one memory layer: {"gather", "hash", "total"}; Table 3 prints the total of layer Q.

    gather = s K h multiply-adds; hash = 3 operations per input number. Raises `MemoryFormerError` if tau does
    not divide `in_features`.
    """
    gather = seq_len * _chunks(in_features, tau) * out_features
    hashing = HASH_OPS * seq_len * in_features
    return {"gather": gather, "hash": hashing, "total": gather + hashing}


def elementwise(config: Any, seq_len: int = 2048) -> dict[str, int]:
    """What `count` leaves out of a MemoryFormer block, in operations: {"hash": ..., "norms": ...}.

    3 operations per number hashed (q, k and v share one hash), and 5 per number normalised: mean, variance,
    their use, scale and shift.
    """
    tables = block_tables(config)
    hashed = sum(layer.in_features for layer in tables.values())
    normed = 2 * config.hidden_size + tables["layer1"].width
    return {"hash": HASH_OPS * seq_len * hashed, "norms": 5 * seq_len * normed}


def parameters(config: Any, architecture: Architecture = "memoryformer") -> dict[str, int]:
    """Parameters of the whole model by kind.

    "memoryformer": tables, biases, norms, embedding, head, total, as `MemoryFormerForCausalLM` has them.
    "transformer": fc, embedding, head, total: the matrices of the same shape, 12 d² a block (no biases and
    norms: transformers differ in them). A tied head is 0.

    `config` needs `vocab_size`, `num_hidden_layers`, `bias` and `norm` too. Raises `MemoryFormerError` for
    another architecture.
    """
    _check(architecture)
    d, layers = config.hidden_size, config.num_hidden_layers
    embedding = config.vocab_size * d
    found = {"embedding": embedding, "head": 0 if _tied(config) else embedding}
    if architecture == "transformer":
        found["fc"] = 12 * d**2 * layers
    else:
        tables = block_tables(config)
        widths = sum(layer.width for layer in tables.values())
        norm = d if config.norm == "rmsnorm" else 2 * d
        found["tables"] = layers * sum(layer.parameters for layer in tables.values())
        found["biases"] = layers * widths if config.bias else 0
        found["norms"] = layers * (2 * norm + 2 * tables["layer1"].width) + norm
    return found | {"total": sum(found.values())}


def bytes_per_token(
    config: Any, dtype: str | torch.dtype = "float32", architecture: Architecture = "memoryformer"
) -> dict[str, int]:
    """Weights read to decode one token alone: {"fc": ..., "head": ..., "total": ...} in bytes.

    A MemoryFormer reads one row of each table, a transformer all its matrices; both read the whole head. The
    KV cache, the same in both, is not counted. `dtype` is that of the tables or matrices; int8 is for them
    alone, beside a float32 head. Raises `MemoryFormerError` for an unknown dtype or architecture.
    """
    _check(architecture)
    size = _itemsize(dtype)
    if architecture == "transformer":
        numbers = 12 * config.hidden_size**2
    else:
        numbers = sum(layer.fetched for layer in block_tables(config).values())
    fc = config.num_hidden_layers * numbers * size
    head = config.vocab_size * config.hidden_size * (4 if size == 1 else size)
    return {"fc": fc, "head": head, "total": fc + head}


def compare(config: Any, seq_len: int = 2048) -> dict[str, Any]:
    """All of it for a MemoryFormer and the transformer of the same shape, as `memoryformer flops` prints it.

    {"seq_len", "hidden_size", "num_hidden_layers"} and for each architecture {"block" (paper's convention),
    "block_exact", "model" (multiply-adds), "parameters", "bytes_per_token" by dtype}. Raises as `count` does.
    """
    found: dict[str, Any] = {"seq_len": seq_len}
    found |= {key: getattr(config, key) for key in ("hidden_size", "num_hidden_layers")}
    architectures: tuple[Architecture, ...] = ("memoryformer", "transformer")
    for name in architectures:
        found[name] = {
            "block": count(config, seq_len, "paper", name),
            "block_exact": count(config, seq_len, "exact", name),
            "model": count_model(config, seq_len, "exact", name),
            "parameters": parameters(config, name),
            "bytes_per_token": {
                dtype: bytes_per_token(config, dtype, name) for dtype in ("float32", "bfloat16", "int8")
            },
        }
    return found


def table_bytes(in_features: int, out_features: int, tau: int, dtype: str | torch.dtype = "float32") -> int:
    """Bytes of one layer's tables, K·2**tau·h·bytes (Table 3); scales of int8 rows are not counted.

    Raises `MemoryFormerError` if tau does not divide `in_features`, and for an unknown dtype.
    """
    return TableShape(_chunks(in_features, tau), tau, out_features).parameters * _itemsize(dtype)


def block_bytes(
    hidden_size: int, tau: int = 8, expand_bits: int = 2, dtype: str | torch.dtype = "float32"
) -> int:
    """Bytes of the tables of a `MemoryBlock`, K·2**tau·(tau+e)K + K·2**(tau+e)·d numbers (Table 5).

    Raises `MemoryFormerError` if tau does not divide `hidden_size`, and for an unknown dtype.
    """
    middle = (tau + expand_bits) * _chunks(hidden_size, tau)
    return table_bytes(hidden_size, middle, tau, dtype) + table_bytes(
        middle, hidden_size, tau + expand_bits, dtype
    )


def training_bytes(config: Any, processes: int = 1) -> int:
    """Bytes each process needs to train in float32 with Adam: 16 a parameter (weight, gradient, two moments).

    Sharded evenly over `processes`; activations come on top.
    """
    return -(-16 * parameters(config)["total"] // processes)


def _chunks(width: int, tau: int) -> int:
    check_sizes(width, 1, tau)
    return width // tau


def _check(architecture: str, seq_len: int = 1) -> None:
    if architecture not in ("memoryformer", "transformer"):
        raise MemoryFormerError(
            f"architecture is {architecture!r}; it may be 'memoryformer' or 'transformer'"
        )
    if seq_len < 1:
        raise MemoryFormerError(f"seq_len is {seq_len}; it must be at least 1")


def _tied(config: Any) -> bool:
    return bool(getattr(config, "tie_word_embeddings", False))


def _itemsize(dtype: str | torch.dtype) -> int:
    known = ("float64", "float32", "bfloat16", "float16", "int8")
    name = str(dtype).removeprefix("torch.")
    if name not in known:
        raise MemoryFormerError(f"dtype is {name!r}; it may be {', '.join(known)}")
    return int(getattr(torch, name).itemsize)
