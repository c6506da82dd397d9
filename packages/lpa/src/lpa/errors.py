"""What goes wrong for reasons that the user can mend: the message says what, where and what to do."""


class LPAError(ValueError):
    """Something about the model, the config or a file does not fit; the command exits with 2."""


class RankError(LPAError):
    """A rank is impossible, or so high that the product is larger than the dense matrix."""


class MissingExtraError(LPAError, ImportError):
    """A package of one of the extras is not installed; the message says which `pip install` brings it."""


class LPAWarning(UserWarning):
    """Allowed, but probably not what was meant."""
