"""The `fope` command as a user meets it; over 400 lines, as every verb is tried here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import fope.hf
from fope.cli import main
from fope.hf.config import read

torch.set_num_threads(1)

RUN = """
[corpus]
name = "file:{text}"
vocab_size = 300
context_length = 32

[model]
model_type = "llama"
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 1
num_attention_heads = 2
head_dim = 16

[training]
max_steps = 2
batch_size = 4
learning_rate = 1e-3
checkpoint_every = 1

[evaluation]
max_blocks = 4
"""


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with run.toml on a text of its own, and a cache of its own."""
    folder = tmp_path_factory.mktemp("cli")
    text = folder / "text.txt"
    sentence = "Chapter {0}. Wave {0} completes a cycle in {0} positions; its sine is zero at the end."
    text.write_text("\n\n".join(sentence.format(n) * 30 for n in range(60)))
    (folder / "run.toml").write_text(RUN.format(text=text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENFOLD_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """A saved Llama with RoPE."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "plain")
    return folder / "plain"


@pytest.fixture(scope="module")
def converted(plain: Path, folder: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(plain)
    fope.hf.convert_to_fope(model, train_length=64, zero_sin=1.0).save_pretrained(folder / "fope")
    return folder / "fope"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that succeeds prints to stdout."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert ended.value.code in (0, None), err
    return out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The message of a command that ends with `code`; never a traceback."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    err = capsys.readouterr().err
    assert ended.value.code == code
    assert "Traceback" not in err
    return err


def logits(path: Path) -> torch.Tensor:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(path)(torch.arange(20)[None]).logits


def test_inspect_of_intern_s1_pro_s_shape_counts_45_of_64(capsys: pytest.CaptureFixture[str]) -> None:
    shape = ("--head-dim", "128", "--theta", "5e6", "--train-length", "262144", "--heads", "4")
    found = json.loads(printed(capsys, "inspect", *shape, "--init-gain", "0.5", "--json"))
    assert found["kept"] == found["frequencies"] == 45
    assert len(found["pairs"]) == 64
    assert found["std"] == pytest.approx(0.0151, abs=5e-5)
    assert found["pairs"][0]["period"] == pytest.approx(2 * torch.pi)
    assert found["pairs"][44]["period"] <= 262144 < found["pairs"][45]["period"]
    assert "45 of 64" in printed(capsys, "inspect", *shape)


def test_inspect_of_a_checkpoint_reads_its_coefficients(
    converted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(printed(capsys, "inspect", str(converted), "--json"))
    assert found["coefficients"] == {"layout": "fope", "layers": 2, "shape": [2, 3, 3], "misled": 0}
    assert found["config"]["train_length"] == 64


def test_inspect_finds_a_pair_that_another_wave_leads(
    converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(converted / "model.safetensors")
    tensors["model.layers.1.self_attn.fope.cos_coef"][0, 2, 2] = 0.0
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((converted / "config.json").read_bytes())
    assert json.loads(printed(capsys, "inspect", str(tmp_path), "--json"))["coefficients"]["misled"] == 1


def test_selftest_passes_in_both_layouts(converted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "inspect", "--selftest", "--json"))["selftest"]
    assert found == {"half_split": True, "interleaved": True}


def as_trained(converted: Path, folder: Path, interleaved_config: bool, sizes: torch.Tensor) -> Path:
    """A copy whose rows of q and k have these lengths in each head: training makes those of a pair alike."""
    tensors = load_file(converted / "model.safetensors")
    for key, weight in tensors.items():
        if key.endswith(("q_proj.weight", "k_proj.weight")):
            rows = torch.nn.functional.normalize(weight, dim=1).unflatten(0, (-1, 16)) * sizes[:, None]
            tensors[key] = (rows + 0.01 * rows.roll(1, 1)).flatten(0, 1).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((converted / "config.json").read_text())
    config["rope_parameters"]["interleaved"] = interleaved_config
    (folder / "config.json").write_text(json.dumps(config))
    return folder


INTERLEAVED = torch.linspace(0, 2, 8).exp().repeat_interleave(2)  # channels 2j and 2j + 1 alike
HALF_SPLIT = INTERLEAVED[::2].repeat(2)


@pytest.mark.parametrize(
    ("sizes", "interleaved_config", "told"),
    [
        (INTERLEAVED, False, "FAILED"),
        (INTERLEAVED, True, "passed"),
        (HALF_SPLIT, False, "passed"),
        (HALF_SPLIT, True, "cannot tell"),
        (torch.ones(16), False, "cannot tell"),  # not trained
        (torch.ones(16), True, "cannot tell"),
    ],
)
def test_selftest_tells_the_layout_where_weights_do(
    sizes: torch.Tensor,
    interleaved_config: bool,
    told: str,
    converted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["inspect", str(as_trained(converted, tmp_path, interleaved_config, sizes)), "--selftest"]
    if told == "FAILED":
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 1
        assert "layout of the checkpoint: FAILED" in capsys.readouterr().out
    else:
        assert f"layout of the checkpoint: {told}" in printed(capsys, *arguments)


def test_selftest_says_what_it_could_not_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Phi-3 has one projection for q, k and v."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model("phi3", vocab_size=50, pad_token_id=0, **sizes)
    model = AutoModelForCausalLM.from_config(config)
    fope.hf.convert_to_fope(model, train_length=64).save_pretrained(tmp_path)
    shown = printed(capsys, "inspect", str(tmp_path), "--selftest")
    assert "layout of the checkpoint: cannot tell" in shown
    assert "rotation, interleaved:    passed" in shown


def test_convert_extend_and_fold(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, longer, folded = (tmp_path / name for name in ("first", "longer", "folded"))
    made = json.loads(
        printed(
            capsys,
            *("convert", str(plain), str(first), "--train-length", "64", "--zero-sin", "1", "--json"),
        )
    )
    assert (made["kept"], made["pairs"], made["zero_sin"]) == (3, 8, 1.0)
    assert "5 of 8 pairs kept at L=1024" in printed(
        capsys, "convert", str(first), str(longer), "--train-length", "1024"
    )
    printed(capsys, "fold", str(first), str(folded))
    stored = read(AutoModelForCausalLM.from_pretrained(folded).config)
    assert stored is not None
    assert stored.config.zero_sin == 0
    torch.testing.assert_close(logits(folded), logits(first), atol=1e-4, rtol=1e-4)


def test_convert_can_leave_the_weights_as_they_are(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--train-length", "64", "--zero-sin", "1", "--no-preserve")
    printed(capsys, "convert", str(plain), str(tmp_path / "raw"), *arguments)
    weights = (AutoModelForCausalLM.from_pretrained(source) for source in (plain, tmp_path / "raw"))
    before, after = (model.model.layers[0].self_attn.q_proj.weight for model in weights)
    assert torch.equal(before, after)


def test_convert_with_yarn(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaling = {"type": "yarn", "factor": 4.0, "original_length": 64}
    printed(
        capsys,
        *("convert", str(plain), str(tmp_path / "yarn"), "--train-length", "64"),
        *("--scaling", json.dumps(scaling)),
    )
    stored = read(AutoModelForCausalLM.from_pretrained(tmp_path / "yarn").config)
    assert stored is not None
    assert dict(stored.scaling) == scaling


def test_yarn_on_a_model_that_has_fope(
    converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scaling = {"type": "yarn", "factor": 4.0, "original_length": 64}
    options = ("--train-length", "64", "--scaling", json.dumps(scaling))
    printed(capsys, "convert", str(converted), str(tmp_path / "yarn"), *options)
    stored = read(AutoModelForCausalLM.from_pretrained(tmp_path / "yarn").config)
    assert stored is not None
    assert (dict(stored.scaling), stored.config.train_length) == (scaling, 64)
    assert not torch.allclose(logits(tmp_path / "yarn"), logits(converted), atol=1e-5)


def test_train_eval_and_passkey(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = json.loads(printed(capsys, "train", "run.toml", "--json"))
    run = folder / "runs" / "run"
    assert read(AutoModelForCausalLM.from_pretrained(run / "model").config) is not None
    assert json.loads(printed(capsys, "train", "run.toml", "--json")) == metrics  # finished: not done again
    measured = json.loads(
        printed(capsys, "eval", str(run), "--lengths", "32,128", "--max-tokens", "512", "--json")
    )
    assert list(measured["valid"]) == ["32", "128"]
    assert 1 < measured["valid"]["128"]["ppl"] < 400
    found = json.loads(printed(capsys, "passkey", str(run), "--lengths", "256", "--trials", "1", "--json"))
    assert {score["length"] for score in found} == {256}
    assert "passkeys found" in printed(capsys, "passkey", str(run), "--lengths", "256", "--trials", "1")


def test_a_baseline_is_trained_and_measured_with_its_own_positions(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alibi = ("train", "run.toml", "-o", "runs/alibi", "--set", "apply.options.kind=alibi", "--json")
    metrics = json.loads(printed(capsys, *alibi))
    measured = json.loads(
        printed(capsys, "eval", "runs/alibi", "--lengths", "32", "--max-tokens", "128", "--json")
    )
    assert measured["valid"]["32"]["loss"] == pytest.approx(metrics["splits"]["valid"]["loss"], abs=0.05)


def test_dry_run_of_a_paper_s_run_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads(printed(capsys, "train", "60M-c4-512-fope", "--dry-run", "--json"))
    assert plan["parameters_without_embeddings"] == 59_318_784
    assert plan["steps"] == 19_073
    assert "10.00" not in printed(
        capsys, "train", "60M-c4-512-fope", "--dry-run", "--set", "training.max_steps=1"
    )
    assert not Path("runs/60M-c4-512-fope").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", "nowhere"), "holds no model"),
        (("inspect", "PLAIN"), "is no FoPE model"),
        (("inspect", "--head-dim", "7"), "head_dim must be even"),
        (("inspect", "--train-length", "5"), "no frequency has a full period in L=5"),
        (("inspect", "--init-gain", "-1"), "init_gain must be a finite number of at least 0"),
        (("convert", "EMPTY", "OUT", "--train-length", "64"), "cannot be loaded"),
        (("convert", "PLAIN", "OUT", "--train-length", "0"), "no frequency has a full period in L=0"),
        (("convert", "PLAIN", "OUT", "--train-length", "64", "--scaling", "yarn"), "is not JSON"),
        (("convert", "PLAIN", "OUT", "--train-length", "64", "--scaling", "[]"), "must be a JSON object"),
        (("convert", "FOPE", "OUT", "--train-length", "32"), "do not shrink"),
        (("convert", "PLAIN", "run.toml", "--train-length", "64"), "run.toml is a file; DST is the folder"),
        (("convert", "PLAIN", "PLAIN", "--train-length", "64"), "is the model that is read; give another"),
        (("fold", "FOPE", "FOPE"), "is the model that is read; give another"),
        (("fold", "PLAIN", "OUT"), "has no Fourier position embeddings: use convert_to_fope first"),
        (("eval", "nowhere"), "holds no finished run"),
        (("passkey", "nowhere", "--lengths", "a,b"), "whole numbers"),
        (("train", "nowhere.toml"), "nowhere.toml"),
        (("train", "70M-c4-512-fope"), "size: 60M, 180M, 1200M"),
        (
            ("train", "run.toml", "-o", "OUT", "--set", "apply.options.kind=sinus"),
            "there are no positions of kind 'sinus'",
        ),
        (("reproduce", "--scale", "huge"), "huge"),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    arguments: tuple[str, ...],
    message: str,
    plain: Path,
    converted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"PLAIN": str(plain), "FOPE": str(converted)}
    places |= {"EMPTY": str(tmp_path / "empty"), "OUT": str(tmp_path / "out")}
    assert message in refused(capsys, *(places.get(word, word) for word in arguments))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("verdict", "code"), [("held", 0), ("did not hold", 1)])
def test_assert_makes_claims_a_and_b_gating(
    verdict: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    claims = {"claims": [{"id": "A", "verdict": verdict}, {"id": "B", "verdict": "held"}]}
    monkeypatch.setattr("tenfold.Experiment.reproduce", lambda *_, **__: (claims, "the table"))
    printed(capsys, "reproduce")
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "--assert"])
    assert (ended.value.code or 0) == code
    out, err = capsys.readouterr()
    assert "the table" in out
    assert ("not held: A" in err) == (code == 1)


# What is set to None cannot be imported. One process for all cases, for it takes seconds to import torch and
# transformers. No module is imported twice: one that ends in an error is not kept, and the others stay.
WITHOUT = """
import contextlib, io, json, sys
import fope
loaded, told = "transformers" in sys.modules, []
for missing, arguments in json.loads(sys.argv[1]):
    sys.modules.update(dict.fromkeys(missing))
    from fope.cli import main
    code, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code or 0
    told.append({"code": code, "out": out.getvalue(), "err": err.getvalue()})
    for name in missing:
        del sys.modules[name]
print(json.dumps([{"loaded": loaded}, *told]))
"""
BARE = (("transformers", "lmlab", "tenfold", "safetensors"), ("inspect", "--json"))
MISSING = {
    "transformers": (["fold", ".", "b"], "hf"),
    "huggingface_hub transformers": (["fold", "a", "b"], "hf"),
    "lmlab": (["train", "run.toml"], "reproduce"),
    "lmlab transformers safetensors": (["train", "run.toml"], "reproduce"),
    "tenfold": (["train", "run.toml"], "reproduce"),
}


@pytest.fixture(scope="module")
def told_without() -> dict[str, dict[str, Any]]:
    """What commands say without a package, by its name; `bare`: without any that an extra brings.

    `import`: whether the import of fope loads transformers.
    """
    cases = [BARE, *((missing.split(), arguments) for missing, (arguments, _) in MISSING.items())]
    command = [sys.executable, "-c", WITHOUT, json.dumps(cases)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    return dict(zip(("import", "bare", *MISSING), json.loads(ended.stdout), strict=True))


@pytest.mark.parametrize(("missing", "extra"), [(missing, extra) for missing, (_, extra) in MISSING.items()])
def test_what_is_missing_is_named_with_its_extra(
    missing: str, extra: str, told_without: dict[str, dict[str, Any]]
) -> None:
    told = told_without[missing]
    assert told["code"] == 2
    assert f"pip install 'fope[{extra}]'" in told["err"]
    assert "Traceback" not in told["err"]


def test_the_package_needs_no_transformers(told_without: dict[str, dict[str, Any]]) -> None:
    assert told_without["import"] == {"loaded": False}


def test_the_command_itself_needs_torch_and_typer_only(told_without: dict[str, dict[str, Any]]) -> None:
    told = told_without["bare"]
    assert told["code"] == 0, told["err"]
    assert json.loads(told["out"])["kept"] == 16


def test_ctrl_c_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fope.reproduce.training.run_config", lambda *_: None)
    monkeypatch.setattr("fope.reproduce.training.train_run", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["train", "run.toml"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "fope: interrupted; the same command goes on where it stopped\n"
