"""Text that every machine with the same lock has: the docstrings of libraries, and Python's own source."""

from __future__ import annotations

import platform
import sys
import sysconfig
import tokenize
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from lmlab import deduplication, docstrings, splitting
from lmlab.cache import file_fingerprint, fingerprint
from lmlab.splitting import CorpusError, Document, Manifest, Splits, distinct_splits, is_unicode

LIBRARIES = (
    "accelerate",
    "datasets",
    "matplotlib",
    "networkx",
    "numpy",
    "pandas",
    "pydantic",
    "scipy",
    "sklearn",
    "sympy",
    "torch",
    "transformers",
)
"""Dependencies of lmlab and of its extra `corpora`, by the name they are imported under."""

DISTRIBUTIONS = {"sklearn": "scikit-learn"}

# SymPy is large (a sixth of the text) and a world of its own: mathematics told in its own docstring style
# (Explanation, Examples, References), much of it transcripts of symbolic sessions. The other libraries share
# the subject of arrays and models and the numpydoc or Google style. A model that learnt only their manner
# shows it here.
HELDOUT_LIBRARY = "sympy"

VALID_SHARE = 0.02  # by objects: some 700 kB of the 20 MB that are not held out

HELDOUT_PACKAGE = "email"  # of the standard library: a protocol of its own, and the right size
# Other people's packages, and tables of characters or of manual pages in the form of modules.
_NOT_CODE = frozenset({"dist-packages", "site-packages", "encodings", "pydoc_data"})
_OF_THIS_MACHINE = ("_sysconfigdata", "config-")  # how this Python was built, and where
CODE_VALID_SHARE = 0.05  # by modules, which are few


def library_versions(libraries: tuple[str, ...] = LIBRARIES) -> dict[str, str]:
    """The versions of the installed libraries, without the mark of a local build (2.13.0+cu130 is 2.13.0).

    Raises `CorpusError` for libraries that are not installed.
    """
    versions = {}
    missing = []
    for library in libraries:
        try:
            versions[library] = metadata.version(DISTRIBUTIONS.get(library, library)).split("+")[0]
        except metadata.PackageNotFoundError:
            missing.append(library)
    if missing:
        raise CorpusError(
            f"the corpus docs is made of the docstrings of installed libraries, and these are missing: "
            f"{', '.join(missing)}. Install them: pip install 'lmlab[corpora]'"
        )
    return versions


def docs_key() -> str:
    """Changes with the libraries' versions and with the code that makes text of them."""
    return fingerprint(library_versions(), file_fingerprint(*_code()))


def read_docs(
    libraries: tuple[str, ...] = LIBRARIES, heldout: str = HELDOUT_LIBRARY
) -> tuple[Splits, Manifest]:
    """The docstrings of the libraries: a document an object, named by its full name, in order of name.

    One library is held out; of the others, a hash of the full name chooses between train and valid. What
    repeats other text is left out, so that nothing in valid or heldout is known from train.
    """
    versions = library_versions(libraries)
    files = [file for library in libraries for file in docstrings.source_files(_folder(library))]
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("reading docstrings (once)", total=None)
        found, unparsed = docstrings.extract(
            files, lambda done, total: progress.update(task, completed=done, total=total)
        )
    objects = _one_text_an_object(found)
    splits, left_out = distinct_splits(objects, heldout, VALID_SHARE)
    return splits, {
        "libraries": versions,
        "heldout_library": heldout,
        "modules": len(files),
        "modules_not_parsed": unparsed,
        "docstrings": len(objects),
        **left_out,
    }


def code_key() -> str:
    """Changes with the version of Python and with the code that makes text of it."""
    return fingerprint(platform.python_version(), file_fingerprint(*_code()))


def read_code() -> tuple[Splits, Manifest]:
    """The source of Python's standard library, a document a module; one package is held out.

    A hash of the module's name chooses between train and valid; what repeats other text is left out.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    modules = []
    for name, path in docstrings.source_files(folder):
        module = name.removeprefix(f"{folder.name}.")
        package = module.split(".")[0]
        if package not in _NOT_CODE and not package.startswith(_OF_THIS_MACHINE):
            source = package if (folder / package).is_dir() else "single modules"
            with tokenize.open(path) as file:  # in the encoding that the file declares
                modules.append(Document(file.read(), module, source))
    splits, left_out = distinct_splits(modules, HELDOUT_PACKAGE, CODE_VALID_SHARE)
    return splits, {
        "python": platform.python_version(),
        "heldout_package": HELDOUT_PACKAGE,
        "modules": len(modules),
        **left_out,
    }


def _code() -> tuple[Path, ...]:
    return tuple(Path(str(m.__file__)) for m in (sys.modules[__name__], docstrings, deduplication, splitting))


def _folder(library: str) -> Path:
    spec = find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise CorpusError(f"the library {library} is installed, but its source files are not to be found")
    return Path(spec.submodule_search_locations[0])


def _one_text_an_object(found: list[docstrings.Docstring]) -> list[Document]:
    """The last definition of a name counts, as in Python; sorted by name."""
    texts = {name: text.strip() for name, text in found if is_unicode(text)}
    return [Document(text, name, name.split(".")[0]) for name, text in sorted(texts.items())]
