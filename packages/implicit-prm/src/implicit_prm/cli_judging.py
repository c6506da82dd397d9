"""The verbs of the `implicit-prm` command that judge or show scored responses, and load no model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from implicit_prm import screen

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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
    as_json: AsJson = False,
) -> None:
    """Accuracy of best-of-n and of votes, beside a random response and the best one there is.

    Responses with equal prompts compete. A line says by its column label (0 to 1) whether it is right, or by
    answer, which its final answer is compared with. Intervals: 95 %, prompts resampled.
    """
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
    screen.show(
        [asdict(row) for row in rows],
        as_json,
        lambda: screen.table(
            ("", *(f"n = {size}" for size in sizes)),
            ((method, *(cells[method, size] for size in sizes)) for method in methods),
        ),
    )
    screen.tell(f"implicit-prm: {len(found.ids)} prompts, {sum(map(len, found.ids))} responses")
    if answers is None:
        screen.tell(
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
    """Print a line of JSON for each prompt: the majority's answer, the weighted vote's, the best response.

    "best" is the id of the response with the highest score. How often they are right: `implicit-prm bon`.
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
