"""The verbs of the `implicit-prm` command that judge or show scored responses, and load no model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from implicit_prm import cli_options, terminal
from implicit_prm.errors import ImplicitPRMError

Scored = Annotated[
    list[Path],
    typer.Argument(
        metavar="SCORED...", help="What `implicit-prm score` wrote; all shards of a job together."
    ),
]
Weight = Annotated[
    str,
    typer.Option(help="What a response weighs in a vote: sigmoid, exp or raw, of its score times --scale."),
]
Scale = Annotated[float, typer.Option(help="Factor on the scores in a vote; 0.001 in the official script.")]


class ManySizes(TyperCommand):
    """Reads `--n 4 16 64` as `--n 4 --n 16 --n 64`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Click's own, on the arguments in click's way."""
        found: list[str] = []
        after_n = False
        for argument in args:
            if after_n and argument.isdecimal():
                found += [] if found[-1] == "--n" else ["--n"]
            else:
                after_n = argument == "--n"
            found.append(argument)
        return super().parse_args(ctx, found)


def bon(
    scored: Scored,
    n: Annotated[
        Optional[list[int]],  # noqa: UP045  # typer reads it at run time
        typer.Option(
            "--n", help="Numbers of responses to choose from, such as --n 4 16 64, the default.", min=1
        ),
    ] = None,
    aggregate: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="The score of a response from its steps: min (the paper's, the default), sum, mean, last, "
            "min_q or softmin(TAU); repeatable."
        ),
    ] = None,
    subset: Annotated[
        str,
        typer.Option(
            help="all: the exact mean over all subsets of n; blocks: disjoint ones; first: as official."
        ),
    ] = "all",
    weight: Weight = "sigmoid",
    scale: Scale = 1.0,
    as_json: cli_options.AsJson = False,
) -> None:
    """Accuracy of best-of-n and of votes, with intervals.

    Beside them a random response and the best one there is. Responses with equal prompts compete. A line says
    by its column label (0 to 1) whether it is right, or by answer, which its final answer is compared with.
    Intervals: 95 %, prompts resampled. Says so if a score chooses the worse the more there is to choose from.
    """
    from implicit_prm.overoptimization import overoptimization_curves
    from implicit_prm.scored_files import candidates, read_scored
    from implicit_prm.selection import bon_table

    found = candidates(read_scored(scored))
    fewest = min(map(len, found.ids))
    sizes = n or [size for size in (4, 16, 64) if size <= fewest] or [fewest]
    scores = {how: found.scores(how) for how in aggregate or ["min"]}
    answers = found.answers if any(answer is not None for row in found.answers for answer in row) else None
    rows = bon_table(
        scores,
        found.correct,
        sizes,
        answers=answers,
        weight=weight,  # type: ignore[arg-type]  # it refuses other words
        scale=scale,
        subset=subset,  # type: ignore[arg-type]
    )
    cells = {(row.method, row.n): f"{row.accuracy:.1%} [{row.low:.1%}, {row.high:.1%}]" for row in rows}
    methods = list(dict.fromkeys(row.method for row in rows))
    terminal.show(
        [asdict(row) for row in rows],
        as_json,
        lambda: terminal.table(
            ("", *(f"n = {size}" for size in sizes)),
            ((method, *(cells[method, size] for size in sizes)) for method in methods),
        ),
    )
    terminal.tell(f"implicit-prm: {len(found.ids)} prompts, {sum(map(len, found.ids))} responses")
    for curve in overoptimization_curves(scores, found.correct, answers=answers) if fewest > 1 else ():
        if curve.alarm is not None:
            terminal.tell(f"implicit-prm: {curve.alarm}")
    if answers is None:
        terminal.tell(
            "implicit-prm: no votes, since no response marks a final answer (as \\boxed{...} or #### ...)"
        )


def vote(
    scored: Scored,
    aggregate: Annotated[
        str, typer.Option(help="The score of a response; sum is its outcome reward.")
    ] = "sum",
    weight: Weight = "sigmoid",
    scale: Scale = 1.0,
) -> None:
    """Vote on the answer of each prompt; pick the best response.

    Prints a line of JSON for each: the majority's answer, the weighted vote's, the id of the response with
    the highest score. How often these are right, `implicit-prm bon` says.
    """
    from implicit_prm.scored_files import candidates, read_scored
    from implicit_prm.voting import majority_vote, weighted_vote

    found = candidates(read_scored(scored), judged=False)
    for prompt, ids, answers, scores in zip(
        found.prompts, found.ids, found.answers, found.scores(aggregate), strict=True
    ):
        voted = weighted_vote(answers, scores, weight, scale)  # type: ignore[arg-type]
        line = {
            "prompt": prompt,
            "responses": len(ids),
            "majority": majority_vote(answers),
            "weighted": voted,
            "best": ids[int(scores.argmax())],
        }
        typer.echo(json.dumps(line, ensure_ascii=False))


def processbench(
    scored: Scored,
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="A step whose score is below it is wrong; by default the best one for --tune-on."),
    ] = None,
    tune_on: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="Scored samples to choose the threshold on, as the GSM8K split; repeatable."),
    ] = None,
    by: Annotated[
        str, typer.Option(help="The score of a step: q at its end, as in the official script, or reward.")
    ] = "q",
    as_json: cli_options.AsJson = False,
) -> None:
    """F1 of finding the first wrong step (ProcessBench).

    Of ProcessBench's files, or of any rows with first_error. Without --threshold and --tune-on the best
    threshold for SCORED itself is taken: an upper bound.
    """
    from implicit_prm.processbench import best_threshold, first_error, processbench_f1

    if threshold is not None and tune_on:
        raise ImplicitPRMError("--threshold and --tune-on both say where the threshold is; give one of them")
    scores, labels = _step_scores(scored, by)
    if threshold is None:
        threshold, _ = best_threshold(*(_step_scores(tune_on, by) if tune_on else (scores, labels)))
        if not tune_on:
            terminal.tell(
                "implicit-prm: the threshold is the best one for these samples: F1 is an upper bound"
            )
    found = processbench_f1([first_error(row, threshold) for row in scores], labels)
    value = {"samples": len(labels), "threshold": threshold, **found}
    rows = ((key, f"{number:.6g}") for key, number in value.items())
    terminal.show(value, as_json, lambda: terminal.table(("", ""), rows))


def _step_scores(paths: Iterable[Path], by: str) -> tuple[list[Any], list[int]]:
    import numpy as np

    from implicit_prm.scored_files import first_wrong_step, read_scored

    if by not in ("q", "reward"):
        raise ImplicitPRMError(f"--by {by}: it may be q or reward")
    scores, labels = [], []
    for line in read_scored(paths):
        label = first_wrong_step(line)
        if label is None:
            raise ImplicitPRMError(
                f"the response {line['id']!r} has no first_error, the index of its first wrong step or -1; "
                "score a file of ProcessBench, or give your rows that column"
            )
        rewards = np.asarray(line["step_rewards"], dtype=np.float64)
        scores.append(rewards.cumsum() if by == "q" else rewards)
        labels.append(label)
    return scores, labels


def view(
    scored: Scored,
    ids: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--id", help="Show this response; repeatable. By default the first ones."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Responses that are shown, if no ids are given.", min=1)] = 5,
    html: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Write a page for a browser, in one file, instead of printing."),
    ] = None,
) -> None:
    """Show responses, coloured by the rewards of tokens and steps."""
    from itertools import islice

    from implicit_prm.heatmap import heatmap_html, heatmap_terminal
    from implicit_prm.responses import ScoredResponse
    from implicit_prm.scored_files import first_wrong_step, prompt_text, read_scored

    if html is not None and (html.is_dir() or not html.parent.is_dir()):
        raise ImplicitPRMError(f"--html {html}: the page is a file in a folder that exists")
    lines = read_scored(scored)
    shown = [line for line in lines if line["id"] in ids] if ids else list(islice(lines, limit))
    if missing := sorted(set(ids or ()) - {line["id"] for line in shown}):
        raise ImplicitPRMError(f"there is no response {missing[0]!r} in what was given")
    responses, errors = [ScoredResponse.from_dict(line) for line in shown], list(map(first_wrong_step, shown))
    if html is None:
        for response, error in zip(responses, errors, strict=True):
            terminal.console().print(heatmap_terminal(response, error))
        return
    page = heatmap_html(responses, prompts=[prompt_text(line) for line in shown], first_errors=errors)
    html.write_text(page, encoding="utf-8")
    typer.echo(html)
