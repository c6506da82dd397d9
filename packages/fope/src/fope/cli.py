"""The `fope` command, whole, hence over 400 lines: every verb shows what a public function returns."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from fope.errors import FopeError

app = typer.Typer(
    name="fope",
    help="Fourier Position Embedding: look at it, train with it, convert models to it, check its claims.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Source = Annotated[str, typer.Argument(metavar="SRC", help="A model's folder or hub id.")]
Target = Annotated[Path, typer.Argument(metavar="DST", help="The folder to write to.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `fope train` wrote.")]
Lengths = Annotated[
    str,
    typer.Option(help="Context lengths with commas between; those of the run's own evaluation if not given."),
]
Assignments = Annotated[
    Optional[list[str]],  # noqa: UP045  # typer reads it at run time
    typer.Option("--set", help="Change a config value: key=value, dots for tables; repeatable."),
]
Line = tuple[str, str]


@app.command()
def inspect(
    checkpoint: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(help="The folder of a FoPE model, instead of the options."),
    ] = None,
    head_dim: Annotated[int, typer.Option(help="Channels of a head.")] = 64,
    theta: Annotated[float, typer.Option(help="RoPE's base.")] = 10_000.0,
    train_length: Annotated[int, typer.Option(help="L, the training length.")] = 512,
    heads: Annotated[int, typer.Option(help="Key-value heads.")] = 8,
    oversample: Annotated[int, typer.Option(help="Waves of the bank for each of RoPE's.")] = 1,
    init_gain: Annotated[float, typer.Option(help="σ, the noise gain of the coefficients.")] = 0.3,
    selftest: Annotated[bool, typer.Option("--selftest", help="Also check the channel layout.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show which pairs are kept and which are clipped, their periods, and the size of the noise.

    --selftest rotates numbers worked out by hand with channels paired j, j + d/2 (half-split) and 2j, 2j + 1
    (interleaved), and looks whether a checkpoint's weights are of the layout that its config says: read as
    the other it is silently another model. It cannot tell (null in JSON) where q and k are one projection, as
    in Phi-3 and GPT-NeoX, where weights are not trained, and where they do not look interleaved as the config
    says. Exit code 1 if any of it fails.
    """
    from fope import inspection
    from fope.config import FopeConfig

    if checkpoint is None:
        config = FopeConfig(head_dim, heads, train_length, theta, init_gain, oversample=oversample)
    else:
        config = _stored(checkpoint)
    found = inspection.inspect_config(config).to_dict()
    if checkpoint is not None:
        found["coefficients"] = asdict(inspection.inspect_checkpoint(checkpoint, config))
    if selftest:
        found["selftest"] = inspection.selftest()
        if checkpoint is not None:
            found["selftest"]["checkpoint"] = inspection.layout_fits(checkpoint, config)
    _show(found, as_json, _inspection)
    if False in found.get("selftest", {}).values():
        raise typer.Exit(1)


def _stored(folder: Path) -> Any:
    if not (folder / "config.json").is_file():  # before transformers, which takes seconds to import
        raise FopeError(f"{folder} holds no model: there is no {folder / 'config.json'}")
    from transformers import AutoConfig

    from fope.hf.config import read, register

    register()
    stored = read(AutoConfig.from_pretrained(folder))
    if stored is None:
        raise FopeError(f"{folder} is no FoPE model; `fope convert` makes one of it")
    return stored.config


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A run's TOML file, or a name such as 60M-c4-512-fope.")],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", "-o", help="The folder to write to; runs/NAME if not given."),
    ] = None,
    assignments: Assignments = None,
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would take.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model from scratch as a file or the paper says, measure it and save it.

    On many GPUs: torchrun --nproc-per-node 8 -m fope train CONFIG (see launch/).
    """
    from fope.reproduce.training import plan, run_config, train_run

    run = run_config(config, assignments or ())
    if dry_run:
        _show(asdict(plan(run)), as_json, _plan)
        return
    folder = output or Path("runs") / Path(config).stem
    with _progress_bar("training, then measuring") as on_progress:
        metrics = train_run(run, folder, resume=resume, on_progress=on_progress)
    _show(metrics, as_json, lambda found: _training(found, folder))


@app.command("eval")
def evaluate(
    run: RunFolder,
    lengths: Lengths = "",
    corpus: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Another text than the run's own (see `lmlab corpus list`)."),
    ] = None,
    max_tokens: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Tokens of each split, 0 for all; as in the run's own evaluation if not given.", min=0
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Perplexity of a trained model by context length."""
    from fope.reproduce.training import evaluate_run

    _show(evaluate_run(run, _whole_numbers(lengths), corpus, max_tokens), as_json, _perplexities)


@app.command()
def passkey(
    run: RunFolder,
    lengths: Lengths = "",
    trials: Annotated[int, typer.Option(help="Texts for each length and depth.", min=1)] = 10,
    as_json: AsJson = False,
) -> None:
    """How often a trained model finds a number that was said once, far back."""
    from fope.reproduce.training import find_passkeys

    wanted = _whole_numbers(lengths)
    with _progress_bar("asking") as on_progress:
        found = find_passkeys(run, wanted, trials=trials, on_progress=on_progress)
    _show(found, as_json, _passkeys)


@app.command()
def convert(
    source: Source,
    target: Target,
    train_length: Annotated[int, typer.Option(help="The length that it will be trained at from now on.")],
    init_gain: Annotated[float, typer.Option(help="σ, the noise gain of the coefficients.")] = 0.3,
    zero_sin: Annotated[float, typer.Option(help="ζ, the sine of clipped pairs: 0 or 1.")] = 0.0,
    preserve: Annotated[bool, typer.Option(help="With ζ = 1, rescale the weights to keep the loss.")] = True,
    seed: Annotated[int, typer.Option(help="Of the coefficients.")] = 0,
    scaling: Annotated[
        str, typer.Option(help='Of the frequencies, JSON: {"type": "yarn", "factor": 16, ...} or "linear".')
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Give a trained RoPE model Fourier position embeddings; it keeps its loss and is then fine-tuned.

    A FoPE model is taken to a longer training length; it keeps its gain and ζ, and its scaling where
    --scaling gives no other ({} takes it away). The tokenizer is written beside the model.
    """
    rescaling = _json_object(scaling) if scaling else None
    source = _found(source, target)  # before transformers, which takes seconds to import
    from fope.hf import convert_to_fope, extend
    from fope.hf.config import read
    from fope.hub import load_model

    model = load_model(source)
    if read(model.config) is None:
        convert_to_fope(
            model,
            train_length=train_length,
            init_gain=init_gain,
            seed=seed,
            zero_sin=zero_sin,
            preserve=preserve,
            scaling=rescaling,
        )
    else:
        extend(model, train_length, seed=seed, scaling=rescaling)
    _save(model, source, target, as_json)


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise FopeError(f"--scaling {text} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise FopeError(f"--scaling {text} must be a JSON object")
    return found


@app.command()
def fold(
    source: Source,
    target: Target,
    zero_sin: Annotated[float, typer.Option(help="ζ that the result has: 0 or 1.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Rewrite a FoPE model for the other sine of clipped pairs: the same function, for other engines."""
    source = _found(source, target)
    from fope.hf import fold_zero_phase
    from fope.hub import load_model

    _save(fold_zero_phase(load_model(source), zero_sin), source, target, as_json)


def _found(source: str, target: Path) -> str:
    from fope.hub import find_model

    if target.exists() and not target.is_dir():
        raise FopeError(f"{target} is a file; DST is the folder to write to")
    if target.exists() and Path(source).exists() and target.samefile(source):
        raise FopeError(f"{target} is the model that is read; give another folder to write to")
    return find_model(source)


def _save(model: Any, source: str, target: Path, as_json: bool) -> None:
    from fope.hf.config import read
    from fope.hub import load_tokenizer

    model.save_pretrained(target)
    try:
        load_tokenizer(source).save_pretrained(target)
    except FopeError as error:
        _tell(f"fope: {error}; none is written to {target}")
    stored = read(model.config)
    assert stored is not None  # it has just been converted, or folded
    config = stored.config
    saved = {
        "output": str(target),
        "train_length": config.train_length,
        "kept": config.num_kept,
        "pairs": config.num_pairs,
        "zero_sin": config.zero_sin,
    }
    summary = f"{config.num_kept} of {config.num_pairs} pairs kept at L={config.train_length}"
    _show(saved, as_json, lambda _: [(str(target), f"{summary}, zero_sin {config.zero_sin:g}")])


# Its options, --help among them, are read by tenfold: they are the same for all papers.
@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)
def reproduce(context: typer.Context) -> None:
    """Run the paper's claims as checks; the same as `tenfold run fope`."""
    from fope.reproduce import verb

    verb.reproduce("fope", context)


def _whole_numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",") if word]
    except ValueError as error:
        raise FopeError(f"--lengths {text}: write whole numbers with commas between") from error


RESULTS = {True: "passed", False: "FAILED", None: "cannot tell (see fope inspect --help)"}


def _inspection(found: Any) -> list[Line]:
    config, pairs = found["config"], found["pairs"]
    lines = [
        ("pairs", f"{found['kept']} of {len(pairs)} kept (R), the others clipped to frequency zero"),
        ("waves", f"{found['frequencies']} in the bank (D)"),
        ("noise", f"std {found['std']:.4g}"),
        ("training length", str(config["train_length"])),
    ]
    for pair in pairs:
        lines.append(
            (f"period {pair['index']}", f"{pair['period']:.6g}{'' if pair['kept'] else '  clipped'}")
        )
    if "coefficients" in found:
        stored = found["coefficients"]
        sets = f"{stored['layers']} layers" if stored["layers"] else "one set for all layers"
        lines.append(("coefficients", f"{stored['shape']} of the layout {stored['layout']}, {sets}"))
        lines.append(("misled pairs", f"{stored['misled']} led by another pair's wave"))
    for layout, passed in found.get("selftest", {}).items():
        name = "layout of the checkpoint" if layout == "checkpoint" else f"rotation, {layout}"
        lines.append((f"{name}:", RESULTS[passed]))
    return lines


def _plan(found: Any) -> list[Line]:
    return [
        ("parameters", f"{found['parameters']:,}"),
        ("without embeddings", f"{found['parameters_without_embeddings']:,}"),
        ("steps", f"{found['steps']:,} of {found['tokens_per_step']:,} tokens"),
        ("tokens", f"{found['tokens']:,}"),
        (
            "memory",
            f"{found['state_bytes'] / 2**30:.1f} GiB for weights, gradients and AdamW, and activations",
        ),
    ]


def _training(metrics: Any, folder: Path) -> list[Line]:
    lines = [("parameters", f"{metrics['parameters']:,}")]
    lines += [(f"perplexity, {split}", f"{score['ppl']:.2f}") for split, score in metrics["splits"].items()]
    return [*lines, ("saved", str(folder))]


def _perplexities(measured: Any) -> list[Line]:
    return [
        (f"perplexity, {split}, {length}", f"{score['ppl']:.2f}")
        for split, scores in measured.items()
        for length, score in scores.items()
    ]


def _passkeys(scores: Any) -> list[Line]:
    return [
        (f"passkeys found, {score['length']} tokens, depth {score['depth']:g}", f"{score['accuracy']:.0%}")
        for score in scores
    ]


def _show(value: Any, as_json: bool, lines: Callable[[Any], list[Line]]) -> None:
    if int(os.environ.get("RANK", "0")):  # of many processes the first one speaks
        return
    if as_json:
        typer.echo(json.dumps(value, indent=2))
        return
    rows = lines(value)
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        typer.echo(f"{name} {' ' * (width - len(name))}{text}")


def _tell(message: str) -> None:
    typer.echo(message, err=True)


@contextmanager
def _progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    shown = console.is_terminal and os.environ.get("RANK", "0") == "0"
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not shown, transient=True) as progress:
        task = progress.add_task(what, total=None)
        try:
            yield lambda done, total: progress.update(task, completed=done, total=total)
        except KeyboardInterrupt:
            _tell("fope: interrupted; the same command goes on where it stopped")
            raise typer.Exit(130) from None


EXTRAS = {"transformers": "hf", "huggingface_hub": "hf", "safetensors": "hf"}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fope {version('fope')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error that was meant for people is shown as its message alone."""
    warnings.showwarning = lambda message, *_, **__: _tell(f"fope: {message}")
    try:
        app(arguments)
    except FopeError as error:
        _tell(f"fope: {error}")
        sys.exit(2)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package == "fope":  # a mistake of ours
            raise
        if isinstance(error, ModuleNotFoundError) and package:
            extra = EXTRAS.get(package, "reproduce")
            _tell(f"fope: this needs {package}, which is not installed: pip install 'fope[{extra}]'")
        else:
            _tell(f"fope: {error}")  # says itself what it needs
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that may not be written
        _tell(f"fope: {error}")
        sys.exit(1)
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # tenfold's and lmlab's errors for people
        if exit_code is None:
            raise
        _tell(f"fope: {error}")
        sys.exit(exit_code)
