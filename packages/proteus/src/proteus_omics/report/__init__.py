"""What a run leaves for people: the page, methods, a script that runs it again, provenance, a form for reviewers."""

from proteus_omics.report.writing import write_report

__all__ = ["write_report"]
