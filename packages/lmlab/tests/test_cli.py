"""The `lmlab` command: what it prints, and exit code 2 with a message for mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lmlab import documents, prepare
from lmlab.cli import main
from lmlab.evaluation import perplexity
from lmlab.packing import pack

RUN = """
corpus = {{ name = "{corpus}", vocab_size = 400, context_length = 32 }}

[model]
model_type = "llama"
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 1
num_attention_heads = 2

[training]
max_steps = 2
batch_size = 4
learning_rate = 0.01
"""


def lmlab(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def trained(small_corpus: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "run.toml").write_text(RUN.format(corpus=small_corpus))
    assert lmlab("train", "--config", folder / "run.toml", "--out", folder / "out") == 0
    return folder


def test_corpus_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert lmlab("corpus", "list") == 0
    shown = capsys.readouterr().out
    for name in ("docs", "code", "books", "wikitext2"):
        assert name in shown
    assert lmlab("corpus", "list", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["docs"]["splits"] == ["train", "valid", "heldout"]
    assert rows["wikitext2"]["splits"] == ["valid", "heldout"]


def test_corpus_stats(small_corpus: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lmlab("corpus", "stats", small_corpus, "--vocab-size", "400", "--json") == 0
    rows = {row["split"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == {"train", "valid"}
    assert sum(row["documents"] for row in rows.values()) == 200
    corpus = prepare(small_corpus, 400, 32)
    for split, row in rows.items():
        texts = documents(small_corpus, split)["text"]
        assert row["bytes"] == sum(len(text.encode()) for text in texts)
        packed = pack(small_corpus, split, corpus.tokenizer, 32)
        ends = row["documents"]  # packing adds one token to each
        assert 0 <= row["tokens"] + ends - len(packed.tokens) < 32
    assert lmlab("corpus", "stats", small_corpus, "--vocab-size", "400", "--sources") == 0
    shown = capsys.readouterr().out
    assert f"{rows['train']['bytes']:,}" in shown
    assert "small.jsonl" in shown


def test_train_prints_what_it_measured(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("train", "--config", trained / "run.toml", "--out", trained / "out")
    assert lmlab(*command, "--json") == 0  # it is finished, so only shown
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((trained / "out" / "metrics.json").read_text())
    assert str(trained / "out") in captured.err
    assert lmlab(*command) == 0
    assert "parameters" in capsys.readouterr().out
    changed: list[str | Path] = [*command, "--set", "training.max_steps=3"]
    assert lmlab(*changed) == 2
    assert "training.max_steps was 2, is 3" in capsys.readouterr().err


def test_eval_of_a_saved_model(trained: Path, small_corpus: str, capsys: pytest.CaptureFixture[str]) -> None:
    command: list[str | Path] = [
        "eval",
        trained / "out" / "model",
        "--corpus",
        small_corpus,
        "--context-length",
        "32",
    ]
    assert lmlab(*command, "--length", "16", "--length", "64", "--passkey", "256", "--json") == 0
    measured = json.loads(capsys.readouterr().out)
    finished = json.loads((trained / "out" / "metrics.json").read_text())["splits"]["valid"]
    valid = measured["splits"]["valid"]
    assert valid["ppl"] == pytest.approx(finished["ppl"], rel=1e-6)
    assert valid["bits_per_byte"] == pytest.approx(finished["bits_per_byte"], rel=1e-6)
    assert list(valid["by_length"]) == ["16", "64"]
    assert [(score["length"], score["depth"]) for score in measured["passkey"]] == [
        (256, depth) for depth in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert lmlab(*command, "--split", "train", "--max-blocks", "5", "--json") == 0
    train = json.loads(capsys.readouterr().out)["splits"]["train"]
    model = AutoModelForCausalLM.from_pretrained(trained / "out" / "model")
    blocks = prepare(small_corpus, 400, 32).train
    with torch.no_grad():
        assert train["loss"] == pytest.approx(perplexity(model, blocks.slice(0, 5)).loss, rel=1e-6)
    assert lmlab(*command, "--passkey", "256") == 0
    shown = capsys.readouterr().out
    assert f"{valid['ppl']:.2f}" in shown
    assert "256 tokens" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["corpus", "stats", "dox"], "there is no corpus 'dox'"),
        (["corpus", "stats", "docs", "--vocab-size", "100"], "vocab_size 100 is below 257"),
        (["corpus", "stats", "--vocab-size", "100"], "vocab_size 100 is below 257"),
        (["corpus", "stats", "file:none.txt"], "there is no file"),
        (["eval", "nowhere"], "nowhere holds no model: there is no nowhere/config.json"),
        (["eval", "nowhere", "--import", "no_such_module"], "--import no_such_module"),
        (["eval", "nowhere", "--corpus", "dox"], "there is no corpus 'dox'"),
        (["train", "--config", "none.toml", "--out", "out"], "there is no config file none.toml"),
        (["train", "--config", "none.toml"], "Missing option '--out'"),
        (["trane"], "No such command 'trane'"),
    ],
)
def test_mistakes_end_with_2_and_a_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lmlab(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_a_damaged_model_and_a_length_that_is_too_long(
    trained: Path, small_corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    assert lmlab("eval", tmp_path, "--corpus", small_corpus) == 2
    assert "cannot be read" in capsys.readouterr().err
    model = trained / "out" / "model"
    assert lmlab("eval", model, "--corpus", small_corpus, "--length", "999999") == 2
    assert "length 999999 is not between 2 and" in capsys.readouterr().err


def test_a_tokenizer_without_an_end_of_text_cannot_pack(
    trained: Path, small_corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(trained / "out" / "model", tmp_path / "model")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    assert lmlab("eval", model, "--corpus", small_corpus) == 2
    captured = capsys.readouterr()
    assert "lmlab: the tokenizer has no eos_token" in captured.err
    assert "Traceback" not in captured.err


def test_only_the_first_process_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert lmlab("corpus", "list") == 0
    assert lmlab("corpus", "stats", "dox") == 2
    assert capsys.readouterr() == ("", "")
