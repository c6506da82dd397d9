"""How synthetic text narrows a corpus: n-grams, perplexities and a map, beside those of human text."""

from toedit.analysis.embedding import embed_2d
from toedit.analysis.ngrams import Concentration, concentration, hashed_ngrams, top_ngrams
from toedit.analysis.perplexity import coverage, ppl_histogram
from toedit.analysis.report import write_report
from toedit.analysis.selection import DSIR

__all__ = [
    "DSIR",
    "Concentration",
    "concentration",
    "coverage",
    "embed_2d",
    "hashed_ngrams",
    "ppl_histogram",
    "top_ngrams",
    "write_report",
]
