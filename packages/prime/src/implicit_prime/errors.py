"""What goes wrong for reasons that the user can mend: the message says what, where and what to do."""


class PrimeError(ValueError):
    """Something about the data, the settings, a model or a file does not fit; the command exits with 2."""


class NoPromptPassesError(PrimeError):
    """In all rounds of a step no prompt passed the filter: there is nothing to learn from."""


class MissingExtraError(PrimeError, ImportError):
    """A package of one of the extras is not installed; the message says which `pip install` brings it."""


class PrimeWarning(UserWarning):
    """Allowed, but probably not what was meant."""
