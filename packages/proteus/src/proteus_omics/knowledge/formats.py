"""Files of knowledge, known by what is in them: GMT, GAF and OBO, SIF, STRING, BioGRID, plain tables."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from proteus_omics.errors import FormatError

SUFFIXES = (".gmt", ".gaf", ".obo", ".sif", ".tsv", ".txt", ".csv")
PAIRS = [
    ("gene_a", "gene_b"),
    ("source", "target"),
    ("protein1", "protein2"),
    ("Official Symbol Interactor A", "Official Symbol Interactor B"),
]
SYMBOLS = [("accession_number", "gene"), ("accession", "symbol"), ("Entry", "Gene Names (primary)")]
STRING_NAMES = ("#string_protein_id", "preferred_name")
STRING_SCORE = 700  # "high confidence"
ASPECTS = {"P": "go_bp", "C": "go_cc", "F": "go_mf"}


@dataclass(frozen=True)
class GeneSet:
    """A term, its name and the symbols of its genes."""

    term: str
    name: str
    genes: frozenset[str]


@dataclass
class Parts:
    """What was read so far; names that come from another file are put in at the end."""

    sets: dict[str, dict[str, GeneSet]] = field(default_factory=dict)
    edges: set[tuple[str, str]] = field(default_factory=set)
    symbols: dict[str, str] = field(default_factory=dict)
    term_names: dict[str, str] = field(default_factory=dict)
    string_names: dict[str, str] = field(default_factory=dict)

    def named_sets(self) -> dict[str, dict[str, GeneSet]]:
        """The sets, those of a GAF file with the names of the OBO file."""
        names = self.term_names
        return {
            collection: {
                term: GeneSet(term, names.get(term, item.name), item.genes) for term, item in terms.items()
            }
            for collection, terms in sorted(self.sets.items())
        }

    def named_edges(self) -> frozenset[tuple[str, str]]:
        """The edges in alphabetical order, those of STRING with symbols, none of a gene with itself."""
        names = self.string_names
        named = ((names.get(a, a), names.get(b, b)) for a, b in self.edges)
        return frozenset((min(pair), max(pair)) for pair in named if pair[0] != pair[1])


def is_knowledge(path: Path) -> bool:
    """Does the name end as one of a knowledge file?"""
    return path.name.lower().removesuffix(".gz").endswith(SUFFIXES)


def read_file(path: Path, parts: Parts) -> bool:
    """Add what the file holds to `parts`; False for a table whose columns say nothing that is known.

    Raises `FormatError` naming the line of a damaged file.
    """
    name = path.name.lower().removesuffix(".gz")
    try:
        with _opened(path) as lines:
            if name.endswith(".gmt"):
                terms = dict(_gmt(lines))
                parts.sets.setdefault(_collection(path, terms), {}).update(terms)
            elif name.endswith(".gaf"):
                _gaf(lines, parts)
            elif name.endswith(".obo"):
                parts.term_names.update(_obo(lines))
            elif name.endswith(".sif"):
                parts.edges.update(_sif(lines))
            else:
                return _table(lines, parts)
    except FormatError as error:
        raise FormatError(f"{path.name}, {error}") from error
    except (ValueError, IndexError, EOFError, gzip.BadGzipFile, zlib.error, csv.Error) as error:
        raise FormatError(f"{path.name} cannot be read: {error}") from error
    return True


def _opened(path: Path) -> IO[str]:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _collection(path: Path, terms: dict[str, GeneSet]) -> str:
    """`hallmark` of Hallmark sets, else the file's name without its version: `go_bp` of go_bp_2020.gmt."""
    if terms and all(term.startswith("HALLMARK_") for term in terms):
        return "hallmark"
    stem = re.sub(r"\.gmt(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    return re.sub(r"[._-]v?\d.*$", "", stem).lower() or stem


def _gmt(lines: Iterable[str]) -> Iterator[tuple[str, GeneSet]]:
    for number, line in enumerate(lines, 1):
        fields = line.rstrip("\r\n").split("\t")
        if fields == [""]:
            continue
        if len(fields) < 2:
            raise FormatError(f"line {number}: a set needs an id, a name and genes, with tabs between them")
        term, name = fields[0].strip(), fields[1].strip()
        if name in ("", "na", term) or name.startswith(("http://", "https://", "> http")):
            name = term.removeprefix("HALLMARK_").replace("_", " ").lower() if "_" in term else term
        yield term, GeneSet(term, name, frozenset(gene.strip() for gene in fields[2:] if gene.strip()))


def _gaf(lines: Iterable[str], parts: Parts) -> None:
    """Direct annotations, those with NOT left out (GAF 2.x: symbol 3, qualifier 4, term 5, aspect 9)."""
    genes: dict[str, dict[str, set[str]]] = {}
    for number, line in enumerate(lines, 1):
        if line.startswith("!"):
            continue
        fields = line.split("\t")
        if fields[8] not in ASPECTS:
            raise FormatError(f"line {number}: the aspect {fields[8]!r} is none of {', '.join(ASPECTS)}")
        if "NOT" not in fields[3].split("|"):
            genes.setdefault(ASPECTS[fields[8]], {}).setdefault(fields[4], set()).add(fields[2])
    for collection, terms in genes.items():
        named = {term: GeneSet(term, term, frozenset(members)) for term, members in terms.items()}
        parts.sets.setdefault(collection, {}).update(named)


def _obo(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    term = ""
    for line in lines:
        key, _, value = line.strip().partition(": ")
        if key == "id":
            term = value
        elif key == "name" and term:
            yield term, value


def _sif(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """`A relation B C ...`: A has an edge with each of the others."""
    for line in lines:
        fields = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
        for other in fields[2:]:
            yield fields[0], other


def _table(lines: IO[str], parts: Parts) -> bool:
    first = lines.readline().rstrip("\r\n")
    delimiter = next((sign for sign in "\t, " if sign in first), "\t")
    header = next(csv.reader([first], delimiter=delimiter))
    rows = csv.reader(
        lines, delimiter=delimiter, quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    )
    known = {column.strip(): at for at, column in enumerate(header)}
    for a, b in PAIRS:
        if a in known and b in known:
            score = known.get("combined_score")
            parts.edges.update(
                (row[known[a]], row[known[b]])
                for row in rows
                if row and (score is None or int(row[score]) >= STRING_SCORE)
            )
            return True
    for key, value in [*SYMBOLS, STRING_NAMES]:
        if key in known and value in known:
            named = ((row[known[key]], row[known[value]]) for row in rows if row)
            target = parts.string_names if key == STRING_NAMES[0] else parts.symbols
            for accession, symbol in named:
                target.setdefault(accession, symbol.strip())
            return True
    return False
