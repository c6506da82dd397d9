"""What goes wrong for reasons that the user can mend: the message says what, where and what to do."""


class MedXpertQAError(ValueError):
    """Something about the settings, the data, a model or a file does not fit; the command exits with 2."""


class DataError(MedXpertQAError):
    """A question, an image or a file of questions is not what it should be, or is not to be had."""


class RequestError(MedXpertQAError):
    """An endpoint turns down one request, for its length or what it says; others it may take."""


class MissingExtraError(MedXpertQAError, ImportError):
    """A package of one of the extras is not installed; the message says which `pip install` brings it."""


class MedXpertQAWarning(UserWarning):
    """Allowed, but probably not what was meant."""
