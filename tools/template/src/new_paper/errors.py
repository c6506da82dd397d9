"""What goes wrong for reasons that the user can mend: the message says what, where and what to do."""


class NewPaperError(ValueError):
    """Something about the settings or the numbers does not fit; the command exits with 2."""
