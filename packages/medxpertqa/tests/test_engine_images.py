"""Images in a run: all are there before it starts, one that is damaged costs its question alone."""

from __future__ import annotations

import zipfile

import pytest

from medxpertqa.engine.running import evaluate
from medxpertqa.engine.sources import check_images, shared_images
from medxpertqa.engine.stub_server import StubServer, sent_images
from medxpertqa.errors import DataError
from medxpertqa.images import ImageStore, sniff
from medxpertqa.questions import Question
from medxpertqa.summaries import summarize
from medxpertqa.synthetic import synthetic_images, synthetic_questions

QUESTIONS, IMAGES = synthetic_questions("mm"), synthetic_images()


def packed(path, images, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in images.items():
            archive.writestr(f"images/{name}", data)
    return path


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_API_KEY", "k")
    with StubServer(lambda payload: "A") as server:

        def ask(questions=QUESTIONS, **changes):
            arguments = {
                "model": "openai-api/local/m",
                "log_dir": tmp_path / "logs",
                "protocol": "official-ao",
            }
            return evaluate(questions, base_url=server.base_url, **arguments | changes), server.requests

        yield ask


def test_the_images_of_a_zip_are_sent_as_they_are_six_of_one_question_too(run, tmp_path):
    results, requests = run(images=packed(tmp_path / "images.zip", IMAGES), sample_ids=["MM-6", "MM-2"])
    sent = {len(sent_images(payload)): sent_images(payload) for payload in requests}
    for number in (6, 2):
        names = QUESTIONS[number].images
        assert sent[len(names)] == [(sniff(IMAGES[name]), IMAGES[name]) for name in names]
    assert len(QUESTIONS[6].images) == 6
    assert results.n == 2


def test_a_named_set_has_its_images(run):
    _, requests = run("synthetic/mm", limit=1)
    assert sent_images(requests[0]) == [("image/jpeg", IMAGES["MM-0-a.jpeg"])]


def test_an_image_that_is_missing_or_none_stops_the_run_before_anything_is_asked(run, tmp_path):
    lacking = {name: data for name, data in IMAGES.items() if name != "MM-4-b.jpeg"}
    with pytest.raises(
        DataError, match=r"MM-4: there is no image MM-4-b\.jpeg in .*; give .*--images, or .*--ablate"
    ):
        run(images=packed(tmp_path / "a.zip", lacking))
    with pytest.raises(DataError, match=r"MM-4: image MM-4-b\.jpeg is no JPEG"):
        run(images=packed(tmp_path / "b.zip", IMAGES | {"MM-4-b.jpeg": b"404: not found"}))
    with pytest.raises(
        DataError, match=r"MM-0 has images, and there is nowhere to take them from; .*--images"
    ):
        run()
    assert not (tmp_path / "logs" / "medxpertqa.json").exists()
    _, requests = run(images=None, ablate=["images"])
    assert len(requests) == len(QUESTIONS)
    assert not any(sent_images(payload) for payload in requests)


def test_demonstrations_show_their_images_or_lose_them_with_the_questions(run, tmp_path):
    few = {"protocol": "few-shot", "demonstrations": QUESTIONS[5:7], "limit": 1}
    with pytest.raises(DataError, match=r"MM-5: there is no image MM-5-a\.png"):
        run(images=packed(tmp_path / "a.zip", {"MM-0-a.jpeg": IMAGES["MM-0-a.jpeg"]}), **few)
    results, requests = run(images=packed(tmp_path / "b.zip", IMAGES), **few)
    assert [record.status for record in results.records] == ["ok"]
    names = [name for question in (*QUESTIONS[5:7], QUESTIONS[0]) for name in question.images]
    assert [data for _, data in sent_images(requests[-1])] == [IMAGES[name] for name in names]
    results, requests = run(ablate=["images"], log_dir=tmp_path / "blind", **few)
    assert [record.status for record in results.records] == ["ok"]
    assert not sent_images(requests[-1])


def test_a_provider_that_takes_smaller_images_is_not_asked(run):
    large = ImageStore({"MM-0-a.jpeg": b"\xff\xd8\xff" + bytes(6 * 2**20)})
    with pytest.raises(DataError, match="6,291,459 bytes; the limit is 5,242,880"):
        check_images(QUESTIONS[:1], large, "anthropic/claude")


def test_an_image_damaged_inside_the_zip_costs_its_question_alone(run, tmp_path):
    path = packed(tmp_path / "images.zip", IMAGES | {"MM-5-a.png": IMAGES["MM-5-a.png"] + bytes(20_000)})
    raw = path.read_bytes()
    path.write_bytes(raw.replace(bytes(20_000), bytes(19_999) + b"?", 1))  # behind what is looked at before
    results, requests = run(images=path)
    failed = [record for record in results.records if record.status == "error"]
    assert [record.id for record in failed] == ["MM-5"]
    assert "Bad CRC-32" in failed[0].error
    assert "medxpertqa download --images" in failed[0].error
    assert len(requests) == len(QUESTIONS) - 1
    path.write_bytes(raw)
    mended, _ = run(images=path)
    assert [record.status for record in mended.records] == ["ok"] * len(QUESTIONS)


def test_questions_that_share_an_image_are_one_cluster_of_the_error_bars(run):
    # MM-0 and MM-1 show the same bytes; so do all JPEGs of the synthetic questions.
    jpeg, png = IMAGES["MM-0-a.jpeg"], IMAGES["MM-5-a.png"]
    questions = [Question(f"MM-{i}", "s", {"A": "x", "B": "y"}, "AAB"[i], (f"{i}.png",)) for i in range(3)]
    images = ImageStore({"0.png": jpeg, "1.png": jpeg, "2.png": png})
    assert shared_images(questions, images) == {"MM-0": "MM-0", "MM-1": "MM-0"}
    results, _ = run(questions, images=images)
    assert [record.attributes.get("cluster") for record in results.records] == ["MM-0", "MM-0", None]
    summary = summarize(results)
    # Residuals 1/3, 1/3 and -2/3: sqrt((2/3)^2 + (2/3)^2) / 3, where separate questions had sqrt(6/9) / 3.
    assert summary.standard_error == pytest.approx(8**0.5 / 9)
    assert summary.parsers["robust"].ci == summary.ci == (0.0, 1.0)
