"""`hashed_ngrams` beside data-selection's `get_ngram_counts`: uni- and bi-grams of 10 MB in 10,000 buckets.

    python benchmarks/ngrams.py [--corpora docs books] [--megabytes 10] [--repeats 12]

Both in one process and thread and in turn, so that a busy machine slows both sides of a ratio; the counts are
compared first. Goal: 10 times as fast. What counts is how many n-grams are different, each hashed once.
"""

from __future__ import annotations

import argparse
from itertools import accumulate

import numpy as np
from data_selection.hashed_ngram_dsir import get_ngram_counts

from lmlab.accounting import interleaved_ratio
from lmlab.corpora import documents
from toedit.analysis import hashed_ngrams

BUCKETS = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", nargs="+", default=["docs"], help="names that lmlab knows")
    parser.add_argument("--megabytes", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=12)
    options = parser.parse_args()
    print("| corpus | characters | n-grams | times as fast as data-selection |\n|---|---|---|---|")
    for corpus in options.corpora:
        texts = first(documents(corpus, "train")["text"], int(options.megabytes * 1e6))
        counts = hashed_ngrams(texts)
        np.testing.assert_array_equal(counts, peer(texts))
        ratio = interleaved_ratio(
            lambda texts=texts: peer(texts), lambda texts=texts: hashed_ngrams(texts), options.repeats, 0
        )
        print(f"| {corpus} | {sum(map(len, texts)):,} | {counts.sum():,} | {ratio} |", flush=True)


def first(texts: list[str], characters: int) -> list[str]:
    """The first texts that have at least so many characters together."""
    sizes = accumulate(map(len, texts))
    return [text for text, size in zip(texts, sizes, strict=True) if size - len(text) < characters]


def peer(texts: list[str]) -> np.ndarray:
    counts = np.zeros(BUCKETS, dtype=int)
    for text in texts:
        get_ngram_counts(text, n=2, num_buckets=BUCKETS, counts=counts)
    return counts


if __name__ == "__main__":
    main()
