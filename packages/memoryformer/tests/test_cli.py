"""The `memoryformer` command as a user meets it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from lmlab.tokenizers import train_tokenizer
from memoryformer import MemoryFormerConfig, MemoryFormerForCausalLM, QuantizedMemoryLayer, flops, terminal
from memoryformer.cli import main
from memoryformer.texts import score_text

torch.set_num_threads(1)

SENTENCE = "Chapter {0}. The row of a table is chosen by {0} signs; the rows of all tables are added."
RUN = """
[corpus]
name = "file:{text}"
vocab_size = 300
context_length = 32

[model]
model_type = "memoryformer"
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
tau = 4

[training]
max_steps = 2
batch_size = 4
learning_rate = 3e-3
checkpoint_every = 1

[evaluation]
max_blocks = 4
"""


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with run.toml on a text of its own, and a cache of its own."""
    folder = tmp_path_factory.mktemp("cli")
    text = folder / "text.txt"
    text.write_text("\n\n".join(SENTENCE.format(n) * 30 for n in range(60)))
    (folder / "run.toml").write_text(RUN.format(text=text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TENFOLD_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer([SENTENCE.format(n) for n in range(60)], 300)


@pytest.fixture(scope="module")
def ours(folder: Path, tokenizer: Any) -> Path:
    """A saved MemoryFormer."""
    torch.manual_seed(0)
    config = MemoryFormerConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    MemoryFormerForCausalLM(config).save_pretrained(folder / "ours")
    tokenizer.save_pretrained(folder / "ours")
    return folder / "ours"


@pytest.fixture(scope="module")
def llama(folder: Path, tokenizer: Any) -> Path:
    """A saved dense model."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "llama")
    tokenizer.save_pretrained(folder / "llama")
    return folder / "llama"


@pytest.fixture(scope="module")
def gpt2(folder: Path, tokenizer: Any) -> Path:
    """A saved dense model that knows 64 positions and no more."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(folder / "gpt2")
    tokenizer.save_pretrained(folder / "gpt2")
    return folder / "gpt2"


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command that succeeds prints to stdout."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert ended.value.code in (0, None), err
    return out


def refused(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    """The message of a command that ends with `code`; never a traceback."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    err = capsys.readouterr().err
    assert ended.value.code == code
    assert "Traceback" not in err
    return err


def test_flops_of_tiny_are_table_1_s_and_the_parameters_stand_beside_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = json.loads(printed(capsys, "flops", "tiny", "--json"))
    assert round(found["memoryformer"]["block"]["fc"] / 1e9, 1) == 0.4
    assert round(found["memoryformer"]["block"]["total"] / 1e9, 1) == 4.7
    assert round(found["transformer"]["block"]["fc"] / 1e9, 1) == 6.4
    assert round(found["transformer"]["block"]["total"] / 1e9, 1) == 10.7
    assert round(found["memoryformer"]["parameters"]["tables"] / 1e6) == 415
    assert round(found["memoryformer"]["bytes_per_token"]["float32"]["fc"] / 1e6, 1) == 4.1
    table = printed(capsys, "flops", "tiny")
    assert "415.2 M" in table
    assert "10.74 G" in table
    assert "memoryformer" in printed(capsys, "flops", "small", "--variant", "official", "--json")


def test_flops_of_a_saved_model_are_those_of_its_config(
    ours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(printed(capsys, "flops", ours, "--seq", "64", "--json"))
    model = MemoryFormerForCausalLM.from_pretrained(ours)
    assert found["memoryformer"]["parameters"]["total"] == sum(p.numel() for p in model.parameters())
    assert found["memoryformer"]["block"]["fc"] == 6 * 4 * 64 * 32


def test_flops_have_the_unit_of_the_larger_number() -> None:
    """A block of d 32, tau 8, 8 tokens: 6 K s d = 6·4·8·32 against 12 s d² multiply-adds."""
    config = MemoryFormerConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    rows = {row[0]: row[1:] for row in terminal.costs(flops.compare(config, 8))}
    assert rows["FLOPs of a block without attention (as the paper counts)"] == ("6.144 k", "98.3 k", "0.06")
    assert terminal._counts(0, 999) == ["0", "999"]
    assert terminal._counts(402_653_184, 6_442_450_944) == ["0.4027 G", "6.442 G"]
    assert terminal._counts(2 * 10**18) == ["2,000 P"]


def test_train_saves_a_model_that_eval_measures_alike(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = json.loads(printed(capsys, "train", "run.toml", "--json"))
    run = folder / "runs" / "run"
    assert isinstance(AutoModelForCausalLM.from_pretrained(run / "model"), MemoryFormerForCausalLM)
    assert json.loads(printed(capsys, "train", "run.toml", "--json")) == metrics  # finished: not done again
    measured = json.loads(
        printed(capsys, "eval", run / "model", "--text", "text.txt", "--context-length", "32", "--json")
    )["text"]
    assert measured["loss"] == pytest.approx(metrics["splits"]["valid"]["loss"], abs=0.3)
    assert "perplexity, valid" in printed(capsys, "train", "run.toml")


def test_dry_run_of_tiny_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    plan = json.loads(printed(capsys, "train", "tiny", "--dry-run", "--json"))
    assert plan["steps"] == 106_418
    assert round(plan["table_parameters"] / 1e6) == 415
    assert round(plan["state_bytes"] / 1e9, 1) == 7.5
    assert "106,418 of 2,097,152 tokens" in printed(capsys, "train", "tiny", "--dry-run")
    assert not Path("runs/tiny").exists()


def test_eval_of_a_text_predicts_every_token_once_and_counts_its_bytes(
    ours: Path, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that gives every token the same probability: ln V nats a token, whatever the text."""
    model = MemoryFormerForCausalLM.from_pretrained(ours)
    torch.nn.init.zeros_(model.lm_head.weight)
    model.save_pretrained(tmp_path / "uniform")
    tokenizer.save_pretrained(tmp_path / "uniform")
    text = SENTENCE.format(7) + " Größe → ∞"
    (tmp_path / "text.txt").write_text(text, "utf-8")
    found = json.loads(
        printed(capsys, "eval", tmp_path / "uniform", "--text", tmp_path / "text.txt", "--json")
    )["text"]
    ids = tokenizer(text)["input_ids"]
    first = len(tokenizer.decode(ids[:1]).encode())
    assert found["tokens"] == len(ids) - 1
    assert found["bytes"] == len(text.encode()) - first
    assert found["loss"] == pytest.approx(math.log(len(tokenizer)), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(
        found["loss"] / math.log(2) * found["tokens"] / found["bytes"], rel=1e-6
    )


def test_windows_of_a_text_see_their_own_tokens_only(ours: Path, tokenizer: Any) -> None:
    """By hand for a text of one and a half windows: tokens 1..7 from the first, 8.. from token 7 on."""
    model = MemoryFormerForCausalLM.from_pretrained(ours)
    text = SENTENCE.format(3)[:40]
    ids = torch.tensor(tokenizer(text)["input_ids"])[:12]
    text = tokenizer.decode(ids)
    with torch.no_grad():
        parts = [ids[0:8], ids[7:12]]
        expected = sum(
            torch.nn.functional.cross_entropy(model(part[None]).logits[0, :-1], part[1:], reduction="sum")
            for part in parts
        )
    found = score_text(model, tokenizer, text, 8)
    assert found.tokens == len(ids) - 1 == 11
    assert found.loss == pytest.approx(float(expected) / 11, rel=1e-5)


def test_eval_of_tasks_goes_through_lm_eval(
    ours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tasks' data come from the hub: what the harness finds is put in its place here."""
    asked: dict[str, Any] = {}

    def found(model: Any, tasks: list[str], limit: int | None, task_manager: Any) -> dict[str, Any]:
        asked.update(tasks=tasks, limit=limit, size=model.model.config.hidden_size)
        return {"results": {"piqa": {"acc,none": 0.602, "alias": "piqa"}}}

    monkeypatch.setattr("lm_eval.simple_evaluate", found)
    monkeypatch.setattr("lm_eval.tasks.TaskManager.__init__", lambda *_: None)  # reads thousands of files
    monkeypatch.setattr(
        "lm_eval.tasks.TaskManager.match_tasks", lambda _, names: set(names) & {"piqa", "winogrande"}
    )
    assert "0.6020" in printed(capsys, "eval", ours, "--tasks", "piqa,winogrande", "--limit", "5")
    assert asked == {"tasks": ["piqa", "winogrande"], "limit": 5, "size": 32}
    monkeypatch.setattr("memoryformer.cli.load_model", lambda _: pytest.fail("the model was loaded"))
    told = refused(capsys, "eval", ours, "--text", "text.txt", "--tasks", "piqa,piquant")
    assert "lm-eval has no task piquant" in told


def test_another_dtype_is_refused_before_the_model_is_loaded(
    ours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("memoryformer.cli.load_model", lambda _: pytest.fail("the model was loaded"))
    assert "unknown dtype 'int4'" in refused(capsys, "quantize", ours, "OUT", "--dtype", "int4")


def test_generate_goes_on_with_the_prompt(ours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = "Chapter 5. The"
    size = ("--max-new-tokens", "8")
    greedy = printed(capsys, "generate", ours, prompt, *size)
    assert greedy.startswith(prompt)
    assert greedy == printed(capsys, "generate", ours, prompt, *size)
    sampled = [
        printed(capsys, "generate", ours, prompt, "--temperature", "1", "--seed", seed, *size)
        for seed in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]


def test_generate_refuses_at_once_what_the_model_has_no_positions_for(
    ours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """64 positions: the prompt of n tokens and the new ones but the last, which no step reads."""
    prompt = "Chapter 5. The"
    taken = len(AutoTokenizer.from_pretrained(ours)(prompt)["input_ids"])
    printed(capsys, "generate", ours, prompt, "--max-new-tokens", 65 - taken)  # all 64
    monkeypatch.setattr(MemoryFormerForCausalLM, "generate", lambda *_, **__: pytest.fail("it was computed"))
    told = refused(capsys, "generate", ours, prompt, "--max-new-tokens", 66 - taken)
    assert (
        f"(max_position_embeddings 64): the prompt has {taken} tokens, so ask for {65 - taken} at most"
        in told
    )
    assert "so give a shorter one" in refused(capsys, "generate", ours, prompt * 40, "--max-new-tokens", 1)


def test_buckets_count_the_rows_that_a_text_uses(ours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--tokens", "1024", "--length", "32")
    found = json.loads(printed(capsys, "buckets", ours, "text.txt", *options, "--json"))
    assert len(found) == 6  # q|k|v and the two layers of each block
    for layer in found.values():
        assert 0 <= layer["entropy"] <= 1
        assert 0 < layer["max_share"] <= 1
    table = printed(capsys, "buckets", ours, "text.txt", *options, "--figures", "drawn")
    assert all(name in table for name in found)
    assert {file.name for file in Path("drawn").iterdir()} == {
        f"{name}.png" for name in ("bucket_histogram", "bucket_entropy", "dead_rows", "collision_rate")
    }


@pytest.mark.parametrize(("dtype", "ratio"), [("int8", 4), ("bfloat16", 2)])
def test_quantize_stores_tables_in_less_memory(
    ours: Path, tmp_path: Path, dtype: str, ratio: int, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = json.loads(printed(capsys, "quantize", ours, tmp_path / "q", "--dtype", dtype, "--json"))
    assert saved["table_bytes_before"] == ratio * saved["table_bytes"]
    model, before = (AutoModelForCausalLM.from_pretrained(place) for place in (tmp_path / "q", ours))
    assert any(isinstance(module, QuantizedMemoryLayer) for module in model.modules()) == (dtype == "int8")
    ids = torch.arange(20)[None]
    difference = (model(ids).logits - before(ids).logits).abs()
    assert difference.median() < 0.02  # single tokens may differ by more: a code flips near zero
    assert printed(capsys, "generate", tmp_path / "q", "Chapter", "--max-new-tokens", "2").startswith(
        "Chapter"
    )


@pytest.mark.parametrize("verb", ["quantize", "convert official"])
def test_a_save_that_fails_leaves_no_folder(
    verb: str, ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, save = MemoryFormerForCausalLM.from_pretrained(ours), MemoryFormerForCausalLM.save_pretrained

    def full(model: Any, folder: Path, **settings: Any) -> None:
        save(model, folder, **settings)
        raise OSError("No space left on device")

    monkeypatch.setattr("memoryformer.convert.official.convert_official", {ours: model}.get)
    monkeypatch.setattr(MemoryFormerForCausalLM, "save_pretrained", full)
    assert "No space left" in refused(capsys, *verb.split(), ours, tmp_path / "deep" / "out", code=1)
    assert not list((tmp_path / "deep").iterdir())


def test_convert_official_saves_what_the_converter_makes(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The converter itself is tested in test_official.py."""
    model = MemoryFormerForCausalLM.from_pretrained(ours)
    monkeypatch.setattr("memoryformer.convert.official.convert_official", {Path("global_step9"): model}.get)
    assert "pythia-70m-deduped" in printed(capsys, "convert", "official", "global_step9", tmp_path / "made")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


def test_probe_tells_which_layers_could_be_replaced(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--tokens", "2048", "--length", "64", "--columns", "8")
    found = json.loads(printed(capsys, "probe", llama, "text.txt", *options, "--json"))
    assert [layer["name"] for layer in found["layers"]] == [
        f"model.layers.{i}.mlp.{name}_proj" for i in (0, 1) for name in ("gate", "up", "down")
    ]
    assert all(0 < layer["fitted"] <= layer["held_out"] * 1.5 for layer in found["layers"])
    table = printed(capsys, "probe", llama, "text.txt", *options, "--match", "*.down_proj")
    assert "model.layers.1.mlp.down_proj" in table
    assert "A Memory Layer is a new non-linear layer" in table


def test_probe_and_eval_of_a_text_keep_to_the_model_s_positions(
    gpt2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """64 of them, fewer than the 512 tokens that `probe` would take."""
    options = ("--tokens", "1024", "--columns", "8", "--match", "*.c_fc")
    found = json.loads(printed(capsys, "probe", gpt2, "text.txt", *options, "--json"))
    assert [layer["name"] for layer in found["layers"]] == ["transformer.h.0.mlp.c_fc"]
    scored = ("eval", gpt2, "--text", "text.txt", "--context-length")
    printed(capsys, *scored, "64")
    told = refused(capsys, *scored, "65")
    assert "--context-length 65 is more than the model has positions for (max_position_embeddings 64)" in told


def test_bench_prints_a_table_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("memoryformer.benchmark._last_cache", lambda device: 2**14)
    options = ("--widths", "64", "--tokens", "1,2", "--seconds", "0.01", "--no-peers")
    table = printed(capsys, "bench", *options, "-o", tmp_path / "bench.json")
    assert "module int8" in table
    assert "d 64, module float32: nn.Linear float32 is faster" in table
    report = json.loads((tmp_path / "bench.json").read_text())
    assert len(report["timings"]) == 14
    assert report["environment"]["threads"] == 1
    assert json.loads(printed(capsys, "bench", *options, "--json"))["timings"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("flops", "tinny"), "Did you mean 'tiny'?"),
        (("flops", "base", "--variant", "official"), "no config of base"),
        (("flops", "LLAMA"), "is a llama model; flops counts MemoryFormer models"),
        (("flops", "EMPTY"), "has no config that can be read"),
        (("train", "nowhere.toml"), "nowhere.toml"),
        (("train", "huge"), "neither a .toml file nor a run of the paper"),
        (("train", "run.toml", "-o", "OUT", "--set", "model.tau=5"), "divisible"),
        (("train", "run.toml", "-o", "OUT", "--set", "training.learning=1"), "training.learning"),
        (("train", "tiny", "--dry-run", "--days", "0"), "days"),
        (("eval", "OURS"), "say what to measure"),
        (("eval", "OURS", "--text", "nowhere.txt"), "the text nowhere.txt cannot be read"),
        (("eval", "OURS", "--text", "SHORT"), "it takes two to predict one"),
        (("eval", "OURS", "--text", "text.txt", "--context-length", "1"), "it takes two tokens"),
        (("eval", "EMPTY", "--text", "text.txt"), "cannot be loaded"),
        (("generate", "OURS", ""), "the prompt is empty"),
        (("eval", "text.txt", "--text", "text.txt"), "text.txt is a file; a model is a folder"),
        (("flops", "no/such/model"), "there is no folder no/such/model, and it is no hub id"),
        (("generate", "OURS", "a", "--temperature", "-1"), "it must be 0 or more"),
        (("generate", "OURS", "a", "--temperature", "nan"), "it must be 0 or more, and finite"),
        (("eval", "CUT", "--text", "text.txt"), "are damaged or cut short"),
        (("quantize", "CUT", "OUT"), "are damaged or cut short"),
        (("eval", "OTHER_TAU", "--text", "text.txt"), "have other sizes than its config.json says"),
        (("bench", "-o", "nowhere/bench.json"), "there is no folder nowhere"),
        (("bench", "-o", "EMPTY"), "is a folder; give the file to write to"),
        (
            ("buckets", "OURS", "text.txt", "--figures", "SHORT"),
            "short.txt is a file; --figures is the folder",
        ),
        (("train", "run.toml", "-o", "text.txt"), "text.txt is a file; --out is the folder to write to"),
        (("buckets", "OURS", "nowhere.txt"), "cannot be read"),
        (("buckets", "OURS", "SHORT"), "a sequence needs 64"),
        (("buckets", "LLAMA", "text.txt"), "has no MemoryLayer"),
        (("quantize", "LLAMA", "OUT"), "has no MemoryLayer"),
        (("quantize", "OURS", "OURS"), "is the model that is read; give another folder"),
        (("quantize", "OURS", "text.txt"), "text.txt is a file; OUT is the folder"),
        (("quantize", "OURS", "LLAMA"), "is there already and not empty; give another folder as OUT"),
        (("convert", "official", "EMPTY", "LLAMA"), "is there already and not empty"),
        (("convert", "official", "EMPTY", "OUT"), "EMPTY"),
        (("probe", "LLAMA", "text.txt", "--match", "*.ffn.*"), "*.mlp.down_proj"),
        (("probe", "LLAMA", "text.txt", "--tau", "17"), "tau is 17"),
        (("probe", "LLAMA", "text.txt", "--tokens", "64", "--length", "64"), "of 1 sequences"),
        (("bench", "--widths", "big"), "--widths big: write whole numbers"),
        (("bench", "--widths", "60"), "which tau = 8 does not divide"),
        (("bench", "--device", "tpu"), "may be 'cpu' or 'cuda'"),
        (("reproduce", "--scale", "huge"), "huge"),
        (("bench", "--seconds", "soon"), "--seconds"),
        (("sing",), "sing"),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    arguments: tuple[str, ...],
    message: str,
    ours: Path,
    llama: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    empty, short = tmp_path / "empty", tmp_path / "short.txt"
    empty.mkdir()
    short.write_text("a")
    cut, other_tau = (Path(shutil.copytree(ours, tmp_path / name)) for name in ("cut", "other_tau"))
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    config = json.loads((other_tau / "config.json").read_text())
    (other_tau / "config.json").write_text(json.dumps(config | {"tau": 4}))
    places = {"OURS": ours, "LLAMA": llama, "EMPTY": empty, "SHORT": short, "OUT": tmp_path / "out"}
    places |= {"CUT": cut, "OTHER_TAU": other_tau}
    told = refused(capsys, *(places.get(word, word) for word in arguments))
    assert str(places.get(message, message)) in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("verdict", "code"), [("held", 0), ("did not hold", 1)])
def test_assert_makes_claims_c1_and_c2_gating(
    verdict: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    claims = {"claims": [{"id": "C1", "verdict": verdict}, {"id": "C2", "verdict": "held"}]}
    monkeypatch.setattr("tenfold.Experiment.reproduce", lambda *_, **__: (claims, "the table"))
    printed(capsys, "reproduce")
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "--assert"])
    assert (ended.value.code or 0) == code
    out, err = capsys.readouterr()
    assert "the table" in out
    assert ("not held: C1" in err) == (code == 1)


@pytest.mark.parametrize(
    ("missing", "function", "arguments", "extra"),
    [
        ("huggingface_hub", "memoryformer.hub.find_model", ("eval", "LLAMA", "--text", "text.txt"), "hf"),
        ("transformers", "memoryformer.hf.config.MemoryFormerConfig.preset", ("flops", "tiny"), "hf"),
        ("lmlab.train", "memoryformer.reproduce.training.run_config", ("train", "run.toml"), "reproduce"),
        ("tenfold", "tenfold.Experiment.reproduce", ("reproduce",), "reproduce"),
        ("yaml", "memoryformer.hf.config.MemoryFormerConfig.preset", ("flops", "tiny"), "hf"),
        ("scipy.sparse", "memoryformer.probing.probe", ("probe", "LLAMA", "text.txt"), "fit"),
        ("lm_eval", "memoryformer.texts.find_tasks", ("eval", "nowhere", "--tasks", "piqa"), "eval"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(
    missing: str,
    function: str,
    arguments: tuple[str, ...],
    extra: str,
    llama: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def without(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(function, without)
    told = refused(capsys, *(llama if word == "LLAMA" else word for word in arguments))
    assert f"this needs {missing.partition('.')[0]}, which is not installed" in told
    assert f"pip install 'memoryformer[{extra}]'" in told


def test_ctrl_c_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("memoryformer.reproduce.training.run_config", lambda *_: None)
    monkeypatch.setattr("memoryformer.reproduce.training.train_run", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["train", "run.toml"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "memoryformer: interrupted; the same command goes on where it stopped\n"
