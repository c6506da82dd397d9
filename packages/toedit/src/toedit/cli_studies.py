"""The verbs of the `toedit` command that study a corpus or the theory, and edit nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from toedit import terminal
from toedit.cli_options import AsJson, TextColumn, check_new_file
from toedit.cli_priors import load_editor, model_place
from toedit.errors import ToEditError

if TYPE_CHECKING:
    import numpy as np

Human = Annotated[str, typer.Argument(metavar="HUMAN", help="Human text: a file, folder, pattern or URL.")]
Synthetic = Annotated[str, typer.Argument(metavar="SYNTH", help="Synthetic text, likewise.")]


def theory(
    samples: Annotated[int, typer.Option("--samples", "-T", help="Samples T.", min=3)] = 100,
    dimension: Annotated[int, typer.Option("--dimension", "-d", help="Dimension d.", min=1)] = 10,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the noise.")] = 1.0,
    generations: Annotated[int, typer.Option(help="Edits.", min=1)] = 10,
    masks: Annotated[
        str, typer.Option(help="disjoint (parts one after the other), fresh (drawn anew) or full.")
    ] = "disjoint",
    fraction: Annotated[
        Optional[float],  # noqa: UP045  # typer reads it at run time
        typer.Option(help="Share of the labels that an edit replaces; by default one part of all."),
    ] = None,
    decay: Annotated[float, typer.Option(help="Each edit's share is this times the one before.")] = 1.0,
    runs: Annotated[int, typer.Option(help="Simulated runs.", min=2)] = 2000,
    seed: Annotated[int, typer.Option(help="Of the samples, masks and runs.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Test error of linear regression on edited labels: exact, simulated, and by the paper's formula.

    In units of b = sigma^2 d/(T-d-1). The paper's bound is 2; the process as the paper defines it passes it.
    """
    from toedit import theory as linear
    from toedit.randomness import seeded_generator

    if not sigma > 0:
        raise ToEditError(f"--sigma {sigma}: the errors are shown in units that need a sigma above 0")
    unit = linear.collapse_error(1, dimension, samples, sigma)
    fractions = _fractions(masks, generations, fraction, decay)
    drawn = _masks(masks, samples, fractions, seed)
    X = seeded_generator(seed).standard_normal((samples, dimension))
    simulated = linear.simulate(X, drawn, sigma, runs=runs, seed=seed) / unit
    columns = {
        "exact": linear.exact_error(X, drawn, sigma) / unit,
        "simulated": simulated.mean(axis=0),
        "standard_error": simulated.std(axis=0, ddof=1) / runs**0.5,
        "paper": linear.paper_error(X, drawn, sigma) / unit,
    }
    table = [
        {"generation": n, **{name: float(column[n - 1]) for name, column in columns.items()}}
        for n in range(1, generations + 2)
    ]
    bound = linear.paper_bound(dimension, samples, sigma) / unit
    value: dict[str, Any] = {"unit": unit, "paper_bound": bound, "generations": table}
    if masks == "disjoint":
        value["disjoint_limit"] = linear.disjoint_limit(fractions)
    rows = [
        (
            str(r["generation"]),
            f"{r['exact']:.4f}",
            f"{r['simulated']:.4f} ± {r['standard_error']:.4f}",
            f"{r['paper']:.4f}",
        )
        for r in table
    ]
    terminal.show(value, as_json, lambda: terminal.table(("generation", "exact", "simulated", "paper"), rows))
    terminal.tell(f"toedit: in units of {unit:.6g}; the paper's bound is {bound:.4g}")


def _fractions(kind: str, generations: int, fraction: float | None, decay: float) -> list[float]:
    """The share of the labels that each edit replaces."""
    import numpy as np

    if kind == "full":
        if fraction is not None or decay != 1:
            raise ToEditError("--masks full replaces all labels each time; leave --fraction and --decay out")
        return [1.0] * generations
    share = 1 / generations if fraction is None else fraction
    with np.errstate(over="ignore", invalid="ignore"):  # what grows without end is refused as no share
        return (share * decay ** np.arange(generations)).tolist()


def _masks(kind: str, samples: int, fractions: list[float], seed: int) -> np.ndarray:
    import numpy as np

    from toedit import theory as linear

    if kind == "disjoint":
        return linear.disjoint_masks(samples, fractions)
    if kind == "fresh":
        return linear.fresh_masks(samples, fractions, seed)
    if kind == "full":
        return np.ones((len(fractions), samples), dtype=bool)
    raise ToEditError(f"--masks {kind}: it may be disjoint, fresh or full")


def analyze(
    human: Human,
    synthetic: Synthetic,
    report: Annotated[str, typer.Option(help="The page to write; html is short for analysis.html.")] = "html",
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A prior, for the perplexities: a hub id, a folder, a GGUF file, smollm2-135m."),
    ] = None,
    backend: Annotated[str, typer.Option(help="transformers, vllm or llama_cpp.")] = "transformers",
    seed: Annotated[int, typer.Option(help="Of the map.")] = 0,
    text_column: TextColumn = "text",
) -> None:
    """Compare synthetic with human text: n-grams, a map, and with a prior the perplexities."""
    from toedit.analysis.report import write_report
    from toedit.layouts import TextLayout
    from toedit.texts import read_texts

    path = Path("analysis.html" if report == "html" else report)
    if path.is_dir():
        raise ToEditError(f"--report {report}: it is a folder; name the page to write")
    if not path.exists():
        check_new_file(path)
    layout = TextLayout(text_column)
    corpora = [[text for _, text in read_texts([corpus], layout)] for corpus in (human, synthetic)]
    perplexities = [None, None] if model is None else _perplexities(corpora, model, backend)
    human_ppl, synthetic_ppl = perplexities
    typer.echo(write_report(path, *corpora, human_ppl=human_ppl, synthetic_ppl=synthetic_ppl, seed=seed))


def _perplexities(corpora: list[list[str]], model: str, backend: str) -> list[Any]:
    from toedit.config import OFF, EditConfig
    from toedit.editor import score
    from toedit.texts import perplexity

    editor = load_editor(model, EditConfig(threshold=OFF), backend)
    found = []
    for texts in corpora:
        values = [perplexity(log_p) for log_p in score(texts, editor)]
        found.append([value for value in values if value is not None])
    return found


def mix(
    human: Human,
    synthetic: Synthetic,
    alpha: Annotated[float, typer.Option(help="Share of human tokens, from 0 to 1.")],
    tokens: Annotated[int, typer.Option(help="Tokens of the mixture, exactly.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file of JSON lines to write.")],
    tokenizer: Annotated[
        str, typer.Option(help="The tokenizer that counts: a hub id, a folder, smollm2-135m.")
    ],
    seed: Annotated[int, typer.Option(help="Of the drawing.")] = 0,
    text_column: TextColumn = "text",
    as_json: AsJson = False,
) -> None:
    """Mix human and synthetic text in a given share, to an exact number of tokens."""
    from toedit.backends.loading import load_tokenizer
    from toedit.layouts import TextLayout
    from toedit.mixing import mix as mixed
    from toedit.texts import read_texts

    check_new_file(out)
    corpora = {
        "human": list(read_texts([human], TextLayout(text_column))),
        "synthetic": list(read_texts([synthetic], TextLayout(text_column))),
    }
    mixture = mixed(
        [text for _, text in corpora["human"]],
        [text for _, text in corpora["synthetic"]],
        alpha,
        tokens=tokens,
        tokenizer=load_tokenizer(model_place(tokenizer)),
        seed=seed,
    )
    part = out.with_name(f"{out.name}.part")
    with part.open("w", encoding="utf-8") as file:
        for text, is_human, row in zip(mixture, mixture.human.tolist(), mixture.rows.tolist(), strict=True):
            source = "human" if is_human else "synthetic"
            line = {"id": f"{source}/{corpora[source][row][0]}", "text": text, "source": source}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    os.replace(part, out)
    n_human = int(mixture.sizes[mixture.human].sum())
    counts = {"documents": len(mixture), "tokens": int(mixture.sizes.sum()), "human_tokens": n_human}
    rows = ((key, f"{count:,}") for key, count in counts.items())
    terminal.show(counts, as_json, lambda: terminal.table(("", ""), rows))
