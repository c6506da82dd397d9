"""How synthetic text narrows a corpus: n-grams, perplexities and a map, beside those of human text."""

from toedit.analysis.ngrams import Concentration, concentration, hashed_ngrams, top_ngrams

__all__ = ["Concentration", "concentration", "hashed_ngrams", "top_ngrams"]
