"""What goes wrong for reasons that the user can mend: the message says what, where and what to do."""


class AltermagError(ValueError):
    """Something about a structure, moments, a stacking or a file does not fit; the command exits with 2."""


class AltermagWarning(UserWarning):
    """Allowed, but probably not what was meant."""


class MissingExtraError(ImportError):
    """An optional library is needed: `extra` of this package brings it.

    >>> str(MissingExtraError("pymatgen", extra="pymatgen", why="to read magCIF files"))
    "pymatgen is needed to read magCIF files: pip install 'altermag[pymatgen]'"
    """

    def __init__(self, library: str, *, extra: str, why: str) -> None:
        super().__init__(f"{library} is needed {why}: pip install 'altermag[{extra}]'")
        self.library = library
        self.extra = extra
