"""Look for patients' data in a bank before its texts leave the machine, by presidio-analyzer (optional).

Without a language model it finds what has a form: dates, telephone numbers, addresses of e-mail, numbers of
insurance and the like. Names and places need a model of spaCy. That nothing was found proves nothing: people
must read what they send away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medxpertqa.errors import DataError, MissingExtraError
from medxpertqa.questions import Question

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

LANGUAGE = "en"


@dataclass(frozen=True)
class Finding:
    """A place in a question that may tell who a patient is; `kind` and `score` (0 to 1) are presidio's."""

    id: str
    field: str
    kind: str
    text: str
    score: float


def scan_for_phi(
    questions: Iterable[Question], spacy_model: str | None = None, min_score: float = 0.4
) -> Iterator[Finding]:
    """Yield what may be protected health information in stems, options and explanations.

    `spacy_model` is the name of an installed pipeline, for example en_core_web_lg; without it no names are
    found. No other machine is asked. presidio scores a telephone number without its context 0.4.

    Raises:
        MissingExtraError: presidio is not installed.
        DataError: the spaCy model is not installed.
    """
    analyzer = _analyzer(spacy_model)
    for question in questions:
        fields = {"stem": question.stem, "explanation": question.explanation or ""}
        fields |= {f"option {letter}": text for letter, text in question.options.items()}
        for field, text in fields.items():
            found = analyzer.analyze(text, language=LANGUAGE, score_threshold=min_score)
            for result in sorted(found, key=lambda result: result.start):
                words = text[result.start : result.end]
                yield Finding(question.id, field, result.entity_type, words, result.score)


def _analyzer(spacy_model: str | None) -> AnalyzerEngine:
    try:
        import spacy
        import tldextract
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
    except ImportError:
        raise MissingExtraError(
            "the scan for patients' data needs an optional extra: pip install 'medxpertqa[phi]'"
        ) from None
    # presidio checks domains by a list that tldextract would fetch; this is the one that it brings.
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())
    try:
        pipeline = spacy.load(spacy_model) if spacy_model else spacy.blank(LANGUAGE)
    except OSError:
        raise DataError(
            f"the spaCy model {spacy_model!r} is not installed: python -m spacy download {spacy_model}"
        ) from None
    engine = SpacyNlpEngine(models=[{"lang_code": LANGUAGE, "model_name": spacy_model or "blank"}])
    # as presidio's documentation hands it a pipeline that is loaded; it declares the attribute None
    engine.nlp = {LANGUAGE: pipeline}  # type: ignore[assignment]
    return AnalyzerEngine(nlp_engine=engine, supported_languages=[LANGUAGE])
