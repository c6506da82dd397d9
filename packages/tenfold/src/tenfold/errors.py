"""Errors meant for the person at the keyboard: the command prints the message alone, with no traceback."""


class TenfoldError(Exception):
    """Something went wrong that the message explains in full; the command ends with `exit_code`."""

    exit_code = 1


class UsageError(TenfoldError):
    """The user asked for something that does not exist or cannot be; the message lists what there is."""

    exit_code = 2
