"""The verbs that build a benchmark of one's own: `medxpertqa build scan|run|status|review`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from medxpertqa.cli_options import interruptible, tell
from medxpertqa.errors import MedXpertQAError

app = typer.Typer(help="Build a benchmark from a bank of your own.", no_args_is_help=True)
_Bank = Annotated[Path, typer.Argument(help="JSON lines, a question each; see the README.")]
_Folder = Annotated[Path, typer.Option("--out", "-o", help="The run's folder; the same again resumes.")]


@app.command()
def scan(
    bank: _Bank,
    spacy_model: Annotated[
        str | None, typer.Option(help="An installed pipeline of spaCy: finds names and places too.")
    ] = None,
    min_score: Annotated[float, typer.Option(help="presidio's, from 0 to 1.", min=0, max=1)] = 0.4,
) -> None:
    """Look for patients' data, with the extra phi; exits with 1 if there may be some."""
    from medxpertqa.construct.phi import scan_for_phi
    from medxpertqa.construct.pipeline import read_bank

    found = 0
    with interruptible():
        for finding in scan_for_phi((item.question for item in read_bank(bank)), spacy_model, min_score):
            typer.echo(
                f"{finding.id}, {finding.field}: {finding.kind} {finding.text!r} ({finding.score:.2f})"
            )
            found += 1
    without = "" if spacy_model else " (names and places need --spacy-model)"
    typer.echo(f"{found} places to look at{without}; people must read what they send away")
    if found:
        raise typer.Exit(1)


@app.command()
def run(
    bank: _Bank,
    config: Annotated[Path, typer.Option(help="The settings, TOML.")],
    out: _Folder,
    sheet: Annotated[Path | None, typer.Option(help="Write a review sheet, .csv or .html.")] = None,
) -> None:
    """Filter and change the questions; calls of models that the folder has are not made again."""
    from medxpertqa.construct.endpoints import EndpointModel
    from medxpertqa.construct.pipeline import read_bank, run_pipeline
    from medxpertqa.construct.review import check_sheet_name, export_review
    from medxpertqa.construct.settings import read_settings
    from medxpertqa.images import ImageStore

    if sheet:
        check_sheet_name(sheet)  # before the models are asked, not after
    settings = read_settings(config)
    images = ImageStore(settings.images) if settings.images else None
    with interruptible():
        build = run_pipeline(
            read_bank(bank), settings, out, lambda model: EndpointModel(model, images), images
        )
    for stage, left in build.funnel:
        typer.echo(f"{stage:<12}{left:>8,}")
    if build.retention:
        top, literal = (f"{build.retention[mode]:.1%}" for mode in ("top", "literal"))
        typer.echo(f"the human filter keeps {top} read from the top, {literal} read literally")
    if build.edit_fences:
        typer.echo(str(build.edit_fences))
    typer.echo(f"{build.new_calls} new calls, {len(build.notes)} questions that people must look at")
    for name, (silent, replies) in build.no_letter.items():
        if silent:
            tell(f"medxpertqa: {name}: no letter in {silent} of {replies} replies, which count as wrong")
    if sheet:
        export_review(build.questions, sheet, build.notes)


@app.command()
def status(out: _Folder) -> None:
    """Show how many questions each stage of a finished run removed, and why."""
    from medxpertqa.construct.pipeline import read_decisions

    decisions = read_decisions(out)
    reasons = Counter((d.stage, "kept" if d.keep else "removed", d.reason) for d in decisions)
    for (stage, verdict, reason), count in reasons.items():
        typer.echo(f"{stage:<12}{verdict:<9}{count:>8,}  {reason}")


@app.command()
def review(
    out: _Folder,
    sheets: Annotated[
        list[Path],
        typer.Argument(help="Filled sheets, one a reviewer; a plus before those of the next round."),
    ],
    open_sheet: Annotated[Path | None, typer.Option(help="Write what is open as a new sheet.")] = None,
) -> None:
    """Apply what the reviewers agree on, round by round; writes reviewed.jsonl.

    A round is about what those before it left open: `review first.csv second.csv + third.csv fourth.csv`.
    """
    from medxpertqa.construct.pipeline import read_bank, read_notes
    from medxpertqa.construct.review import check_sheet_name, export_review, import_review
    from medxpertqa.json_lines import write_json_lines

    if open_sheet:
        check_sheet_name(open_sheet)
    rounds = _rounds(sheets)
    notes = read_notes(out)
    questions = [item.question for item in read_bank(out / "questions.jsonl")]
    decided = None
    for number, some in enumerate(rounds, 1):
        decided = import_review(questions, {str(sheet): sheet for sheet in some}, earlier=decided)
        if found := decided.agreement:
            typer.echo(f"round {number}: kappa {found.kappa:.3f}, alpha {found.alpha:.3f}")
    assert decided is not None  # there is one round at least
    write_json_lines(out / "reviewed.jsonl", [question.to_record() for question in decided.kept])
    typer.echo(f"kept {len(decided.kept)}, deleted {len(decided.deleted)}, open {len(decided.open)}")
    for (place, kind), count in decided.errors.most_common():
        typer.echo(f"{place}, {kind}: {count}")
    if open_sheet:
        export_review([q for q in questions if q.id in decided.open], open_sheet, notes)


def _rounds(sheets: list[Path]) -> list[list[Path]]:
    """The sheets between the pluses."""
    rounds: list[list[Path]] = [[]]
    for sheet in sheets:
        if str(sheet) == "+":
            rounds.append([])
        else:
            rounds[-1].append(sheet)
    if not all(rounds):
        raise MedXpertQAError("a plus stands between the sheets of two rounds; a round has none")
    return rounds
