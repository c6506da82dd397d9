"""The `memoryformer` command, whole, hence over 400 lines: a verb shows what a public function returns."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from memoryformer import terminal
from memoryformer.errors import MemoryFormerError
from memoryformer.folders import check_folder, check_new_folder, whole_folder
from memoryformer.hub import load_config, load_model

app = typer.Typer(
    name="memoryformer",
    help="Hashed look-up tables in place of fully connected layers: train, measure, convert, quantise, time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

convert_app = typer.Typer(help="Models of others into MemoryFormer models.", no_args_is_help=True)
app.add_typer(convert_app, name="convert")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Checkpoint = Annotated[str, typer.Argument(metavar="CKPT", help="A saved model's folder or hub id.")]
TextFile = Annotated[Path, typer.Argument(metavar="TEXT", help="A text file, UTF-8.")]
Tokens = Annotated[int, typer.Option(help="Tokens taken of the text.", min=1)]
Length = Annotated[int, typer.Option(help="Tokens in a sequence; at most the model's positions.", min=1)]
Assignments = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads it at run time
    typer.Option("--set", help="Change a config value: key=value, dots for tables; repeatable."),
]


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A run's TOML file (lmlab's), or a name such as tiny.")],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", "-o", help="The folder to write to; runs/NAME if not given."),
    ] = None,
    assignments: Assignments = None,
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    gpus: Annotated[int, typer.Option(help="For --dry-run: GPUs to share the state.", min=1)] = 8,
    days: Annotated[float, typer.Option(help="For --dry-run: days it may take.")] = 7.0,
    as_json: AsJson = False,
) -> None:
    """Train a model from scratch as a file or the paper says, measure it and save it.

    On many GPUs: torchrun --nproc-per-node 8 -m memoryformer train CONFIG (see launch/).
    """
    from memoryformer.reproduce.training import plan, run_config, train_run

    run = run_config(config, assignments or ())
    if dry_run:
        terminal.show(asdict(plan(run, gpus=gpus, days=days)), as_json, terminal.plan)
        return
    folder = output or Path("runs") / Path(config).stem
    check_folder(folder, "--out")
    try:
        with terminal.progress("training, then measuring") as on_progress:
            metrics = train_run(run, folder, resume=resume, on_progress=on_progress)
    except KeyboardInterrupt:
        terminal.tell("memoryformer: interrupted; the same command goes on where it stopped")
        raise typer.Exit(130) from None
    terminal.show(metrics, as_json, lambda found: [*terminal.training(found), ("saved", str(folder))])


@app.command("eval")
def evaluate(
    checkpoint: Checkpoint,
    tasks: Annotated[
        str, typer.Option(help="Tasks of lm-evaluation-harness with commas between (memoryformer[eval]).")
    ] = "",
    text: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A text file, for the loss and bits per byte."),
    ] = None,
    context_length: Annotated[
        int, typer.Option(help="Tokens in a window of the text; the model's longest if 0.", min=0)
    ] = 0,
    limit: Annotated[Optional[int], typer.Option(help="Examples of each task.")] = None,  # noqa: UP045
    as_json: AsJson = False,
) -> None:
    """Bits per byte of a text, and benchmarks."""
    from memoryformer.texts import benchmarks, find_tasks, read_text, score_text

    names = [name for name in tasks.split(",") if name]
    if not names and text is None:
        raise MemoryFormerError("say what to measure: --text FILE, --tasks NAMES, or both")
    content = None if text is None else read_text(text)
    manager = find_tasks(names) if names else None
    model, tokenizer = load_model(checkpoint)
    measured: dict[str, Any] = {}
    if content is not None:
        _check_context(model, context_length)
        measured["text"] = asdict(score_text(model, tokenizer, content, context_length or _longest(model)))
    if names:
        measured["tasks"] = benchmarks(model, tokenizer, names, manager, limit)
    terminal.show(measured, as_json, terminal.evaluation)


@app.command()
def generate(
    checkpoint: Checkpoint,
    prompt: Annotated[str, typer.Argument(help="How the text begins.")],
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to add.", min=1)] = 64,
    temperature: Annotated[float, typer.Option(help="Of sampling; 0 takes the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 0,
) -> None:
    """Go on with a text."""
    import torch

    if not 0 <= temperature < float("inf"):
        raise MemoryFormerError(f"--temperature {temperature:g}: it must be 0 or more, and finite")
    model, tokenizer = load_model(checkpoint)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"].to(model.device)
    if not ids.numel():
        raise MemoryFormerError("the prompt is empty: give at least a word to begin with")
    _check_room(model, ids.shape[1], max_new_tokens)
    if hasattr(model, "compile_decode"):  # not of a model that was changed by apply_memoryformer
        model.compile_decode()
    torch.manual_seed(seed)
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    made = model.generate(ids, max_new_tokens=max_new_tokens, **sampling)
    typer.echo(tokenizer.decode(made[0], skip_special_tokens=True))


@app.command()
def flops(
    model: Annotated[str, typer.Argument(metavar="PRESET|CKPT", help="tiny, small, base, or a saved model.")],
    seq: Annotated[int, typer.Option(help="Tokens in the sequence.", min=1)] = 2048,
    variant: Annotated[str, typer.Option(help="Of a preset: paper or official.")] = "paper",
    as_json: AsJson = False,
) -> None:
    """Table 1's FLOPs, with the parameters and bytes that it leaves out beside them."""
    from memoryformer.flops import compare

    if Path(model).exists() or "/" in model:
        config = load_config(model)
    else:
        from memoryformer.hf.config import MemoryFormerConfig

        config = MemoryFormerConfig.preset(model, variant=variant)
    terminal.show(compare(config, seq), as_json, terminal.costs)


@app.command()
def buckets(
    checkpoint: Checkpoint,
    text: TextFile,
    tokens: Tokens = 65_536,
    length: Length = 512,
    figures: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A folder for Figure 4 and others as PNG (memoryformer[plot])."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How evenly a text uses the rows of each layer's tables (Figure 4)."""
    from memoryformer.statistics import bucket_stats
    from memoryformer.texts import token_sequences

    if figures is not None:
        import matplotlib  # noqa: F401  # if it is missing, that is told before the counting

        check_folder(figures, "--figures")
    model, tokenizer = load_model(checkpoint)
    ids = token_sequences(text, tokenizer, tokens, min(length, _longest(model)))
    stats = bucket_stats(model, ids)
    if figures is not None:
        from memoryformer import plots

        figures.mkdir(parents=True, exist_ok=True)
        for draw in (plots.bucket_histogram, plots.bucket_entropy, plots.dead_rows, plots.collision_rate):
            draw(stats).savefig(figures / f"{draw.__name__}.png")
    terminal.show({name: found.summary() for name, found in stats.items()}, as_json, terminal.buckets)


@app.command()
def quantize(
    checkpoint: Checkpoint,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write to.")],
    dtype: Annotated[str, typer.Option(help="int8 (for inference) or bfloat16.")] = "int8",
    as_json: AsJson = False,
) -> None:
    """Store a model's tables in 4 times (int8) or twice (bfloat16) less memory."""
    from memoryformer.quantization import check_dtype, quantize_tables_

    check_dtype(dtype)
    _check_output(output, checkpoint)
    model, tokenizer = load_model(checkpoint)
    before = _table_bytes(model)
    quantize_tables_(model, dtype)
    with whole_folder(output) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    saved = {"output": str(output), "table_bytes": _table_bytes(model), "table_bytes_before": before}
    terminal.show(saved, as_json, terminal.quantized)


@convert_app.command()
def official(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A GPT-NeoX checkpoint of the authors' code.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write to.")],
    as_json: AsJson = False,
) -> None:
    """Convert a checkpoint of the authors' code to one that transformers reads."""
    from memoryformer.convert.official import convert_official

    _check_output(output, str(source))
    model = convert_official(source)
    with whole_folder(output) as folder:
        model.save_pretrained(folder)
    saved = {"output": str(output), "parameters": sum(parameter.numel() for parameter in model.parameters())}
    terminal.show(saved, as_json, terminal.converted)


@app.command()
def probe(
    model: Annotated[str, typer.Argument(metavar="HF_MODEL", help="Any causal language model.")],
    text: TextFile,
    match: Annotated[str, typer.Option(help="Pattern of the layers' names.")] = "*.mlp.*",
    tau: Annotated[int, typer.Option(help="Bits of a chunk.")] = 8,
    score: Annotated[str, typer.Option(help="scaled or softmax.")] = "scaled",
    temperature: Annotated[float, typer.Option(help="Of the score.")] = 1.0,
    tokens: Tokens = 16_384,
    length: Length = 512,
    columns: Annotated[int, typer.Option(help="Outputs of each layer that are fitted.")] = 64,
    as_json: AsJson = False,
) -> None:
    """Can these layers be Memory Layers? Fit error of each, on your own text."""
    from memoryformer.probing import guidance
    from memoryformer.probing import probe as fit
    from memoryformer.texts import token_sequences

    loaded, tokenizer = load_model(model)
    ids = token_sequences(text, tokenizer, tokens, min(length, _longest(loaded)))
    with terminal.progress("fitting") as on_progress:
        found = fit(
            loaded,
            ids,
            match=match,
            tau=tau,
            score=score,
            temperature=temperature,
            columns=columns,
            on_progress=on_progress,
        )
    advice = guidance(found)
    layers = [asdict(layer) for layer in found]
    terminal.show({"layers": layers, "guidance": advice}, as_json, terminal.probed)
    if not as_json:
        typer.echo(f"\n{advice}")


@app.command()
def bench(
    widths: Annotated[str, typer.Option(help="Widths with commas between.")] = "768,2048",
    tokens: Annotated[str, typer.Option(help="Batch sizes with commas between.")] = "1,8,64,1024",
    tau: Annotated[int, typer.Option(help="Bits of a chunk.")] = 8,
    peers: Annotated[bool, typer.Option(help="Also bfloat16, int8, embedding_bag, the official way.")] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    huge_pages: Annotated[
        bool, typer.Option("--huge-pages", help="Tables in huge pages (Linux, CPU).")
    ] = False,
    seconds: Annotated[float, typer.Option(help="For each width and batch size.")] = 10.0,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", "-o", help="A file to write the JSON to as well."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time Memory Layers beside nn.Linear and peers, with cold caches (section 8.2)."""
    from memoryformer.benchmark import bench as measure

    if output is not None and not output.parent.is_dir():
        raise MemoryFormerError(f"--out {output}: there is no folder {output.parent}")
    if output is not None and output.is_dir():
        raise MemoryFormerError(f"--out {output} is a folder; give the file to write to")
    with terminal.progress("timing") as on_progress:
        report = measure(
            _whole_numbers("--widths", widths),
            _whole_numbers("--tokens", tokens),
            tau=tau,
            peers=peers,
            device=device,
            threads=threads,
            huge_pages=huge_pages,
            seconds=seconds,
            on_progress=on_progress,
        )
    if output is not None:
        output.write_text(json.dumps(asdict(report), indent=2) + "\n", "utf-8")
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2))
    else:
        typer.echo("\n".join(terminal.timings(report)))


# Its options, --help among them, are read by tenfold: they are the same for all papers.
@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)
def reproduce(context: typer.Context) -> None:
    """Run the paper's claims as checks; the same as `tenfold run memoryformer`."""
    from memoryformer.reproduce import verb

    verb.reproduce("memoryformer", context)


def _check_output(output: Path, source: str) -> None:
    if output.exists() and Path(source).exists() and output.samefile(source):
        raise MemoryFormerError(f"{output} is the model that is read; give another folder to write to")
    check_new_folder(output, "OUT")


def _check_context(model: Any, tokens: int) -> None:
    limit = _positions(model)
    if limit is not None and tokens > limit:
        raise MemoryFormerError(
            f"--context-length {tokens} is more than the model has positions for (max_position_embeddings "
            f"{limit}): ask for {limit} at most"
        )


def _check_room(model: Any, prompt_tokens: int, new_tokens: int) -> None:
    """The last new token is not read again, so it needs no position."""
    limit = _positions(model)
    if limit is None or prompt_tokens + new_tokens - 1 <= limit:
        return
    room = limit + 1 - prompt_tokens
    raise MemoryFormerError(
        f"--max-new-tokens {new_tokens} is more than the model has positions for (max_position_embeddings "
        f"{limit}): the prompt has {prompt_tokens} tokens, "
        + (f"so ask for {room} at most" if room > 0 else "so give a shorter one")
    )


def _longest(model: Any) -> int:
    return _positions(model) or 2048  # models without positions take any


def _positions(model: Any) -> int | None:
    return getattr(model.config, "max_position_embeddings", None)


def _table_bytes(model: Any) -> int:
    from memoryformer.statistics import memory_layers

    stored = [layer.tables for layer in memory_layers(model).values()]
    return sum(tables.numel() * tables.itemsize for tables in stored)


def _whole_numbers(option: str, text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",") if word]
    except ValueError as error:
        raise MemoryFormerError(f"{option} {text}: write whole numbers with commas between") from error


EXTRAS = {
    "transformers": "hf",
    "huggingface_hub": "hf",  # comes with transformers, and so do the next two
    "tokenizers": "hf",
    "yaml": "hf",
    "scipy": "fit",
    "lm_eval": "eval",
    "matplotlib": "plot",
}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"memoryformer {version('memoryformer')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error that was meant for people is shown as its message alone."""
    warnings.showwarning = lambda message, *_, **__: terminal.tell(f"memoryformer: {message}")
    try:
        app(arguments)
    except MemoryFormerError as error:
        _end(str(error), 2)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package == "memoryformer":  # a mistake of ours
            raise
        if isinstance(error, ModuleNotFoundError) and package:
            extra = EXTRAS.get(package, "reproduce")
            _end(f"this needs {package}, which is not installed: pip install 'memoryformer[{extra}]'", 2)
        _end(str(error), 2)  # says itself what it needs
    except OSError as error:  # a full disk, a folder that may not be written
        _end(str(error), 1)
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # tenfold's and lmlab's errors for people
        if exit_code is None:
            raise
        _end(str(error), exit_code)


def _end(message: str, code: int) -> None:
    terminal.tell(f"memoryformer: {message}")
    sys.exit(code)
