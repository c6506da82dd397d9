"""What several verbs of the `medxpertqa` command share: options, messages, and how runs are loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from medxpertqa.errors import MedXpertQAError

if TYPE_CHECKING:
    from medxpertqa.results import Results

Subset = Annotated[
    Optional[str],  # noqa: UP045  # typer reads it at run time
    typer.Option(help="text, mm, text/dev, mm/dev, text/o1, mm/o1, synthetic/text or synthetic/mm."),
]
Data = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="A file of questions instead of the hub: .jsonl, .jsonl.gz, .json, .parquet or .zip."),
]
ImagesFrom = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--images", help="images.zip or a folder; for the sets of the hub not needed."),
]
AllowRevision = Annotated[
    bool, typer.Option("--allow-revision", help="Take questions that are not those of the pinned revision.")
]
ErrorsAs = Annotated[
    Literal["wrong", "exclude"],
    typer.Option(
        "--errors", help="Count replies that could not be had as wrong, as officially, or not at all."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JsonFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--out", "-o", help="Write the JSON to a file, whatever is printed."),
]


def tell(message: str) -> None:
    """A message to stderr."""
    typer.echo(message, err=True)


def show(value: Any, as_json: bool, out: Path | None, tables: Callable[[], None]) -> None:
    """The value as JSON, or what `tables` prints of it; the JSON into the file as well, if one is given."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    if as_json:
        typer.echo(text)
    else:
        tables()


def assignments(option: str, entries: Sequence[str] | None) -> dict[str, Any]:
    """key=value, the value as JSON or else as it is. Raises `MedXpertQAError` for an entry without =."""
    found: dict[str, Any] = {}
    for entry in entries or ():
        key, sign, value = entry.partition("=")
        if not sign:
            raise MedXpertQAError(f"{option} {entry}: write key=value")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that were given."""
    return {
        key: value
        for key, value in values.items()
        if value is not None and value is not False and value != {}
    }


def load_run(
    path: Path, subset: str | None = None, data: Path | None = None, images: Path | None = None
) -> Results:
    """A run, joined with its questions where the options name them."""
    from medxpertqa.hub import load_questions
    from medxpertqa.images import ImageStore
    from medxpertqa.importing import load_results

    if subset is None and data is None:
        if images is not None:
            raise MedXpertQAError(
                "--images tells which questions share one; name the questions too, --subset or --data"
            )
        return load_results(path)
    questions = load_questions(subset or "text", data)
    return load_results(path, questions=questions, images=ImageStore(images) if images else None)


@contextmanager
def interruptible(goes_on: str = "the same command goes on where it stopped") -> Iterator[None]:
    """Ctrl-C ends with exit code 130, and says what the user can do."""
    try:
        yield
    except KeyboardInterrupt:
        tell(f"medxpertqa: interrupted; {goes_on}")
        raise typer.Exit(130) from None
