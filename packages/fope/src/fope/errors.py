"""What goes wrong for reasons that the user can mend: the message says what, where and what to do."""


class FopeError(ValueError):
    """Something about the config, the tensors or a checkpoint does not fit; the command exits with 2."""


class MissingExtraError(FopeError, ImportError):
    """A package of one of the extras is not installed; the message says which `pip install` brings it."""


class FopeWarning(UserWarning):
    """Allowed, but probably not what was meant."""
