"""The paper's tables as data, and what their numbers can and cannot show."""

from medxpertqa.paper.audit import Repair, Row, check_tables
from medxpertqa.paper.claims import Verdict, check_claims
from medxpertqa.paper.tables import CONSTRUCTION, HUMAN, MODELS, Published

__all__ = [
    "CONSTRUCTION",
    "HUMAN",
    "MODELS",
    "Published",
    "Repair",
    "Row",
    "Verdict",
    "check_claims",
    "check_tables",
]
