"""Knowledge from its official places onto the user's machine, with its licence and checksum told."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proteus_omics.errors import DataError
from proteus_omics.knowledge.base import RECORD, installed

CHUNK = 1 << 20
SECONDS = 60


@dataclass(frozen=True)
class KnowledgeSource:
    """Files of one provider: name to address, what they may be used for, and what to cite."""

    name: str
    files: Mapping[str, str]
    licence: str
    citation: str


_STRING = "https://stringdb-downloads.org/download"
SOURCES: Mapping[str, KnowledgeSource] = {
    source.name: source
    for source in (
        KnowledgeSource(
            "go",
            {
                "goa_human.gaf.gz": "https://current.geneontology.org/annotations/goa_human.gaf.gz",
                "go-basic.obo": "https://current.geneontology.org/ontology/go-basic.obo",
            },
            "CC BY 4.0",
            "The Gene Ontology Consortium, Genetics 2023, 224:iyad031",
        ),
        KnowledgeSource(
            "hallmark",
            {
                "h.all.v7.5.1.symbols.gmt": "https://data.broadinstitute.org/gsea-msigdb/msigdb/release/"
                "7.5.1/h.all.v7.5.1.symbols.gmt"
            },
            "CC BY 4.0",
            "Liberzon et al., Cell Systems 2015, 1:417-425",
        ),
        KnowledgeSource(
            "string",
            {
                "9606.protein.links.v12.0.txt.gz": f"{_STRING}/protein.links.v12.0/"
                "9606.protein.links.v12.0.txt.gz",
                "9606.protein.info.v12.0.txt.gz": f"{_STRING}/protein.info.v12.0/"
                "9606.protein.info.v12.0.txt.gz",
            },
            "CC BY 4.0",
            "Szklarczyk et al., Nucleic Acids Research 2023, 51:D638-D646",
        ),
    )
}


def install(source: str | KnowledgeSource, folder: str | Path) -> dict[str, str]:
    """Fetch a source's files into `folder`; the SHA-256 of each by its name.

    Files of a provider change with its releases, so the checksum is that of what came: it is written to
    `installed.json` with address and licence, and `Knowledge.load` refuses a file that changed since.
    Raises `DataError` for an unknown source or where a file cannot be fetched or written.
    """
    if isinstance(source, str):
        if source not in SOURCES:
            raise DataError(f"there is no knowledge source {source!r}; there are {', '.join(SOURCES)}")
        source = SOURCES[source]
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = {name: _fetch(url, folder / name) for name, url in source.files.items()}
        record = installed(folder)
        for name, digest in found.items():
            entry = {"sha256": digest, "url": source.files[name], "licence": source.licence}
            record[name] = {**entry, "citation": source.citation}
        part = folder / f"{RECORD}.part"
        part.write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
        os.replace(part, folder / RECORD)
    except urllib.error.URLError as error:
        raise DataError(f"{source.name}: {error.url if hasattr(error, 'url') else ''} {error}") from error
    except OSError as error:
        raise DataError(f"{source.name} cannot be installed in {str(folder)!r}: {error}") from error
    return found


def _fetch(url: str, path: Path) -> str:
    """Stream the file to its place, which it takes only when it is whole."""
    digest, part = hashlib.sha256(), path.with_name(f"{path.name}.part")
    with urllib.request.urlopen(url, timeout=SECONDS) as answer, part.open("wb") as target:
        while block := answer.read(CHUNK):
            digest.update(block)
            target.write(block)
    os.replace(part, path)
    return digest.hexdigest()
