"""What a corpus is made of, and how a text finds its split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from lmlab import deduplication
from tenfold.errors import UsageError

SPLITS = ("train", "valid", "heldout")
MIN_WORDS = 12  # below: "Return the name.", said by thousands of objects


class CorpusError(UsageError):
    """A corpus, split or text that cannot be had; the message says what can, or what to do."""


class Document(NamedTuple):
    """A text, the name that identifies it in its corpus, and the library, book or file it is from."""

    text: str
    name: str
    source: str


Splits: TypeAlias = dict[str, list[Document]]

Manifest: TypeAlias = dict[str, Any]
"""Where a corpus came from and what was left out of it; can be written as JSON."""


def is_unicode(text: str) -> bool:
    """False for a text with a lone surrogate, which cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def place(name: str) -> float:
    """A number in [0, 1) that depends on the name alone, uniform over names."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def by_name(documents: Sequence[Document], valid: float) -> Splits:
    """Split by a hash of each document's name: about the share `valid` of them for validation.

    A document's split does not depend on what else there is.
    """
    splits: Splits = {"train": [], "valid": []}
    for document in documents:
        splits["valid" if place(document.name) < valid else "train"].append(document)
    return splits


def by_text(documents: Sequence[Document], valid: float) -> Splits:
    """Split by a hash of each document's text, so that repeated texts stay together.

    The share `valid` of the distinct texts is for validation, and at least one where there are two.
    """
    places = sorted({place(document.text) for document in documents})
    count = max(round(valid * len(places)), 1) if len(places) > 1 else 0
    bound = places[count] if count else 0.0
    splits: Splits = {"train": [], "valid": []}
    for document in documents:
        splits["valid" if place(document.text) < bound else "train"].append(document)
    return splits


def distinct_splits(documents: list[Document], heldout: str, valid: float) -> tuple[Splits, dict[str, int]]:
    """Split as `by_name`, with the source `heldout` held out; short and repeated texts are left out.

    Nothing in valid or heldout is known from train. Also returns how many texts were left out, and why.
    """
    long_enough = [document for document in documents if len(deduplication.words(document.text)) >= MIN_WORDS]
    splits = by_name([document for document in long_enough if document.source != heldout], valid)
    splits["heldout"] = [document for document in long_enough if document.source == heldout]
    placed = [(split, document) for split, part in splits.items() for document in part]
    keep = deduplication.keep_distinct(
        [document.text for _, document in placed], [split != "train" for split, _ in placed]
    )
    kept: Splits = {split: [] for split in splits}
    for (split, document), distinct in zip(placed, keep, strict=True):
        if distinct:
            kept[split].append(document)
    return kept, {
        "too_short": len(documents) - len(long_enough),
        "repeated": len(placed) - sum(map(len, kept.values())),
    }
