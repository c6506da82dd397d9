import json
import lzma
import random
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest

from lmlab import CorpusError, documents, outside_text
from lmlab.corpora import CORPORA, SplitStatistics, find_corpus, manifest, stats
from lmlab.splitting import Document, by_name, by_text, place
from lmlab.tokenizers import tokenizer_for
from tenfold import data


def rows(name: str, split: str) -> list[tuple[str, str, str]]:
    return [(row["text"], row["name"], row["source"]) for row in documents(name, split)]


def test_a_documents_place_is_the_start_of_its_names_hash():
    # sha256("a") = ca978112ca1bbdca...
    assert place("a") == 0xCA978112CA1BBDCA / 2**64
    numbers = [place(str(number)) for number in range(4000)]
    assert all(0 <= number < 1 for number in numbers)
    assert sum(numbers) / 4000 == pytest.approx(0.5, abs=4 * (1 / 12 / 4000) ** 0.5)


def test_a_documents_split_does_not_depend_on_the_others():
    texts = [Document(f"text {number}", f"name {number}", "") for number in range(3000)]
    whole, part = by_name(texts, 0.1), by_name(texts[::7], 0.1)
    assert set(part["valid"]) == set(whole["valid"]) & set(texts[::7])
    assert len(whole["valid"]) == pytest.approx(300, abs=4 * (3000 * 0.1 * 0.9) ** 0.5)
    assert sorted(whole["train"] + whole["valid"]) == sorted(texts)


def test_repeated_texts_share_a_split_and_validation_is_never_empty():
    texts = [Document(f"text {number % 50}", str(number), "") for number in range(100)]
    splits = by_text(texts, 0.1)
    train, valid = ({document.text for document in splits[split]} for split in ("train", "valid"))
    assert (len(train), len(valid), train & valid) == (45, 5, set())
    assert [len(split) for split in by_text(texts[:2], 0.01).values()] == [1, 1]
    assert [len(split) for split in by_text(texts[:1], 0.01).values()] == [1, 0]
    assert by_text([], 0.01) == {"train": [], "valid": []}


def test_json_lines(tmp_path: Path, empty_cache: Path):
    texts = [f"Line {number}: é ☃" for number in range(40)]
    lines = "\n\n".join(
        json.dumps({"text": text, "more": 1}) for text in texts
    )  # an empty line is no document
    plain, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.xz"
    plain.write_text(lines, "utf-8")
    packed.write_bytes(lzma.compress(lines.encode()))
    for path in (plain, packed):
        train, valid = rows(f"file:{path}", "train"), rows(f"file:{path}", "valid")
        assert (len(train), len(valid)) == (38, 2)
        assert sorted(text for text, _, _ in train + valid) == sorted(texts)
        # names are line numbers, so a document can be found in its file
        assert all(texts[int(name.split("/")[1]) // 2] == text for text, name, _ in train + valid)
        assert {source for _, _, source in train + valid} == {path.name}


def test_a_text_file_is_cut_at_blank_lines(tmp_path: Path, empty_cache: Path):
    paragraphs = [f"{number} " + "word " * 200 + "\nsecond line" for number in range(40)]
    path = tmp_path / "a.txt"
    path.write_text("\n \n\n".join(paragraphs), "utf-8")
    train, valid = rows(f"file:{path}", "train"), rows(f"file:{path}", "valid")
    assert len(valid) == 1
    pieces = sorted(train + valid, key=lambda row: int(row[1].split("/")[1]))
    assert [name for _, name, _ in pieces] == [f"a.txt/{number}" for number in range(10)]
    assert "\n\n".join(text for text, _, _ in pieces) == "\n\n".join(paragraphs)
    assert manifest(f"file:{path}")["file"] == "a.txt"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": 3}', r'line 2: no "text" with a string'),
        (b'{"text": "a"}\n["text"]', r'line 2: no "text" with a string'),
        (b'{"text": "a"}\n\n{"text": ', r"line 3 is not JSON"),
        (b'{"text": "\\ud83d"}', r"line 1: half of a surrogate pair"),
        (b'{"text": "\xff"}', r"is not UTF-8 text"),
    ],
)
def test_a_bad_file_is_an_error_that_names_the_line(
    tmp_path: Path, empty_cache: Path, content: bytes, message: str
):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=rf"bad\.jsonl.*{message}"):
        documents(f"file:{path}", "train")


def test_files_that_cannot_be_read(tmp_path: Path, empty_cache: Path):
    with pytest.raises(CorpusError, match=r"there is no file .*absent\.txt"):
        documents(f"file:{tmp_path}/absent.txt", "train")
    with pytest.raises(CorpusError, match=r"ends in \.txt, \.txt\.xz, \.jsonl, \.jsonl\.xz"):
        documents(f"file:{tmp_path}/a.pdf", "train")
    path = tmp_path / "a.txt.xz"
    for content in (b"no xz", lzma.compress(b"text " * 10_000)[:-40]):
        path.write_bytes(content)
        with pytest.raises(CorpusError, match="cannot be unpacked"):
            documents(f"file:{path}", "train")


def test_an_unknown_corpus_or_split_names_those_there_are():
    with pytest.raises(CorpusError, match=r"no corpus 'dosc'\. There are docs, code, .*hf:<id>.*file:<path>"):
        documents("dosc", "train")
    with pytest.raises(CorpusError, match=r"docs has no split 'test'; it has train, valid, heldout"):
        documents("docs", "test")
    with pytest.raises(CorpusError, match=r"wikitext2 has no split 'train'; it has valid, heldout"):
        documents("wikitext2", "train")
    assert all(find_corpus(name).name == name for name in CORPORA)


def write_xz(path: Path, text: str) -> None:
    path.write_bytes(lzma.compress(text.encode()))


def test_books(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outside_text, "data_folder", lambda name: tmp_path / name)
    (tmp_path / "books").mkdir()
    for split in ("train", "valid", "heldout"):
        chapter = {"book": f"book-{split}", "domain": "fiction", "part": "chapter-1", "text": f"Of {split}."}
        write_xz(tmp_path / "books" / f"books-{split}.jsonl.xz", json.dumps(chapter) + "\n")
    for split in ("train", "valid", "heldout"):
        assert rows("books", split) == [(f"Of {split}.", f"book-{split}/chapter-1", f"book-{split}")]


def test_wikitext_is_cut_into_articles(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outside_text, "data_folder", lambda name: tmp_path)
    text = " \n = First = \n \n A < unk > . \n \n = = Part = = \n B . \n \n = Second one = \n \n C . \n "
    for file in ("valid", "test"):
        write_xz(tmp_path / f"wikitext-2-{file}.txt.xz", text)
    assert rows("wikitext2", "valid") == [
        ("= First = \n \n A < unk > . \n \n = = Part = = \n B .", "0/First", "wikitext-2-valid"),
        ("= Second one = \n \n C .", "1/Second one", "wikitext-2-valid"),
    ]
    assert len(rows("wikitext2", "heldout")) == 2


def test_statistics_count_the_splits_and_their_sources(small_corpus: str):
    tokenizer = tokenizer_for(small_corpus, 400)
    found = stats(small_corpus, tokenizer)
    assert [(row.split, row.source) for row in found] == [
        ("train", ""),
        ("train", "small.jsonl"),
        ("valid", ""),
        ("valid", "small.jsonl"),
    ]
    texts = documents(small_corpus, "valid")["text"]
    assert found[2] == SplitStatistics(
        "valid",
        "",
        len(texts),
        sum(len(text) for text in texts),
        sum(len(text.encode()) for text in texts),
        sum(len(tokenizer(text)["input_ids"]) for text in texts),
    )
    assert stats(small_corpus)[3].tokens is None


def make_hub_folder(folder: Path, **splits: list[dict]) -> str:
    folder.mkdir()
    for split, content in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content), "utf-8")
    return f"hf:{folder}"


@pytest.fixture
def hub_cache(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


def test_a_data_set_with_its_own_splits(tmp_path: Path, hub_cache: None):
    name = make_hub_folder(
        tmp_path / "own",
        train=[{"text": "a", "label": 1}, {"text": "b", "label": 2}],
        validation=[{"text": "c", "label": 1}],
        test=[{"text": "d", "label": 1}],
    )
    source = name.removeprefix("hf:")
    assert rows(name, "train") == [("a", "train/0", source), ("b", "train/1", source)]
    assert rows(name, "valid") == [("c", "valid/0", source)]
    assert rows(name, "heldout") == [("d", "heldout/0", source)]
    assert documents(name, "train").column_names == ["text", "name", "source"]


def test_a_data_set_without_validation_gets_some(tmp_path: Path, hub_cache: None):
    texts = [f"text {number}" for number in range(200)]
    name = make_hub_folder(tmp_path / "none", train=[{"text": text} for text in texts])
    train, valid = documents(name, "train")["text"], documents(name, "valid")["text"]
    assert len(valid) == 4  # 2%
    assert sorted([*train, *valid]) == sorted(texts)
    assert find_corpus(name).splits == ("train", "valid")


def test_repeated_texts_of_a_data_set_are_never_in_both_splits(tmp_path: Path, hub_cache: None):
    name = make_hub_folder(tmp_path / "repeats", train=[{"text": f"text {n % 50}"} for n in range(400)])
    train, valid = documents(name, "train")["text"], documents(name, "valid")["text"]
    assert (len(train), len(valid)) == (392, 8)
    assert len(set(valid)) == 1  # 2% of 50
    assert not set(train) & set(valid)
    name = make_hub_folder(tmp_path / "one", train=[{"text": "again"}] * 3)
    with pytest.raises(CorpusError, match="has 1 different text, too few to split off"):
        documents(name, "train")


def test_the_first_documents_are_streamed(tmp_path: Path, hub_cache: None):
    texts = [{"text": f"text {number}"} for number in range(50)]
    name = make_hub_folder(tmp_path / "large", train=texts, validation=texts[:30], test=texts[:3])
    source = name.removeprefix("hf:")
    assert rows(f"{name}@20", "train") == [(f"text {n}", f"train/{n}", source) for n in range(20)]
    lengths = [len(documents(f"{name}@20", split)) for split in ("train", "valid", "heldout")]
    assert lengths == [20, 20, 3]
    assert manifest(f"{name}@20")["documents"] == 20
    assert find_corpus(f"{name}@20").key() != find_corpus(f"{name}@21").key()
    with pytest.raises(CorpusError, match=r"after @ comes how many documents to take, not 'many'"):
        documents(f"{name}@many", "train")


def test_a_data_set_without_text(tmp_path: Path, hub_cache: None):
    name = make_hub_folder(tmp_path / "other", train=[{"sentence": "a"}, {"sentence": "b"}])
    with pytest.raises(CorpusError, match=r"no column text; its columns are sentence"):
        documents(name, "train")
    with pytest.raises(CorpusError, match=r"hf:.*:german: .*'german' not found"):
        documents(f"{name}:german", "train")


def test_the_hub_out_of_reach_is_an_error_that_names_what_works(
    hub_cache: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(CorpusError, match=r"hf:nobody/nothing .*work without a network: docs, code"):
        documents("hf:nobody/nothing", "train")


@pytest.mark.skipif(data.path("books") is None, reason="needs the data set books (TENFOLD_DATA)")
def test_the_books_are_whole_and_their_splits_apart() -> None:
    sizes = {row.split: (row.documents, row.bytes) for row in stats("books") if not row.source}
    assert sizes == {"train": (868, 14_015_211), "valid": (45, 736_668), "heldout": (39, 897_475)}
    texts = {split: set(documents("books", split)["text"]) for split in sizes}
    assert not texts["train"] & (texts["valid"] | texts["heldout"])
    books = {split: set(documents("books", split)["source"]) for split in sizes}
    assert books["valid"] == books["train"]
    assert not books["heldout"] & books["train"]
    assert (len(books["train"]), len(books["heldout"])) == (9, 2)


@pytest.mark.skipif(data.path("wikitext2") is None, reason="needs the data set wikitext2 (TENFOLD_DATA)")
def test_wikitext2_is_60_articles_twice() -> None:
    for split in ("valid", "heldout"):  # Merity et al. (2016), table 1
        texts = documents("wikitext2", split)["text"]
        assert len(texts) == 60
        assert all(text.startswith("= ") and "<unk>" in text for text in texts)


def test_bible(tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside_text, "data_folder", lambda name: tmp_path)

    def text(*place: object) -> str:
        return " ".join(random.Random(str(place)).choices(["ark", "king", "son", "river", "stone"], k=15))

    verses = [
        {"book": book, "chapter": chapter, "verse": verse, "text": text(book, chapter, verse)}
        for book in ("Genesis", "Revelation")
        for chapter in range(1, 31)
        for verse in (1, 2, 3)
    ]
    repeated = [verse | {"chapter": 31} for verse in verses if verse["chapter"] == 2]
    lines = [json.dumps(verse) for verse in verses + repeated[:3]]
    (tmp_path / "kjv.jsonl").write_text("\n".join(lines))
    train, valid, heldout = (rows("bible", split) for split in ("train", "valid", "heldout"))
    assert {source for _, _, source in heldout} == {"Revelation"}
    assert {source for _, _, source in train + valid} == {"Genesis"}
    names = {name for _, name, _ in train + valid}
    assert len({"Genesis 2", "Genesis 31"} & names) == 1  # told twice
    assert names | {"Genesis 2", "Genesis 31"} == {f"Genesis {chapter}" for chapter in range(1, 32)}
    seventh = next(text for text, name, _ in train + valid if name == "Genesis 7")
    assert seventh == "\n".join(text("Genesis", 7, verse) for verse in (1, 2, 3))


@pytest.mark.network
def test_the_bible_has_1189_chapters_less_two_that_are_told_twice() -> None:
    names = {split: documents("bible", split)["name"] for split in ("train", "valid", "heldout")}
    assert [len(found) for found in names.values()] == [1115, 50, 22]
    told = {name for found in names.values() for name in found}
    # 2 Kings 19 is told again in Isaiah 37, and Psalm 108 is made of Psalms 57 and 60.
    assert {"2 Kings 19", "Isaiah 37", "Psalms 57", "Psalms 60", "Psalms 108"} - told == {
        "Isaiah 37",
        "Psalms 108",
    }
