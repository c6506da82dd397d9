"""What goes wrong for reasons that the user can mend: the message says what, where and what to do."""


class OmniRLError(ValueError):
    """Something about the tasks, the data, the settings or a file does not fit; the command exits with 2."""


class SamplingError(OmniRLError, RuntimeError):
    """The sampler used up its candidates; the message has the acceptance rate of every filter."""


class TrainingError(OmniRLError, RuntimeError):
    """Training cannot go on; the message says why and where the last good checkpoint is."""


class MissingExtraError(OmniRLError, ImportError):
    """A package of one of the extras is not installed; the message says which `pip install` brings it."""


class OmniRLWarning(UserWarning):
    """Allowed, but probably not what was meant."""
