"""Publish finished runs: copy results/<paper>/<scale>/ to docs/results/, and their claims into the READMEs.

    python tools/publish_results.py lpa

The table between `<!-- claims:begin -->` and `<!-- claims:end -->` in packages/<paper>/README.md, and the one
between `<!-- papers:begin -->` and `<!-- papers:end -->` in README.md, come from the claims.json files in
docs/results and from nothing else: a README never says what no run measured.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Never

from tenfold.claims import SCALES
from tenfold.results import ClaimResult, ClaimsFile, RunFolder

ROOT = Path(__file__).resolve().parent.parent
FILES = ("claims.json", "metrics.json", "config.toml", "environment.json")


def main() -> None:
    """Publish the papers named on the command line."""
    parser = argparse.ArgumentParser(
        description="Copy finished runs to docs/results and their claims to READMEs."
    )
    parser.add_argument("papers", nargs="+")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument(
        "--dirty", action="store_true", help="also publish runs of source with uncommitted changes"
    )
    arguments = parser.parse_args()
    for paper in arguments.papers:
        copied = publish(paper, arguments.results, ROOT, dirty=arguments.dirty)
        print(f"{paper}: published {', '.join(copied)}")


def publish(paper: str, results: Path, root: Path, *, dirty: bool = False) -> list[str]:
    """Publish a paper's finished runs into the workspace at `root`; return their scales.

    Ends the program with a message if there is none, one was made of source with uncommitted changes and
    `dirty` does not allow it, a file is damaged, or a README has no place for it.
    """
    folders: dict[str, RunFolder] = {scale: RunFolder(results / paper / scale) for scale in SCALES}
    runs = {scale: run for scale, run in folders.items() if run.read_claims(fail) is not None}
    if not runs:
        fail(f"there is no finished run of {paper} in {results}: run `make {paper}` first")
    changed = [scale for scale, run in runs.items() if is_dirty(run)]
    if changed and not dirty:
        fail(
            f"{paper} at {', '.join(changed)} was run with uncommitted changes, so no commit gives it again: "
            "commit and run it anew, or publish it so by --dirty"
        )
    for scale, run in runs.items():
        copy_run(run, root / "docs" / "results" / paper / scale)
    write_between(root / "packages" / paper / "README.md", "claims", claims_table(published(paper, root)))
    write_between(root / "README.md", "papers", papers_table(root))
    return list(runs)


def is_dirty(run: RunFolder) -> bool:
    """Return whether the run's source had changes that its commit lacks."""
    environment = run.read_environment(fail)
    return environment is not None and environment.git is not None and environment.git.dirty


def copy_run(run: RunFolder, target: Path) -> None:
    """Put one finished run in the place of the one that was published before."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(run.path / name, target / name)
    if run.figures.exists():
        shutil.copytree(run.figures, target / "figures")


def published(paper: str, root: Path) -> list[ClaimsFile]:
    """Return the published claims of a paper, a file a scale."""
    folders = [RunFolder(root / "docs" / "results" / paper / scale) for scale in SCALES]
    return [claims for folder in folders if (claims := folder.read_claims(fail)) is not None]


def claims_table(scales: list[ClaimsFile]) -> str:
    """Return the markdown table: a row a claim, a column a scale."""
    names = [claims.scale for claims in scales]
    by_id = [{claim.id: claim for claim in claims.claims} for claims in scales]
    rows = [f"| claim | the paper | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for claim in {claim.id: claim for claims in by_id for claim in claims.values()}.values():
        cells = [outcome(claims.get(claim.id)) for claims in by_id]
        row = (f"**{claim.id}** {claim.statement}", paper_number(claim), *cells)
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |")
    return "\n".join(rows)


def papers_table(root: Path) -> str:
    """Return the markdown table of all papers: how many claims held at which scale."""
    rows = ["| package | what it is | what the published runs say |", "|---|---|---|"]
    for pyproject in sorted(root.glob("packages/*/pyproject.toml")):
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
        if "tenfold.experiments" in project.get("entry-points", {}):
            name = pyproject.parent.name
            said = [f"{claims.scale}: {tally(claims)}" for claims in published(name, root)]
            rows.append(
                f"| [`{name}`](packages/{name}/README.md) | {project['description']} "
                f"| {'<br>'.join(said) or 'no run is published yet'} |"
            )
    return "\n".join(rows)


def tally(claims: ClaimsFile) -> str:
    """Return for example `3 held, 1 did not hold`."""
    counts = Counter(claim.verdict.value for claim in claims.claims)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())


def outcome(claim: ClaimResult | None) -> str:
    """Return the verdict with the number and its interval, or why there is none."""
    if claim is None:
        return ""
    if claim.ours is None or claim.reason:
        return claim.outcome
    return f"{claim.ours.estimate()}<br>**{claim.verdict.value}**"


def paper_number(claim: ClaimResult) -> str:
    """Return what the paper says, in words or as a number."""
    return claim.paper_text or ("" if claim.paper_value is None else f"{claim.paper_value:g}")


def write_between(readme: Path, name: str, text: str) -> None:
    """Replace what stands between the two markers `name` of a README."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found_begin, rest = readme.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        fail(f"{readme} has no place for a table: {begin} ... {end}")
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def fail(message: str) -> Never:
    """End the program: a damaged or missing file must not pass for a result."""
    sys.exit(f"publish_results: {message}")


if __name__ == "__main__":
    main()
