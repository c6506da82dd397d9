"""What goes wrong for reasons that the user can mend: the message says what, where and what to do."""


class PrimeError(ValueError):
    """Something about the data, the settings, a model or a file does not fit; the command exits with 2."""


class PrimeWarning(UserWarning):
    """Allowed, but probably not what was meant."""
