"""Gene sets, an interaction network and a map from accessions to symbols, held as one object."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from proteus_omics.errors import DataError, ProteusWarning
from proteus_omics.knowledge.formats import GeneSet, Parts, is_knowledge, read_file

RECORD = "installed.json"
LEAST_OVERLAP = 0.2  # of the quantified genes; below it the knowledge is of another organism


@dataclass(frozen=True)
class Knowledge:
    """Gene sets by collection, undirected edges between genes, and symbols by UniProt accession.

    `Knowledge()` is empty: what needs knowledge is then skipped. Symbols are compared as they are written.
    """

    sets: Mapping[str, Mapping[str, GeneSet]] = field(default_factory=dict)
    """Collection (`hallmark`, `go_bp`, ...) to term to its set."""
    edges: frozenset[tuple[str, str]] = frozenset()
    """Pairs of genes in alphabetical order, no gene with itself."""
    symbols: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""
    """Of the names and contents of all files, for the keys of steps that depend on them."""

    @classmethod
    def load(cls, folder: str | Path) -> Knowledge:
        """Read every knowledge file of a folder.

        GMT, GAF (with `go-basic.obo` for the names), SIF, STRING `protein.links` with `protein.info`, BioGRID
        tab3, tables with columns `gene_a, gene_b` (or `source, target`), and accession to symbol tables; gzip
        or plain. Raises `DataError` for a folder that is not there or holds none of these, or for an
        installed file that has changed since. Warns of a table whose kind is not known.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"there is no knowledge folder {str(folder)!r}")
        paths = sorted(path for path in folder.iterdir() if path.is_file() and is_knowledge(path))
        if not paths:
            raise DataError(
                f"the folder {str(folder)!r} holds no gene sets, edges or symbols; put GMT or SIF files "
                "there or run `proteus-omics knowledge install`"
            )
        recorded = {name: entry["sha256"] for name, entry in installed(folder).items()}
        parts, digest = Parts(), hashlib.sha256()
        for path in paths:
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if recorded.get(path.name, found) != found:
                raise DataError(f"{path.name} has changed since it was installed; install it again")
            digest.update(f"{path.name} {found}\n".encode())
            if not read_file(path, parts):
                warnings.warn(f"{path.name}: no kind of knowledge table; left out", ProteusWarning, 2)
        return cls(parts.named_sets(), parts.named_edges(), parts.symbols, digest.hexdigest())

    @cached_property
    def genes(self) -> frozenset[str]:
        """Every symbol that a set, an edge or the symbol map names."""
        of_sets = (item.genes for terms in self.sets.values() for item in terms.values())
        of_edges = (frozenset(pair) for pair in self.edges)
        return frozenset().union(*of_sets, *of_edges, self.symbols.values())

    @cached_property
    def partners(self) -> Mapping[str, frozenset[str]]:
        """Gene to the genes that it has an edge with."""
        found: dict[str, set[str]] = {}
        for a, b in self.edges:
            found.setdefault(a, set()).add(b)
            found.setdefault(b, set()).add(a)
        return {gene: frozenset(others) for gene, others in found.items()}

    @cached_property
    def terms(self) -> Mapping[str, frozenset[str]]:
        """Gene to the terms whose sets hold it, over all collections."""
        found: dict[str, set[str]] = {}
        for collection in self.sets.values():
            for term, item in collection.items():
                for gene in item.genes:
                    found.setdefault(gene, set()).add(term)
        return {gene: frozenset(terms) for gene, terms in found.items()}

    def name(self, term: str) -> str:
        """The name of a term, itself where no collection has it."""
        for collection in self.sets.values():
            if term in collection:
                return collection[term].name
        return term

    def symbol(self, accession: str) -> str | None:
        """The symbol of a UniProt accession, of its canonical form where an isoform (`P01833-2`) is asked."""
        return self.symbols.get(accession) or self.symbols.get(accession.partition("-")[0])

    def connected(self, a: str, b: str) -> bool:
        """Is there an edge between the two genes?"""
        return (min(a, b), max(a, b)) in self.edges

    def overlap(self, genes: Iterable[str]) -> float:
        """The share of these genes that any file names; 0 of none."""
        asked = {gene for gene in genes if gene}
        return len(asked & self.genes) / len(asked) if asked else 0.0

    def lookup(self, entities: Iterable[str]) -> pd.DataFrame:
        """What the files say of genes or accessions: a row each of `entity, collection, term, name`.

        Collection `interaction` has the partners as terms.
        """
        rows: list[tuple[str, str, str, str]] = []
        for entity in dict.fromkeys(entities):
            gene = entity if entity in self.genes else (self.symbol(entity) or entity)
            for collection, terms in self.sets.items():
                rows += [(entity, collection, t, s.name) for t, s in sorted(terms.items()) if gene in s.genes]
            rows += [(entity, "interaction", g, g) for g in sorted(self.partners.get(gene, ()))]
        return pd.DataFrame(rows, columns=["entity", "collection", "term", "name"], dtype=str)

    def __str__(self) -> str:
        sets = ", ".join(f"{name} {len(terms)} sets" for name, terms in self.sets.items()) or "no gene sets"
        return f"{sets}; {len(self.edges)} edges; {len(self.symbols)} accessions with a symbol"


def installed(folder: str | Path) -> dict[str, dict[str, str]]:
    """What was installed there: file to its `sha256, url, licence, citation`; empty where nothing was.

    Raises `DataError` for a damaged record.
    """
    record = Path(folder) / RECORD
    if not record.is_file():
        return {}
    try:
        entries = json.loads(record.read_text(encoding="utf-8")).items()
        return {name: {"sha256": entry["sha256"], **entry} for name, entry in entries}
    except (ValueError, TypeError, AttributeError, KeyError) as error:  # no JSON, or another one
        raise DataError(f"{record} is damaged; remove it and install again") from error
