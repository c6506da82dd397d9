"""What goes wrong for reasons that the user can mend: the message says what, where and what to do."""


class PrimeError(ValueError):
    """Something about the data, the settings, a model or a file does not fit; the command exits with 2."""


class NoPromptPassesError(PrimeError):
    """Too few prompts passed the filter to make a step: in all its rounds, or in all the data of a run."""


class MissingExtraError(PrimeError, ImportError):
    """A package of one of the extras is not installed; the message says which `pip install` brings it."""


class PrimeWarning(UserWarning):
    """Allowed, but probably not what was meant."""
