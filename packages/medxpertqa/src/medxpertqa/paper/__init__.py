"""The paper's tables as data, and what their numbers can and cannot show."""

from medxpertqa.paper.audit import Repair, Row, check_tables
from medxpertqa.paper.claims import Verdict, check_claims
from medxpertqa.paper.published_accuracy import Agreement, agreement
from medxpertqa.paper.question_counts import CountedNumber, check_questions_of
from medxpertqa.paper.tables import CONSTRUCTION, HUMAN, LEAKAGE, MODELS, OTHER_BENCHMARKS, Published

__all__ = [
    "CONSTRUCTION",
    "HUMAN",
    "LEAKAGE",
    "MODELS",
    "OTHER_BENCHMARKS",
    "Agreement",
    "CountedNumber",
    "Published",
    "Repair",
    "Row",
    "Verdict",
    "agreement",
    "check_claims",
    "check_questions_of",
    "check_tables",
]
