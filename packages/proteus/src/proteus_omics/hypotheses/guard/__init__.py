"""The guard: every number, name and direction of a text is checked against the tables (section 2.8)."""

from proteus_omics.hypotheses.guard.checking import GuardReport, check

__all__ = ["GuardReport", "check"]
