"""The `lpa` command: every verb calls one public function and shows what it returns."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lpa import tables
from lpa.errors import LPAError, MissingExtraError

app = typer.Typer(
    name="lpa",
    help="Low-dimensional projected attention: cost, training, conversion and evaluation of low-rank models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Model = Annotated[str, typer.Argument(help="A folder or hub id of a model that transformers reads.")]
Output = Annotated[Path, typer.Option("--out", "-o", help="The folder to write to.")]
RankText = Annotated[
    Optional[str],  # noqa: UP045  # typer reads it at run time
    typer.Option("--rank", help="A number, or a fraction in (0, 1] of the smaller side of each matrix."),
]
Targets = Annotated[
    str, typer.Option(help="Roles q, k, v, o, ffn, all, or regular expressions; commas between.")
]
ConfigFile = Annotated[Path, typer.Option("--config", help="The run's TOML file (see lmlab's README).")]
Assignments = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="Change a config value: key=value, dots for tables; repeatable."),
]

ATTENTION = "q,k,v,o"
# The extra that brings a package, where it is not `reproduce`.
EXTRAS = {"lm_eval": "eval"}


@app.command()
def estimate(
    model: Annotated[str, typer.Argument(help="A preset, or a folder or hub id with a config.json.")],
    rank: RankText = None,
    targets: Targets = ATTENTION,
    seq_len: Annotated[int, typer.Option(help="Tokens in the context.", min=1)] = 2048,
    as_json: AsJson = False,
) -> None:
    """Count parameters, FLOPs and cached numbers, dense and low-rank; needs no weights.

    Without --rank the model is taken as it is: a preset or a saved model with its own ranks.
    """
    from lpa.accounting import estimate as count

    cost = count(_described(model, rank, targets), seq_len)
    _show(asdict(cost), as_json, lambda _: str(cost))


def _described(model: str, rank: str | None, targets: str) -> Any:
    """A config, or a model on the meta device."""
    import torch

    from lpa.accounting import model_from_config
    from lpa.recipes import presets
    from lpa.surgery import apply_lpa

    if rank is None and model not in presets:
        return _read_config(model)
    with torch.device("meta"):
        if rank is None:
            return presets[model].build()
        config = presets[model].config if model in presets else _read_config(model)
        return apply_lpa(model_from_config(config), _lpa_config(rank, targets))


@app.command()
def train(
    config: ConfigFile,
    output: Output,
    rank: RankText = None,
    assignments: Assignments = None,
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run.")] = True,
    as_json: AsJson = False,
) -> None:
    """Train a low-rank model from scratch as a file says, measure it and save it.

    The file is one of lmlab's; ranks and the rest of LPAConfig stand in its table apply.options, or --rank
    says them. On many GPUs: accelerate launch -m lmlab.train --config FILE --out DIR
    --apply lpa.reproduce.training:modify
    """
    from lpa.reproduce.training import train_file

    changes = [*(assignments or ()), *(() if rank is None else (f"apply.options.rank={_rank(rank)}",))]
    with _progress_bar("training, then measuring") as on_progress:
        metrics = train_file(config, output, changes, resume=resume, on_progress=on_progress)
    _show(metrics, as_json, tables.training)


@app.command()
def sweep(
    config: ConfigFile,
    output: Output,
    ranks: Annotated[str, typer.Option(help="Ranks with commas between; dense is added.")] = "8,16,32,48",
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Train dense and every rank alike; a table and a figure of perplexity against parameters."""
    from lpa.reproduce.training import sweep_ranks

    wanted = [_rank(rank) for rank in ranks.split(",")]
    with _progress_bar("training, then measuring") as on_progress:
        rows = sweep_ranks(config, output, wanted, assignments or (), on_progress=on_progress)
    _show(rows, as_json, tables.sweep)
    if not as_json:
        _console().print(f"Figure: {output / 'pareto.png'}", soft_wrap=True)


@app.command()
def factorize(
    model: Model,
    output: Output,
    rank: RankText = None,
    energy: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Instead of --rank: keep this share of each matrix's squared singular values."),
    ] = None,
    budget: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Instead of --rank: keep this share of the matrices' parameters, spent best."),
    ] = None,
    targets: Targets = ATTENTION,
    calibration: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A text file like the model's use: factors are then fitted to its inputs."),
    ] = None,
    calibration_tokens: Annotated[int, typer.Option(help="Tokens taken of it.", min=1)] = 65_536,
    gguf_file: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The weights file in MODEL, if they are GGUF."),
    ] = None,
    allow_expand: Annotated[bool, typer.Option(help="Allow ranks that save nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Convert a trained dense model: the nearest factors by SVD, whitened where calibration text is given."""
    from lpa.calibration import text_batches
    from lpa.checkpoints import save_pretrained
    from lpa.config import LPAConfig
    from lpa.factorization import factorize as convert
    from lpa.factorization import ranks_by_budget, ranks_by_energy

    if sum(choice is not None for choice in (rank, energy, budget)) != 1:
        _fail("give one of --rank, --energy and --budget")
    dense = _load(model, gguf_file)
    tokenizer, missing = _tokenizer(model, gguf_file)
    if calibration is not None and tokenizer is None:
        _fail(f"--calibration needs the tokenizer of {model}: {missing}")
    names = tuple(targets.split(","))
    pattern = None
    if energy is not None:
        pattern = ranks_by_energy(dense, energy, names)
    elif budget is not None:
        pattern = ranks_by_budget(dense, budget, names)
    config = LPAConfig(
        rank=_rank(rank) if rank is not None else 1,
        targets=names,
        rank_pattern=pattern,
        allow_expand=allow_expand,
    )
    if calibration is None:
        low = convert(dense, config)
    else:
        batches = text_batches(calibration, tokenizer, calibration_tokens)
        low = convert(dense, config, method="whitened", calibration=batches)
    save_pretrained(low, output)
    _save_tokenizer(tokenizer, missing, output)
    _report_saved(low, output, as_json)


@app.command()
def merge(
    model: Model,
    output: Output,
    dtype: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="float32, bfloat16 or float16; as saved if not given."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Multiply the factors out: a plain model that loads without lpa (vLLM, llama.cpp)."""
    import torch

    from lpa.checkpoints import save_pretrained
    from lpa.surgery import merge as multiply

    dtypes = {None: None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in dtypes:
        _fail(f"--dtype {dtype}: it may be float32, bfloat16 or float16")
    dense = multiply(_load(model), dtypes[dtype])
    save_pretrained(dense, output)
    _save_tokenizer(*_tokenizer(model), output)
    _report_saved(dense, output, as_json)


@app.command("eval")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A saved model with its tokenizer.", metavar="MODEL_DIR")],
    corpus: Annotated[str, typer.Option(help="The text (see `lmlab corpus list`).")] = "docs",
    context_length: Annotated[int, typer.Option(help="Tokens in a block.", min=2)] = 128,
    max_blocks: Annotated[int, typer.Option(help="Blocks of each split, 0 for all.", min=0)] = 0,
    tasks: Annotated[
        str, typer.Option(help="Tasks of lm-evaluation-harness with commas between (needs lpa[eval]).")
    ] = "",
    limit: Annotated[Optional[int], typer.Option(help="Examples of each task.")] = None,  # noqa: UP045
    as_json: AsJson = False,
) -> None:
    """Perplexity and bits per byte on a text; benchmarks of lm-evaluation-harness."""
    from lpa.reproduce.training import evaluate_folder

    names = [task for task in tasks.split(",") if task]
    measured = evaluate_folder(model, corpus, context_length, max_blocks=max_blocks, tasks=names, limit=limit)
    _show(measured, as_json, tables.evaluation)


# Its options, --help among them, are read by tenfold: they are the same for all papers.
@app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False
)
def reproduce(context: typer.Context) -> None:
    """Run the paper's claims as checks; the same as `tenfold run lpa`."""
    from lpa.reproduce import verb

    verb.reproduce("lpa", context)


def _load(model: str, gguf_file: str | None = None) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(model, **({"gguf_file": gguf_file} if gguf_file else {}))
    except ImportError as error:
        raise _lacks(model, gguf_file, error) from error
    except (OSError, ValueError) as error:
        if isinstance(error, LPAError):
            raise
        raise LPAError(f"the model {model} cannot be loaded: {error}") from error


def _tokenizer(model: str, gguf_file: str | None = None) -> tuple[Any, str]:
    """The model's tokenizer, or None and why there is none."""
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(model, **({"gguf_file": gguf_file} if gguf_file else {}))
    except ImportError as error:
        raise _lacks(model, gguf_file, error) from error
    except (OSError, ValueError) as error:
        return None, str(error)
    return found, ""


def _lacks(model: str, gguf_file: str | None, error: ImportError) -> MissingExtraError:
    brings = "; pip install 'lpa[reproduce]' brings gguf" if gguf_file else ""
    return MissingExtraError(f"{model} needs a library that is not installed: {str(error).strip()}{brings}")


def _save_tokenizer(tokenizer: Any, missing: str, output: Path) -> None:
    if tokenizer is None:
        _tell(f"lpa: {output} has no tokenizer, for the model's cannot be read: {missing}")
    else:
        tokenizer.save_pretrained(output)


def _read_config(model: str) -> Any:
    from transformers import AutoConfig

    from lpa.recipes import presets

    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise LPAError(
            f"{model} is neither a preset ({', '.join(presets)}) nor a model with a config.json: {error}"
        ) from error


def _lpa_config(rank: str, targets: str) -> Any:
    from lpa.config import LPAConfig

    return LPAConfig(rank=_rank(rank), targets=tuple(targets.split(",")))


def _rank(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        _fail(f"rank {text!r} is neither a whole number nor a fraction")


def _report_saved(model: Any, output: Path, as_json: bool) -> None:
    from lpa.accounting import estimate as count

    cost = count(model, 1)
    saved = {"output": str(output), "params": cost.params, "dense_params": cost.dense_params}
    _show(saved, as_json, lambda _: f"{output}: {cost.params:,} parameters (dense: {cost.dense_params:,})")


def _show(value: Any, as_json: bool, text: Callable[[Any], Any]) -> None:
    if as_json:
        typer.echo(json.dumps(value, indent=2))
    else:
        _console().print(text(value), soft_wrap=isinstance(text(value), str))


def _console(stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 140, highlight=False, markup=False)


def _tell(message: str) -> None:
    _console(stderr=True).print(message, soft_wrap=True)


def _fail(message: str) -> NoReturn:
    raise LPAError(message)


@contextmanager
def _progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=None)
        try:
            yield lambda done, total: progress.update(task, completed=done, total=total)
        except KeyboardInterrupt:
            _tell("lpa: interrupted; the same command goes on where it stopped")
            raise typer.Exit(130) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lpa {version('lpa')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None: ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error that was meant for people is shown as its message alone."""
    warnings.showwarning = lambda message, *_, **__: _tell(f"lpa: {message}")
    try:
        app(arguments)
    except LPAError as error:
        _tell(f"lpa: {error}")
        sys.exit(2)
    except ImportError as error:
        # lmlab's own error about lm-eval names lmlab's extra; its cause names the module, as others do.
        cause = error.__cause__ if isinstance(error.__cause__, ModuleNotFoundError) else error
        package = (cause.name or "").partition(".")[0]
        if package == "lpa":  # a mistake of ours
            raise
        if isinstance(cause, ModuleNotFoundError) and package:
            extra = EXTRAS.get(package, "reproduce")
            _tell(f"lpa: this needs {package}, which is not installed: pip install 'lpa[{extra}]'")
        else:
            _tell(f"lpa: {error}")  # says itself what it needs
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that may not be written
        _tell(f"lpa: {error}")
        sys.exit(1)
    except Exception as error:
        exit_code = getattr(error, "exit_code", None)  # tenfold's and lmlab's errors for people
        if exit_code is None:
            raise
        _tell(f"lpa: {error}")
        sys.exit(exit_code)
