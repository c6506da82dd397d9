"""What is known of genes: sets, interactions and names, read from files that the user gives."""

from proteus_omics.knowledge.base import Knowledge, installed
from proteus_omics.knowledge.formats import GeneSet
from proteus_omics.knowledge.sources import SOURCES, KnowledgeSource, install

__all__ = ["SOURCES", "GeneSet", "Knowledge", "KnowledgeSource", "install", "installed"]
