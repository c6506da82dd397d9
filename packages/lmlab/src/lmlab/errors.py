"""The error for settings that cannot be."""

from tenfold.errors import UsageError


class SettingsError(UsageError, ValueError):
    """A setting that is unknown or impossible; the message names it, its value and what is allowed."""
