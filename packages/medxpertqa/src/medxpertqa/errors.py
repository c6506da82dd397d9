"""What goes wrong for reasons that the user can mend: the message says what, where and what to do."""


class MedXpertQAError(ValueError):
    """Something about the settings, the data, a model or a file does not fit; the command exits with 2."""


class DataError(MedXpertQAError):
    """A question, an image or a file of questions is not what it should be, or is not to be had."""


class RequestError(MedXpertQAError):
    """An endpoint turns down one request, for its length or what it says; others it may take."""


class MissingExtraError(ImportError):
    """A library of an optional extra is not installed; the message names the `pip install` that brings it."""

    def __init__(self, needed_for: str, extra: str) -> None:
        super().__init__(f"{needed_for} needs an optional extra: pip install 'medxpertqa[{extra}]'")


class MedXpertQAWarning(UserWarning):
    """Allowed, but probably not what was meant."""
