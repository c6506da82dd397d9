"""Pairs by edit similarity beside rapidfuzz on all pairs, in one process and in turn.

    python benchmarks/similarity.py [--repeats 3]

Times are the process's processor time; a ratio is the median over repeats. Goal: at most 1/3 of the peer's
time and the same pairs. Texts: the public banks MedQA, MedMCQA and MMLU (medical), from $TENFOLD_DATA.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from pathlib import Path
from statistics import median

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from medxpertqa.construct import edit_similar_pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    for name in ("medqa", "medmcqa", "mmlu_medical"):
        path = Path(os.environ["TENFOLD_DATA"]) / "medxpertqa" / f"{name}.jsonl.gz"
        with gzip.open(path, "rt", encoding="utf-8") as file:
            texts = [json.loads(line)["question"] for line in file]
        times = []
        for _ in range(repeats):
            start = time.process_time()
            ours = {pair[:2] for pair in edit_similar_pairs(texts)}
            middle = time.process_time()
            theirs = everything(texts)
            times.append((middle - start, time.process_time() - middle))
            if ours != theirs:
                raise SystemExit(f"{name}: the pairs differ in {len(ours ^ theirs)}")
        ratio = median(own / peer for own, peer in times)
        print(f"{name:<14}{len(texts):>6} texts {len(ours):>4} pairs  ours / rapidfuzz {ratio:.2f}")


def everything(texts: list[str]) -> set[tuple[int, int]]:
    # a cutoff of exactly .8 loses pairs at .8 (rapidfuzz 3.14)
    similarity = Levenshtein.normalized_similarity
    table = process.cdist(texts, texts, scorer=similarity, score_cutoff=0.8 - 1e-4, dtype=np.float64)
    return {(int(i), int(j)) for i, j in np.argwhere(np.triu(table >= 0.8, 1))}


if __name__ == "__main__":
    main()
