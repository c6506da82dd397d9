"""What goes wrong for reasons that the user can mend: the message says what, where and what to do."""


class ImplicitPRMError(ValueError):
    """Something about the data, the settings, the model or a file does not fit; the command exits with 2."""


class TokenizerMismatchError(ImplicitPRMError):
    """The model and its reference read text differently, so their log-probs are of different tokens."""


class MissingExtraError(ImplicitPRMError, ImportError):
    """A package of one of the extras is not installed; the message says which `pip install` brings it."""


class RowError(ImplicitPRMError):
    """A row that a backend or a server does not take: its `place` among those given, and what is wrong."""

    def __init__(self, place: int, told: str) -> None:
        super().__init__(f"row {place} {told}")
        self.place, self.told = place, told


class PromptTooLongError(ImplicitPRMError):
    """A prompt that leaves no room for a response: its `place` among those given, and what is wrong."""

    def __init__(self, place: int, told: str) -> None:
        super().__init__(f"prompt {place} {told}")
        self.place, self.told = place, told


class ImplicitPRMWarning(UserWarning):
    """Allowed, but probably not what was meant."""
