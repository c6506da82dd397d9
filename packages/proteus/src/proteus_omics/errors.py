"""What goes wrong for reasons that the user can mend: the message says what, where and what to do."""

from __future__ import annotations


class ProteusError(ValueError):
    """Something about the data, the settings or a run does not fit; the command exits with 2."""


class DataError(ProteusError):
    """The table is not one that can be analysed."""


class FormatError(DataError):
    """The file is of another kind than needed; the message names the file to give."""


class MetadataError(DataError):
    """The table's samples and those of the sample sheet are not the same."""


class ScaleError(DataError):
    """The declared scale of the values is not the one that the values have."""


class DesignError(ProteusError):
    """The data cannot answer the question; the command exits with 3."""


class ConfoundedDesignError(DesignError):
    """Two factors of the design say the same, so their effects cannot be told apart."""


class NoReplicatesError(DesignError):
    """A group has one sample, so nothing can be said of its variance."""


class BudgetError(ProteusError):
    """The run's budget is spent; the command exits with 4."""


class EndpointError(ProteusError):
    """The language model's endpoint failed for good; the command exits with 5."""


class CassetteMiss(ProteusError):
    """A recorded run was asked for something that is not on the record."""


class ResumeError(ProteusError):
    """A run's folder cannot be gone on with: another writer, another input, or damaged files."""


class VerifyError(ProteusError):
    """A run's folder is not what its record says."""


class ToolError(ProteusError):
    """A tool cannot do its work on this input; the run goes on without its step."""


class MissingExtraError(ProteusError, ImportError):
    """A package of one of the extras is not installed; the message says which `pip install` brings it."""


class ProteusWarning(UserWarning):
    """Allowed, but probably not what was meant."""
