"""What the command prints: JSON, or lines of names and numbers; progress and messages to stderr."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from memoryformer.benchmark import Report

Row = Sequence[str]
UNITS = ("", "k", "M", "G", "T", "P")


def show(value: Any, as_json: bool, rows: Callable[[Any], Sequence[Row]]) -> None:
    """Print a result; of the processes of a distributed run the first one speaks."""
    if int(os.environ.get("RANK", "0")):
        return
    typer.echo(json.dumps(_finite(value), indent=2) if as_json else "\n".join(aligned(rows(value))))


def aligned(rows: Sequence[Row]) -> list[str]:
    """Rows as lines with columns one below the other, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def tell(message: str) -> None:
    """A message, to stderr."""
    typer.echo(message, err=True)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left, where stderr is a terminal; yields what takes steps done and their number."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    shown = console.is_terminal and os.environ.get("RANK", "0") == "0"
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not shown, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def plan(found: Mapping[str, Any]) -> list[Row]:
    """Of `reproduce.training.plan`."""
    return [
        ("parameters", f"{found['parameters']:,}"),
        ("of them in tables", f"{found['table_parameters']:,}"),
        ("steps", f"{found['steps']:,} of {found['tokens_per_step']:,} tokens"),
        ("tokens", f"{found['tokens']:,}"),
        ("weights, gradients, AdamW", _bytes(found["state_bytes"])),
        (f"on each of {found['gpus']} GPUs, sharded", f"{_bytes(found['bytes_per_gpu'])}, and activations"),
        ("FLOPs of the training", f"{found['flops']:.3g}"),
        (f"FLOP/s needed for {found['days']:g} days", f"{found['flops_per_second']:.3g}"),
        ("table bytes per second needed", f"{_bytes(found['table_bytes_per_second'])}/s"),
    ]


def training(metrics: Mapping[str, Any]) -> list[Row]:
    """Of lmlab's metrics."""
    scores = [(f"perplexity, {split}", f"{score['ppl']:.2f}") for split, score in metrics["splits"].items()]
    return [("parameters", f"{metrics['parameters']:,}"), *scores]


def evaluation(measured: Mapping[str, Any]) -> list[Row]:
    """Of `texts.score_text` and `texts.benchmarks`."""
    rows: list[Row] = []
    if "text" in measured:
        score = measured["text"]
        rows += [
            ("bits per byte", f"{score['bits_per_byte']:.4f}"),
            ("nats per token", f"{score['loss']:.4f}"),
            ("predicted", f"{score['tokens']:,} tokens, {score['bytes']:,} bytes"),
        ]
    for task, metrics in measured.get("tasks", {}).items():
        rows += [(f"{task}, {name}", f"{value:.4f}") for name, value in metrics.items()]
    return rows


def costs(found: Mapping[str, Any]) -> list[Row]:
    """Of `flops.compare`: Table 1, and what stands behind it."""
    ours, dense = found["memoryformer"], found["transformer"]

    def pair(name: str, number: Callable[[Mapping[str, Any]], int], told: Callable[..., Row]) -> Row:
        a, b = number(ours), number(dense)
        return (name, *told(a, b), f"{a / b:.2f}")

    shape = f"{found['num_hidden_layers']} layers, d {found['hidden_size']}, {found['seq_len']} tokens"
    rows: list[Row] = [(shape, "MemoryFormer", "transformer", "ratio")]
    rows += [
        pair("FLOPs of a block without attention (as the paper counts)", lambda x: x["block"]["fc"], _counts),
        pair("  counted exactly", lambda x: x["block_exact"]["fc"], _counts),
        pair("FLOPs of a block (as the paper counts)", lambda x: x["block"]["total"], _counts),
        pair("FLOPs of the model with its head, exactly", lambda x: x["model"]["total"], _counts),
        pair(
            "parameters in tables | matrices",
            lambda x: x["parameters"].get("tables", x["parameters"].get("fc", 0)),
            _counts,
        ),
        pair("parameters", lambda x: x["parameters"]["total"], _counts),
    ]
    for dtype in ("float32", "bfloat16", "int8"):
        rows += [
            pair(
                f"bytes read per decoded token, {dtype}: layers",
                lambda x, dtype=dtype: x["bytes_per_token"][dtype]["fc"],  # type: ignore[misc]
                _sizes,
            ),
            pair(
                "  with the head",
                lambda x, dtype=dtype: x["bytes_per_token"][dtype]["total"],  # type: ignore[misc]
                _sizes,
            ),
        ]
    return rows


def buckets(layers: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Of `bucket_stats`: a row a layer."""
    rows: list[Row] = [("layer", "entropy / tau", "dead rows", "largest share", "collision rate")]
    for name, found in layers.items():
        rows.append(
            (
                name,
                f"{found['entropy']:.3f}",
                f"{found['dead_rows']:.1%}",
                f"{found['max_share']:.1%}",
                f"{found['collision_rate']:.4f}",
            )
        )
    return rows


def quantized(saved: Mapping[str, Any]) -> list[Row]:
    """Of the verb `quantize`."""
    now, before = saved["table_bytes"], saved["table_bytes_before"]
    return [("saved", saved["output"]), ("tables", f"{_bytes(now)}, {_bytes(before)} before")]


def converted(saved: Mapping[str, Any]) -> list[Row]:
    """Of the verb `convert official`."""
    return [
        ("saved", saved["output"]),
        ("parameters", f"{saved['parameters']:,}"),
        ("tokenizer", "Pythia's, EleutherAI/pythia-70m-deduped: it is not in the checkpoint"),
    ]


def probed(found: Mapping[str, Any]) -> list[Row]:
    """Of `probe`: a row a layer."""
    rows: list[Row] = [("layer", "in", "out", "error, fitted", "error, held out", "Gaussian input")]
    for layer in found["layers"]:
        sizes = (layer["name"], str(layer["in_features"]), str(layer["out_features"]))
        if layer["reason"]:
            rows.append((*sizes, "", "not fitted", ""))
            tell(f"memoryformer: {layer['name']}: {layer['reason']}")
        else:
            errors = (layer["fitted"], layer["held_out"], layer["gaussian"])
            rows.append((*sizes, *(f"{error:.3f}" for error in errors)))
    return rows


def timings(report: Report) -> list[str]:
    """Of `bench`: a row an arm, then where the dense layer wins again."""
    rows: list[Row] = [("arm", "d", "tokens", "us", "median us", "x nn.Linear", "GB/s", "of copy")]
    for t in report.timings:
        speed = t.bytes_read / t.seconds / 1e9
        rows.append(
            (
                t.arm,
                str(t.width),
                str(t.tokens),
                f"{t.seconds * 1e6:.1f}",
                f"{t.median * 1e6:.1f}",
                f"{t.speedup:.2f}",
                f"{speed:.2f}",
                f"{t.of_copy:.2f}",
            )
        )
    place = ", ".join(f"{name} {value}" for name, value in report.environment.items())
    lines = [*aligned(rows), "", f"{place}, copy {report.copy_bandwidth / 1e9:.1f} GB/s"]
    pairs = dict.fromkeys((t.width, t.arm) for t in report.timings if t.arm.startswith("module"))
    for width, arm in pairs:
        first = report.dense_wins_from(width, arm)
        told = "at none of these batch sizes" if first is None else f"from {first} tokens on"
        lines.append(f"d {width}, {arm}: nn.Linear float32 is faster {told}")
    return lines


def _finite(value: Any) -> Any:
    """NaN and infinity, which JSON does not have, as null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _counts(*numbers: int) -> Row:
    """Numbers with one unit, that of the largest."""
    power = min((len(str(max(numbers))) - 1) // 3, len(UNITS) - 1)
    return [f"{number / 1000**power:,.4g} {UNITS[power]}".rstrip() for number in numbers]


def _sizes(*numbers: int) -> Row:
    return [_bytes(number) for number in numbers]


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.3g} {unit}" if number < 1000 else f"{number:,.0f} {unit}"
