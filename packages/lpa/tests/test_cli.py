"""The `lpa` command as a user meets it."""

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
)

import lpa
from lpa.cli import main

RUN = """
[corpus]
name = "file:{text}"
vocab_size = 300
context_length = 16

[model]
model_type = "llama"
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 1
num_attention_heads = 2

[apply]
function = "lpa.reproduce.training:modify"
options = {{ rank = 8 }}

[training]
max_steps = 4
batch_size = 4
learning_rate = 1e-3

[evaluation]
max_blocks = 4
"""


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small dense Llama with a byte-level tokenizer."""
    from lmlab.tokenizers import train_tokenizer

    torch.manual_seed(0)
    tokenizer: PreTrainedTokenizerFast = train_tokenizer(["the cat sat on the mat. " * 20], 300)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    folder = tmp_path / "dense"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training run's file on a text of its own, with a cache of its own."""
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    sentence = "Chapter {0}. The rank of a matrix is at most {0}; its rows span a space of dimension {0}."
    text.write_text("\n\n".join(sentence.format(n) * 30 for n in range(60)))
    file = tmp_path / "run.toml"
    file.write_text(RUN.format(text=text))
    return file


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that succeeds prints to stdout."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert ended.value.code in (0, None), err
    return out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that ends with 2; never a traceback."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert "Traceback" not in err
    return err


def test_estimate_of_a_preset_counts_as_the_paper_s_table_does(capsys: pytest.CaptureFixture[str]) -> None:
    cost = json.loads(printed(capsys, "estimate", "setting2-130m", "--seq-len", "256", "--json"))
    assert cost["params"] == 115_265_025
    assert cost["dense_params"] == 134_139_393
    assert cost["flops"]["attention_projections"] == 18_874_368


def test_a_gguf_file_without_its_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without(*_: object, **__: object) -> None:
        raise ImportError("Please install torch and gguf>=0.10.0 to load a GGUF checkpoint in PyTorch.")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", without)
    asked = ("--gguf-file", "model.gguf", "--rank", "8", "-o", str(tmp_path / "out"))
    err = refused(capsys, "factorize", str(tmp_path), *asked)
    assert "gguf>=" in err
    assert "pip install 'lpa[reproduce]' brings gguf" in err


def test_estimate_of_a_dense_model_at_a_rank(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cost = json.loads(printed(capsys, "estimate", str(saved), "--rank", "0.25", "--json"))
    assert cost["dense_params"] - cost["params"] == 4 * (32 * 32 - 8 * 64)
    assert "LPA / dense" in printed(capsys, "estimate", str(saved), "--rank", "8")


def test_factorize_then_merge_comes_back_at_full_rank(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    low, dense = tmp_path / "low", tmp_path / "merged"
    printed(capsys, "factorize", str(saved), "-o", str(low), "--rank", "1.0", "--allow-expand")
    printed(capsys, "merge", str(low), "-o", str(dense))
    before, after = (AutoModelForCausalLM.from_pretrained(folder) for folder in (saved, dense))
    tokens = torch.arange(20)[None]
    torch.testing.assert_close(after(tokens).logits, before(tokens).logits, rtol=1e-4, atol=1e-5)
    assert not lpa.is_lpa(after)
    assert (dense / "tokenizer.json").exists()


def test_factorize_with_text_and_with_a_budget(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 200)
    out = tmp_path / "whitened"
    printed(capsys, "factorize", str(saved), "-o", str(out), "--rank", "4", "--calibration", str(text))
    assert lpa.is_lpa(AutoModelForCausalLM.from_pretrained(out))
    saved_json = json.loads(
        printed(capsys, "factorize", str(saved), "-o", str(tmp_path / "b"), "--budget", "0.5", "--json")
    )
    assert saved_json["dense_params"] - saved_json["params"] >= 0.5 * 4 * 32 * 32


@pytest.mark.slow
def test_train_eval_and_sweep(run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    metrics = json.loads(printed(capsys, "train", "--config", str(run_file), "-o", str(out), "--json"))
    model = AutoModelForCausalLM.from_pretrained(out / "model")
    assert lpa.is_lpa(model)
    assert metrics["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    measured = json.loads(
        printed(
            capsys,
            *("eval", str(out / "model"), "--corpus", f"file:{tmp_path / 'text.txt'}"),
            *("--context-length", "16", "--max-blocks", "4", "--json"),
        )
    )
    assert measured["splits"]["valid"]["ppl"] == pytest.approx(metrics["splits"]["valid"]["ppl"], rel=1e-5)
    rows = json.loads(
        printed(
            capsys,
            *("sweep", "--config", str(run_file), "-o", str(tmp_path / "sweep"), "--ranks", "4,8", "--json"),
        )
    )
    assert [row["rank"] for row in rows] == [None, 4, 8]
    assert rows[2]["ppl"] == pytest.approx(metrics["splits"]["valid"]["ppl"], rel=1e-6)
    assert (tmp_path / "sweep" / "pareto.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("estimate", "nowhere/at/all"), "neither a preset"),
        (("estimate", "T5"), "no causal language model for T5Config"),
        (("estimate", "T5", "--rank", "8"), "no causal language model for T5Config"),
        (("estimate", "setting2-130m", "--rank", "half"), "neither a whole number nor a fraction"),
        (("estimate", "setting2-130m", "--rank", "700"), "saves nothing"),
        (("estimate", "setting2-130m", "--rank", "0"), "positive whole number"),
        (("factorize", "DENSE", "-o", "OUT"), "give one of --rank, --energy and --budget"),
        (("factorize", "DENSE", "-o", "OUT", "--rank", "4", "--calibration", "nowhere"), "cannot be read"),
        (("factorize", "nowhere/at/all", "-o", "OUT", "--rank", "4"), "cannot be loaded"),
        (("merge", "DENSE", "-o", "OUT"), "nothing to merge"),
        (("merge", "DENSE", "-o", "OUT", "--dtype", "int8"), "may be float32"),
        (("eval", "nowhere"), "holds no model"),
        (("train", "--config", "nowhere.toml", "-o", "OUT"), "nowhere.toml"),
        (("reproduce", "--scale", "huge"), "huge"),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    arguments: tuple[str, ...],
    message: str,
    saved: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    T5Config(num_layers=1).save_pretrained(tmp_path / "t5")
    places = {"DENSE": str(saved), "OUT": str(tmp_path / "out"), "T5": str(tmp_path / "t5")}
    assert message in refused(capsys, *(places.get(word, word) for word in arguments))
    assert not (tmp_path / "out").exists()


def without(saved: Path, *files: str) -> Path:
    """The saved model without some of its files."""
    for file in files:
        (saved / file).unlink()
    return saved


def test_a_model_without_a_tokenizer_is_converted_and_merged_and_that_is_told(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense, low, merged = (
        without(saved, "tokenizer.json", "tokenizer_config.json"),
        tmp_path / "low",
        tmp_path / "m",
    )
    for arguments in (
        ("factorize", str(dense), "--rank", "8", "-o", str(low)),
        ("merge", str(low), "-o", str(merged)),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code in (0, None)
        assert "has no tokenizer, for the model's cannot be read" in capsys.readouterr().err
    assert (merged / "model.safetensors").exists()
    assert not (merged / "tokenizer.json").exists()
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 200)
    told = refused(
        capsys, "factorize", str(dense), "--rank", "8", "-o", str(tmp_path / "w"), "--calibration", str(text)
    )
    assert f"--calibration needs the tokenizer of {dense}" in told


def test_merge_takes_the_tokenizer_of_a_hub_model_along(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed(capsys, "factorize", str(saved), "-o", str(tmp_path / "low"), "--rank", "8")
    for auto in (AutoModelForCausalLM, AutoTokenizer):
        read = auto.from_pretrained
        monkeypatch.setattr(
            auto, "from_pretrained", lambda name, read=read: read({"some/model": tmp_path / "low"}[name])
        )
    printed(capsys, "merge", "some/model", "-o", str(tmp_path / "merged"))
    assert (tmp_path / "merged" / "tokenizer.json").read_text() == (saved / "tokenizer.json").read_text()


def test_benchmarks_without_the_harness_say_what_to_install(
    saved: Path, run_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    text = f"file:{run_file.with_name('text.txt')}"
    command = ("eval", str(saved), "--corpus", text, "--context-length", "16", "--max-blocks", "1")
    told = refused(capsys, *command, "--tasks", "arc_easy")
    assert told.endswith("lpa: this needs lm_eval, which is not installed: pip install 'lpa[eval]'\n")


def test_eval_with_a_tokenizer_without_an_end_of_text(
    saved: Path, run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = json.loads((saved / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (saved / "tokenizer_config.json").write_text(json.dumps(settings))
    told = refused(capsys, "eval", str(saved), "--corpus", f"file:{run_file.with_name('text.txt')}")
    assert "lpa: the tokenizer has no eos_token" in told


def test_ctrl_c_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lpa.reproduce.training.train_file", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["train", "--config", "run.toml", "-o", "out"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "lpa: interrupted; the same command goes on where it stopped\n"
