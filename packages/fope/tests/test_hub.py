"""Models by folder and by hub id: found, told quickly when they are not there, taken with their tokenizer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from huggingface_hub import constants
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config

import fope.hf
from fope.cli import main
from fope.errors import FopeError
from fope.hub import find_model, load_model, load_tokenizer

SHAPE = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1}


class NoSuchModel(BaseHTTPRequestHandler):
    """A hub that has no model, and says so as the hub does."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, as a fresh HF_HOME has it, and no network: nobody listens at the endpoint."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path / "home" / "hub"


@pytest.fixture
def empty_hub(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), NoSuchModel)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(64)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")


def save(folder: Path, with_tokenizer: bool = True) -> Path:
    LlamaForCausalLM(LlamaConfig(num_attention_heads=4, **SHAPE)).save_pretrained(folder)
    if with_tokenizer:
        tokenizer().save_pretrained(folder)
    return folder


def cached(hub: Path, name: str, with_tokenizer: bool = True) -> Path:
    """What a download of me/NAME leaves in the cache; returns the snapshot."""
    repository = hub / f"models--me--{name}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123456")
    return save(repository / "snapshots" / "0123456", with_tokenizer)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_a_folder_is_taken_and_nobody_is_asked(hub: Path, tmp_path: Path) -> None:
    assert find_model(str(save(tmp_path / "here"))) == str(tmp_path / "here")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothere", "no folder nothere; as a hub id it is not in the cache, and the hub does not answer"),
        ("me/nothere", "no folder me/nothere; as a hub id it is not in the cache"),
        ("./nothere", "no folder ./nothere, and it is no hub id, which is NAME or OWNER/NAME"),
        ("/no/such/folder", "no folder /no/such/folder, and it is no hub id"),
    ],
)
def test_what_is_nowhere_is_told_at_once(hub: Path, source: str, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(FopeError, match=message):
        find_model(source)
    assert time.monotonic() - start < 10  # transformers' own retries take 24 s for each of its files


def test_what_the_hub_has_not_is_told(empty_hub: None) -> None:
    with pytest.raises(FopeError, match=r"the hub has no model me/nothere for you.*hf auth login"):
        find_model("me/nothere")


def test_what_the_hub_has_is_left_to_transformers(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: object())
    assert find_model("me/there") == "me/there"


def test_a_hub_id_in_the_cache_is_converted_with_its_tokenizer(hub: Path, tmp_path: Path) -> None:
    snapshot = cached(hub, "tiny")
    assert find_model("me/tiny") == str(snapshot)
    out, folded = tmp_path / "out", tmp_path / "folded"
    assert run("convert", "me/tiny", str(out), "--train-length", "64", "--zero-sin", "1") == 0
    assert run("fold", str(out), str(folded)) == 0
    ids = torch.arange(9)[None]
    with torch.no_grad():
        logits = [fope.hf.from_pretrained(folder)(ids).logits for folder in (out, folded)]
    torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-4)
    for folder in (out, folded):
        assert AutoTokenizer.from_pretrained(folder)("w3 w5")["input_ids"] == [3, 5]


def test_a_model_without_a_tokenizer_is_converted_and_that_is_said(
    hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cached(hub, "bare", with_tokenizer=False)
    assert run("convert", "me/bare", str(tmp_path / "out"), "--train-length", "64", "--json") == 0
    assert f"none is written to {tmp_path / 'out'}" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("tokenizer*"))
    load_model(str(tmp_path / "out"))


def test_an_empty_tokenizer_that_transformers_makes_up_is_none(tmp_path: Path) -> None:
    Qwen2Config(num_attention_heads=4, **SHAPE).save_pretrained(tmp_path)
    with pytest.raises(FopeError, match=r"has no tokenizer$"):
        load_tokenizer(str(tmp_path))


def test_damaged_weights_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "model"
    model = LlamaForCausalLM(LlamaConfig(num_attention_heads=4, **SHAPE))
    fope.hf.convert_to_fope(model, train_length=64).save_pretrained(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert run("convert", str(folder), str(tmp_path / "out"), "--train-length", "128") == 2
    assert f"the model {folder} cannot be loaded: " in capsys.readouterr().err
    assert run("inspect", str(folder)) == 2
    assert f"{weights} cannot be read: " in capsys.readouterr().err
