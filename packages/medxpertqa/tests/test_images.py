from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from medxpertqa import DataError, Question
from medxpertqa.images import ImageStore, image_clusters, sniff
from medxpertqa.synthetic import synthetic_images, synthetic_questions


def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def _folder(path: Path, members: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, data in members.items():
        (path / name).write_bytes(data)
    return path


def _question(number: int, *images: str) -> Question:
    return Question(f"MM-{number}", "Which?", {"A": "one", "B": "two"}, "A", images)


def test_the_content_tells_the_type_not_the_name() -> None:
    images = synthetic_images()
    assert sniff(images["MM-0-a.jpeg"]) == "image/jpeg"
    assert sniff(images["MM-2-b.jpeg"]) == "image/png"  # as 387 of the test set's
    assert sniff(images["MM-5-a.png"]) == "image/png"
    assert sniff(b"GIF89a...") == "image/gif"
    assert sniff(b"RIFF\x24\x00\x00\x00WEBPVP8 ") == "image/webp"
    with pytest.raises(DataError, match="MM-1-a is no JPEG, PNG, GIF or WebP image: it begins with b'%PDF'"):
        sniff(b"%PDF", "MM-1-a")


def test_pillow_agrees_with_every_type_and_can_decode_the_synthetic_images() -> None:
    image = pytest.importorskip("PIL.Image")
    for name, data in synthetic_images().items():
        decoded = image.open(io.BytesIO(data))
        decoded.load()
        assert decoded.size == (8, 8)
        assert decoded.get_format_mimetype() == sniff(data, name)


def test_a_zip_a_folder_and_a_mapping_give_the_same_bytes(tmp_path: Path) -> None:
    images = synthetic_images()
    packed = _zip(tmp_path / "images.zip", {f"images/{name}": data for name, data in images.items()})
    stores = [ImageStore(packed), ImageStore(_folder(tmp_path / "images", images)), ImageStore(images)]
    for store in stores:
        store.check(synthetic_questions("mm"))
        assert {name: store(name) for name in images} == {n: (sniff(d), d) for n, d in images.items()}
        with pytest.raises(DataError, match=r"there is no image MM-9-a\.jpeg in"):
            store.read("MM-9-a.jpeg")


def test_what_a_provider_would_refuse_is_found_before_the_run(tmp_path: Path) -> None:
    store = ImageStore({"MM-0-a.jpeg": b"\xff\xd8\xff" + bytes(5000), "MM-0-b.jpeg": b"\xff\xd8\xff"})
    with pytest.raises(DataError, match=r"MM-0: image MM-0-a\.jpeg has 5,003 bytes; the limit is 5,000"):
        store.check([_question(0, "MM-0-a.jpeg")], max_bytes=5000)
    with pytest.raises(DataError, match=r"MM-1: there is no image MM-1-a\.jpeg"):
        store.check([_question(1, "MM-1-a.jpeg")])
    fake = ImageStore(_zip(tmp_path / "fake.zip", {"MM-2-a.jpeg": b"<html>not found</html>"}))
    with pytest.raises(DataError, match=r"MM-2: image MM-2-a\.jpeg is no JPEG, PNG, GIF or WebP image"):
        fake.check([_question(2, "MM-2-a.jpeg")])
    with pytest.raises(DataError, match="MM-0 has 2 images; the limit is 1"):
        store.check([_question(0, "MM-0-a.jpeg", "MM-0-b.jpeg")], max_images=1)


def test_a_zip_that_is_not_there_is_not_called_cut_off(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no ZIP or folder .*none\.zip to take images from"):
        ImageStore(tmp_path / "none.zip")


def test_a_zip_that_was_cut_off_says_what_to_do(tmp_path: Path) -> None:
    path = _zip(tmp_path / "images.zip", synthetic_images())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"images\.zip cannot be read .*medxpertqa download --images"):
        ImageStore(path)


def test_damage_inside_a_zip_is_found_when_the_image_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:  # stored, not compressed
        archive.writestr("a.png", synthetic_images()["MM-5-a.png"])
    raw = (tmp_path / "images.zip").read_bytes()
    (tmp_path / "images.zip").write_bytes(raw.replace(b"IDAT", b"IDAX", 1))
    with pytest.raises(DataError, match="Bad CRC-32"):
        ImageStore(tmp_path / "images.zip").read("a.png")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"images/../../a.png": b""}, "leads out of the archive"),
        ({"/a.png": b""}, "leads out of the archive"),
        ({"x/a.png": b"1", "y/a.png": b"2"}, r"two images named a\.png"),
    ],
)
def test_a_hostile_zip_is_refused(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageStore(_zip(tmp_path / "images.zip", members))


def test_a_member_that_would_be_huge_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png would be 67,108,865 bytes large"):
        ImageStore(_zip(tmp_path / "images.zip", {"a.png": bytes(64 * 2**20 + 1)}))


def test_a_folder_is_not_left(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff\xd8\xff")
    store = ImageStore(_folder(tmp_path / "images", {}))
    with pytest.raises(DataError, match=r"'\.\./secret' is no file name of an image"):
        store.read("../secret")


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_questions_linked_by_equal_bytes_are_one_cluster(tmp_path: Path, kind: str) -> None:
    # 1 and 3 share x, 3 and 2 share y: one cluster, named after its first. The PNGs of z and w have one size.
    images = {
        "1.png": b"x" * 9,
        "3.png": b"x" * 9,
        "3b.png": b"yy",
        "2.png": b"yy",
        "4.png": b"zz",
        "5.png": b"ww",
    }
    questions = [
        _question(4, "4.png"),
        _question(1, "1.png"),
        _question(2, "2.png"),
        _question(3, "3.png", "3b.png"),
        _question(5, "5.png"),
    ]
    source = _zip(tmp_path / "i.zip", images) if kind == "zip" else _folder(tmp_path / "i", images)
    clusters = image_clusters(questions, ImageStore(source))
    assert clusters == {"MM-4": "MM-4", "MM-1": "MM-1", "MM-2": "MM-1", "MM-3": "MM-1", "MM-5": "MM-5"}
