"""What goes wrong for reasons that the user can mend: the message says what, where and what to do."""


class ToEditError(ValueError):
    """Something about the settings, the text, the model or a file does not fit; the command exits with 2."""


class MissingExtraError(ToEditError, ImportError):
    """A package of one of the extras is not installed; the message says which `pip install` brings it."""


class ToEditWarning(UserWarning):
    """Allowed, but probably not what was meant."""
