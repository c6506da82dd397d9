"""The verbs of the `implicit-prm` command about the policy that responds: its samples, and what they cost."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from implicit_prm import cli_options, terminal
from implicit_prm.errors import ImplicitPRMError, PromptTooLongError, RowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from implicit_prm.jobs import Row
    from implicit_prm.sampling import Sampler

# Prompts whose responses are drawn by one call.
PROMPTS_AT_ONCE = 64

_OF_A_RESPONSE = (
    *("completion", "completion_ids", "label", "truncated"),
    *("step_spans", "step_ends", "step_labels", "first_error"),
)


def sample(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="JSON lines with a prompt; MATH-500 and GSM8K as they are.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="JSON lines: a line a response.")],
    model: cli_options.Model,
    n: Annotated[int, typer.Option("--n", help="Responses to each prompt.", min=1)] = 8,
    temperature: Annotated[float, typer.Option(help="0: always the most probable token.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="The share of the probability that is drawn from.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of a response.", min=1)] = 1024,
    seed: Annotated[int, typer.Option(help="The same seed gives the same responses.", min=0)] = 0,
    tokens: Annotated[
        bool,
        typer.Option(
            "--tokens",
            help="Write token ids instead of text, for a reward model with the policy's tokenizer: then the "
            "very tokens that were drawn are scored, the end included.",
        ),
    ] = False,
    backend: cli_options.Backend = "hf",
    options: cli_options.Options = None,
    shard: cli_options.ShardOf = "1/1",
) -> None:
    """Draw responses to prompts, to be scored or trained on.

    Where IN has the right answer, each response is graded by it: label is 1 or 0. An interrupted run is gone
    on from by the same command.
    """
    from implicit_prm.jobs import LineJob, Shard
    from implicit_prm.records import read_rows
    from implicit_prm.sampling import check_settings

    check_settings(n, temperature, top_p, max_tokens, seed)
    given = cli_options.assignments("--option", options)

    def read(path: Path) -> Iterator[dict[str, Any]]:
        for number, row in enumerate(read_rows(path), 1):
            if ("prompt" not in row and "prompt_ids" not in row) or "completions" in row:
                raise ImplicitPRMError(f"{path}, row {number} is no prompt; its columns are {sorted(row)}")
            asked = {key: value for key, value in row.items() if key not in _OF_A_RESPONSE}
            for which in range(n):
                yield {**asked, "id": f"{row.get('id', number)}-{which}"}

    how = {"n": n, "temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "seed": seed}
    fixed = {"model": model, "backend": backend, "options": given, "tokens": tokens, **how}
    job = LineJob(source, out, read, fixed, Shard.parse(shard), PROMPTS_AT_ONCE * n)
    if job.complete:
        terminal.tell(f"implicit-prm: all {job.n_rows} responses are in {out} already")
        return
    from implicit_prm.backends.loading import load_sampler
    from implicit_prm.pretrained import load_tokenizer

    cli_options.quiet_bars()
    sampler = load_sampler(model, backend, given)
    work = _work(sampler, load_tokenizer(given.get("tokenizer", model)), how, tokens)
    n_empty = 0

    def counted(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
        nonlocal n_empty
        for line in work(rows):
            n_empty += line.get("completion") == ""
            yield line

    with cli_options.interruptible(), terminal.progress("sampling") as on_progress:
        done = job.run(counted, on_progress)
    terminal.tell(f"implicit-prm: {done.n_new} of {done.n_rows} responses drawn now")
    if n_empty:
        terminal.tell(
            f"implicit-prm: {n_empty} responses are empty, which have no text to score: leave them out, or "
            "draw with --tokens, where their end is scored"
        )


def _work(
    sampler: Sampler, tokenizer: PreTrainedTokenizerBase, how: dict[str, Any], tokens: bool
) -> Callable[[Sequence[Row]], Iterator[dict[str, Any]]]:
    """Draws the responses of a chunk, in which all rows of a prompt are neighbours."""
    from implicit_prm.sampling import prompt_ids

    def work(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
        # The first row of every prompt, and the id that the prompt has in the file.
        owners = {
            name: next(group) for name, group in groupby(rows, lambda row: row["id"].rpartition("-")[0])
        }
        given = [
            row["prompt"] if row.get("prompt_ids") is None else row["prompt_ids"] for row in owners.values()
        ]
        # Here, where it is known what the file calls them.
        prompts = prompt_ids(given, tokenizer, list(owners))
        # Every chunk has random numbers of its own, the same ones if it is drawn again.
        seed = hashlib.sha256(f"{how['seed']} {rows[0]['id']}".encode()).digest()[:4]
        try:
            drawn = sampler.sample(prompts, **{**how, "seed": int.from_bytes(seed, "big") >> 1})
        except (PromptTooLongError, RowError) as error:
            raise ImplicitPRMError(f"prompt {list(owners)[error.place]!r} {error.told}") from error
        samples = [one for row in drawn for one in row]
        for row, one in zip(rows, samples, strict=True):
            response = {"completion_ids": list(one.token_ids)} if tokens else {"completion": one.text}
            yield {**row, **response, "truncated": one.truncated, **_label(row, one.text)}

    return work


def _label(row: Row, text: str) -> dict[str, int]:
    from implicit_prm.answers import grade

    return {} if row.get("answer") is None else {"label": int(grade(text, str(row["answer"])))}


def flops(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The responses to train on: JSON lines.")],
    model: Annotated[str, typer.Option(help="Its shape and its tokenizer: no weights are loaded.")],
    epochs: Annotated[int, typer.Option(help="Passes over the data.", min=1)] = 1,
    completions: Annotated[
        int, typer.Option(help="Math-Shepherd's completions of every step but the last.", min=1)
    ] = 8,
    steps: cli_options.Steps = "paragraph",
    as_json: cli_options.AsJson = False,
) -> None:
    """What reward models cost in FLOPs on the same responses.

    CE, DPO and Math-Shepherd, as in the paper's Figure 2. Tokens are counted, nothing is run. A completion of
    Math-Shepherd's is taken to be as long as the rest of its response; the reference reads the data once. DPO
    needs labels and trains on one-to-one pairs: it is left out where no prompt has right and wrong responses.
    """
    from implicit_prm.encoding import encode_rows
    from implicit_prm.flops import compare_costs
    from implicit_prm.pretrained import load_tokenizer, without_weights
    from implicit_prm.records import read_responses
    from implicit_prm.steps import token_steps

    cli_options.check_steps(steps)
    rows = list(read_responses(source))
    if not rows:
        raise ImplicitPRMError(f"{source} has no rows")
    encoded = encode_rows(rows, load_tokenizer(model))
    ends = [
        token_steps(one.completion, one.offsets, row.get("step_spans", steps), truncated=one.truncated)[1]
        for row, one in zip(rows, encoded, strict=True)
    ]
    labels = [row.get("label") for row in rows]
    costs = compare_costs(
        without_weights(model),
        encoded,
        ends,
        None if None in labels else [float(label) for label in labels if label is not None],
        completions=completions,
        epochs=epochs,
    )
    ce = costs["ce"].total
    value = {
        name: {**asdict(cost), "total": cost.total, "ratio": cost.total / ce} for name, cost in costs.items()
    }
    cells = ((name, *(f"{number:.3g}" for number in each.values())) for name, each in value.items())
    terminal.show(
        value,
        as_json,
        lambda: terminal.table(("FLOPs", "responses, labels", "training", "all", "times CE"), cells),
    )
