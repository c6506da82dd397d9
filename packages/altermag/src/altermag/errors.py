"""What goes wrong for reasons that the user can mend: the message says what, where and what to do."""


class AltermagError(ValueError):
    """Something about a structure, moments, a stacking or a file does not fit; the command exits with 2."""


class AltermagWarning(UserWarning):
    """Allowed, but probably not what was meant."""


class MissingExtraError(AltermagError, ImportError):
    """A package of one of the extras is not installed; the message says which `pip install` brings it."""
