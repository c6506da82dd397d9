import inspect
import sys
from email import message
from importlib import metadata

import numpy as np
import pytest
import sympy

from lmlab import CorpusError, documents, installed_text
from lmlab.corpora import manifest
from lmlab.deduplication import MAX_CONTAINMENT, containment, shingles, words
from lmlab.installed_text import HELDOUT_LIBRARY, LIBRARIES, library_versions, read_code, read_docs
from lmlab.splitting import MIN_WORDS, Document, Splits

SMALL = ("accelerate", "datasets", "networkx", "pydantic")


@pytest.fixture(scope="module")
def docs() -> Splits:
    return read_docs(SMALL, heldout="networkx")[0]


@pytest.fixture(scope="module")
def code() -> Splits:
    return read_code()[0]


def assert_no_overlap(splits: Splits) -> None:
    """What is evaluated on was not seen in training: not by name, not by text, not in large part."""
    assert all(splits.values())
    everything = [document for split in splits.values() for document in split]
    assert len({document.name for document in everything}) == len(everything)
    assert len({" ".join(words(document.text)) for document in everything}) == len(everything)
    found = shingles([document.text for document in everything])
    split_of = np.repeat(list(splits), [len(split) for split in splits.values()])
    part = {split: found.select(split_of == split) for split in splits}
    for split in ("valid", "heldout"):
        assert containment(part[split], part["train"]).max() <= MAX_CONTAINMENT
        assert containment(part["train"], part[split]).max() <= MAX_CONTAINMENT


def test_docs_splits_do_not_overlap(docs: Splits):
    assert_no_overlap(docs)
    assert {document.source for document in docs["heldout"]} == {"networkx"}
    assert {document.source for document in docs["train"]} == set(SMALL) - {"networkx"}
    share = len(docs["valid"]) / len(docs["train"] + docs["valid"])
    assert 0.01 < share < 0.03


def test_docs_are_what_the_objects_say(docs: Splits):
    import networkx

    texts = {document.name: document.text for split in docs.values() for document in split}
    compared = 0
    for value in vars(networkx).values():
        function = inspect.unwrap(value) if inspect.isfunction(value) else None
        name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
        if name in texts:  # the others repeat text, or have next to none
            assert texts[name] == inspect.cleandoc(str(function.__doc__)).strip()
            compared += 1
    assert compared > 20
    assert all(len(words(text)) >= MIN_WORDS for text in texts.values())


def test_docs_are_the_same_again_and_in_order_of_name(docs: Splits):
    again, facts = read_docs(SMALL[::-1], heldout="networkx")
    assert again == docs
    assert all(split == sorted(split, key=lambda document: document.name) for split in docs.values())
    assert facts["libraries"] == dict(sorted(library_versions(SMALL).items(), reverse=True))
    assert facts["docstrings"] - facts["too_short"] - facts["repeated"] == sum(map(len, docs.values()))
    assert facts["modules_not_parsed"] == []


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    message = r"missing: no_such_library, nor_this\. Install them: pip install 'lmlab\[corpora\]'"
    with pytest.raises(CorpusError, match=message):
        library_versions(("numpy", "no_such_library", "nor_this"))

    def version(name: str) -> str:
        if name == "sympy":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(CorpusError, match=r"missing: sympy\. Install"):
        documents("docs", "train")


def test_the_key_follows_the_versions_but_not_the_build(monkeypatch: pytest.MonkeyPatch):
    versions = {}
    monkeypatch.setattr(metadata, "version", lambda name: versions.get(name, "1.0"))
    before = installed_text.docs_key()
    versions["torch"] = "1.0+cu130"
    assert installed_text.docs_key() == before
    versions["scikit-learn"] = "1.1"
    assert installed_text.docs_key() != before


@pytest.mark.slow
def test_code_is_the_standard_librarys_source(code: Splits):
    assert_no_overlap(code)
    texts = {document.name: document.text for split in code.values() for document in split}
    assert texts["email.message"] == inspect.getsource(message)
    assert {document.source for document in code["heldout"]} == {"email"}
    assert texts.keys() & {"site", "json.decoder", "argparse"} == {"site", "json.decoder", "argparse"}
    assert not [name for name in texts if name.startswith(("site-packages", "test.", "_sysconfigdata"))]
    assert sys.prefix not in "".join(texts.values())


@pytest.mark.slow  # the first time; then it reads the cache
def test_the_whole_docs_corpus():
    splits = {
        split: [Document(row["text"], row["name"], row["source"]) for row in documents("docs", split)]
        for split in ("train", "valid", "heldout")
    }
    assert_no_overlap(splits)
    assert {document.source for document in splits["heldout"]} == {HELDOUT_LIBRARY}
    assert {document.source for document in splits["train"]} == set(LIBRARIES) - {HELDOUT_LIBRARY}
    assert sum(len(document.text) for document in splits["train"]) > 15_000_000
    assert sum(len(document.text) for document in splits["valid"]) > 400_000
    texts = {document.name: document.text for document in splits["heldout"]}
    name = f"{sympy.integrate.__module__}.integrate"
    assert texts[name] == inspect.cleandoc(str(sympy.integrate.__doc__)).strip()
    assert manifest("docs")["libraries"] == library_versions()
