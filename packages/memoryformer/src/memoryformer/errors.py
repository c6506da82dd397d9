"""What goes wrong for reasons that the user can mend: the message says what, where and what to do."""


class MemoryFormerError(ValueError):
    """Something about the shapes, the config, the model or a file does not fit; the command exits with 2."""


class MissingExtraError(MemoryFormerError, ImportError):
    """A package of one of the extras is not installed; the message says which `pip install` brings it."""


class MemoryFormerWarning(UserWarning):
    """Allowed, but probably not what was meant."""
