"""What a run leaves for people: a page, methods, a script that runs it again, provenance, a review form."""

from proteus_omics.report.writing import write_report

__all__ = ["write_report"]
