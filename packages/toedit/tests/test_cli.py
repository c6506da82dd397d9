"""The `toedit` command as a user meets it."""

from __future__ import annotations

import datetime
import errno
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from toedit import EditConfig, Editor
from toedit.chat import conversation
from toedit.cli import main
from toedit.files import find_sources, read_rows
from toedit.manifest import read_manifest

ROWS = [{"id": f"d{n}", "text": f"the cat sat on mat {n}, hello world", "n": n} for n in range(9)]
FLAGS = ("--threshold", "1e-4", "--temperature", "3", "--top-k", "6", "--seed", "5")
CONFIG = EditConfig(threshold=1e-4, temperature=3.0, top_k=6, seed=5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Any, tokenizer: Any) -> str:
    """A folder with a saved model."""
    folder = tmp_path_factory.mktemp("model")
    tiny_llama().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    """(stdout, stderr) of a command that ends with `code`; never a traceback."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == code, err
    assert "Traceback" not in err
    return out, err


def texts(folder: Path) -> list[str]:
    rows = [row for source in find_sources([folder]) for row in read_rows(source, ("text",))]
    return [row.values["text"] for row in rows]  # type: ignore[union-attr]


def test_edit_gives_what_the_editor_gives_and_stats_and_diff_show_it(
    corpus: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    printed, told = run(capsys, "edit", corpus, "--out", out, "--model", model, *FLAGS, "--json")
    editor = Editor.from_pretrained(model, CONFIG)
    results = editor.edit_batch([row["text"] for row in ROWS], [str(row["id"]) for row in ROWS])
    assert texts(out) == [result.text for result in results]
    counts = json.loads(printed)
    assert counts["n_changed"] == sum(result.n_changed for result in results) > 0
    assert counts["n_candidates"] == sum(result.n_candidates for result in results)
    assert f"{counts['n_tokens']:,} tokens in" in told
    assert json.loads(run(capsys, "stats", out, "--json")[0]) == counts
    table = run(capsys, "stats", out)[0]
    assert f"{counts['n_changed']:,}" in table
    assert "drawn anew" in table
    shown, told = run(capsys, "diff", corpus, out, "--limit", 1)
    first = next(result for result in results if result.edits)
    assert shown.startswith(f"{first.doc_id}\n")
    assert "[-" in shown
    n_changed = sum(result.text != row["text"] for result, row in zip(results, ROWS, strict=True))
    assert told == f"toedit: {n_changed} changed, {9 - n_changed} the same, 0 only in A, 0 only in B\n"
    for same in ((), ("--resume",)):
        told = run(capsys, "edit", corpus, "--out", out, "--model", model, *FLAGS, *same)[1]
        assert "is complete already" in told


def test_where_no_token_was_scored_the_json_has_null_and_no_nan(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": 1, "text": ""}\n')
    arguments = ("edit", tmp_path / "in.jsonl", "--out", tmp_path / "out", "--model", model)
    counts = json.loads(run(capsys, *arguments, "--json")[0], parse_constant=pytest.fail)
    assert (counts["n_empty"], counts["n_tokens"], counts["perplexity"]) == (1, 0, None)
    assert "nan" not in run(capsys, "stats", tmp_path / "out")[0].lower()
    assert ">nan" not in (tmp_path / "out" / "report.html").read_text()


def test_a_corpus_without_a_document_is_told(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text("")
    told = run(capsys, "edit", tmp_path / "in.jsonl", "--out", tmp_path / "out", "--model", model)[1]
    assert told.splitlines()[-1] == "toedit: there is no document in the inputs"


def test_rows_that_were_left_out_make_the_exit_code_one(
    corpus: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with corpus.open("a") as file:
        file.write('{"id": "broken\n')
    told = run(capsys, "edit", corpus, "--out", tmp_path / "out", "--model", model, code=1)[1]
    assert "1 rows were left out; see" in told
    assert len(texts(tmp_path / "out")) == 9


def test_score_prints_the_perplexity_of_each_document(
    corpus: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        json.loads(line)
        for line in run(capsys, "score", corpus, "--model", model, "--tokens")[0].splitlines()
    ]
    scored = Editor.from_pretrained(model).score([str(row["text"]) for row in ROWS])
    assert [line["id"] for line in lines] == [row["id"] for row in ROWS]
    for line, expected in zip(lines, scored, strict=True):
        assert line["log_p"][0] is None
        assert line["log_p"][1:] == pytest.approx(expected.log_p[1:].tolist(), rel=1e-4)
        assert line["perplexity"] == pytest.approx(math.exp(-expected.log_p[1:].mean()), rel=1e-5)


def test_the_flags_win_over_the_config_file_and_the_manifest_has_the_result(
    corpus: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule, out = tmp_path / "rule.toml", tmp_path / "out"
    rule.write_text("threshold = 0.5\ntemperature = 3.0\ntop_k = 6\nseed = 4\n")
    edit = ("edit", corpus, "--model", model, "--config", rule, "--out", out)
    run(capsys, *edit, "--threshold", "1e-4", "--set", "seed=5")
    assert read_manifest(out).header["settings"]["config"] == CONFIG.to_dict()
    assert "config.threshold: 0.0001 there, 0.5 now" in run(capsys, *edit, "--set", "seed=5", code=2)[1]
    assert "give one of them" in run(capsys, *edit, "--preset", "paper", code=2)[1]
    target = ("--target-rate", 0.2, "--of", "candidates", "--json")
    rates = run(capsys, "calibrate", corpus, "--model", model, "--config", rule, *target)[0]
    flags = ("--temperature", 3, "--top-k", 6)
    assert rates == run(capsys, "calibrate", corpus, "--model", model, *flags, *target)[0]


def test_a_token_is_in_no_file_and_in_no_message(
    corpus: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    edit = ("edit", corpus, "--out", out, "--model", model, *FLAGS, "--option")
    told = run(capsys, *edit, "token=hf_first")
    told += run(capsys, *edit, "token=hf_second")
    assert "is complete already" in told[3]
    manifest = out / "manifest.jsonl"  # as an earlier version left it
    manifest.write_text(manifest.read_text().replace('"options": {', '"options": {"token": "hf_old"'))
    told += run(capsys, *edit, "token=hf_second", "--option", "dtype=float32", code=2)
    assert "settings.options.dtype: nothing there" in told[5]
    assert not [text for text in told if "hf_" in text]
    files = [path for path in out.rglob("*") if path.is_file() and path != manifest]
    assert not [path for path in files if b"hf_" in path.read_bytes()]
    run(capsys, *edit, "token=hf_second", "--no-resume")
    assert "hf_" not in manifest.read_text()


def test_a_second_prior_is_named_by_agree(
    corpus: Path,
    model: str,
    tmp_path: Path,
    tiny_llama: Any,
    tokenizer: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    second, out = tmp_path / "second", tmp_path / "out"
    tiny_llama(initializer_range=0.5).save_pretrained(second)
    tokenizer.save_pretrained(second)
    flags = ("--model", model, "--agree", second, "--temperature", 3, "--top-k", 320)
    target = ("--target-rate", 0.05, "--of", "candidates", "--json")
    found = json.loads(run(capsys, "calibrate", corpus, *flags, *target)[0])
    edit = ("edit", corpus, "--out", out, *flags, "--threshold", repr(found["threshold"]), "--json")
    counts = json.loads(run(capsys, *edit)[0])
    assert counts["n_candidates"] / counts["n_tokens"] == found["candidate_rate"] > 0
    assert read_manifest(out).header["settings"]["agree"] == str(second)
    assert "is complete already" in run(capsys, *edit)[1]
    without = [part for part in edit if part not in ("--agree", second)]
    assert f'settings.agree: "{second}" there, null now' in run(capsys, *without, code=2)[1]


def chats(n: int) -> list[dict[str, Any]]:
    said = [("user", f"the mat {n}?"), ("assistant", f"the cat sat on mat {n}, hello world, the hat")]
    return [{"role": role, "content": content} for role, content in said]


def test_chats_are_calibrated_scored_edited_and_compared_by_the_same_layout(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, out = tmp_path / "chats.jsonl", tmp_path / "out"
    corpus.write_text("".join(json.dumps({"id": n, "chat": chats(n)}) + "\n" for n in range(9)))
    columns = ("--layout", "messages", "--text-column", "chat")
    flags = ("--model", model, "--temperature", 3, "--top-k", 320)
    target = ("--target-rate", 0.1, "--of", "candidates", "--json")
    found = json.loads(run(capsys, "calibrate", corpus, *columns, *flags, *target)[0])
    edit = ("edit", corpus, "--out", out, *columns, *flags, "--threshold", repr(found["threshold"]), "--json")
    counts = json.loads(run(capsys, *edit)[0])
    # The prompts and the template are in the rates' denominators, and none of their tokens is a candidate.
    assert counts["n_tokens"] == found["n_tokens"]
    assert counts["n_candidates"] / counts["n_tokens"] == found["candidate_rate"] > 0

    shown, told = run(capsys, "diff", corpus, out, *columns)
    assert shown.count("[-") == shown.count("{+") > 0
    assert "assistant" not in shown
    assert "0 only in A, 0 only in B" in told

    line = json.loads(run(capsys, "score", corpus, *columns, *flags[:2], "--tokens")[0].splitlines()[0])
    editor = Editor.from_pretrained(model)
    document = conversation(chats(0), editor.tokenizer.base, "0").document
    (scored,) = editor.score([document])
    reply = scored.log_p[~scored.protected]
    assert 0 < line["answer_tokens"] == len(reply) < line["tokens"] == len(scored.ids)
    assert line["answer_perplexity"] == pytest.approx(math.exp(-reply.mean()), rel=1e-4)
    assert line["perplexity"] == pytest.approx(math.exp(-scored.log_p[1:].mean()), rel=1e-4)


def test_a_chat_that_has_no_such_form_is_told_with_its_row(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "chats.jsonl"
    corpus.write_text('{"id": 1, "messages": [{"role": "assistant", "content": "hi"}]}\n{"messages": "hi"}\n')
    for verb in (("score", corpus), ("calibrate", corpus, "--target-rate", 0.1)):
        told = run(capsys, *verb, "--layout", "messages", "--model", model, code=2)[1]
        assert "chats.jsonl, row 2: the messages are of type str, not a list" in told
    told = run(capsys, "diff", corpus, corpus, "--layout", "messages", code=2)[1]
    assert "row 2: the messages are of type str" in told


def test_a_chat_with_a_value_that_json_lacks_is_left_out_and_the_others_are_edited(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, out = tmp_path / "chats.parquet", tmp_path / "out"
    rows = [{"id": n, "messages": [{**said, "at": None} for said in chats(n)]} for n in range(5)]
    rows[2]["messages"][0]["at"] = datetime.datetime(2024, 2, 3)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), corpus)
    edit = ("edit", corpus, "--layout", "messages", "--out", out, "--model", model, *FLAGS)
    told = run(capsys, *edit, code=1)[1]
    assert "1 rows were left out" in told
    (line,) = map(json.loads, (out / "quarantine.jsonl").read_text().splitlines())
    assert (line["row"], line["id"]) == (3, 2)
    assert line["reason"].startswith("the column messages holds a value that the journal of a job, which is")
    assert "(Object of type datetime is not JSON serializable)" in line["reason"]
    edited = pyarrow.parquet.read_table(out / "data").to_pylist()
    assert [row["id"] for row in edited] == [0, 1, 3, 4]
    assert edited != [row for row in rows if row["id"] != 2]
    run(capsys, *edit, code=1)


@pytest.mark.slow
def test_where_there_is_no_terminal_no_library_draws_a_bar(corpus: Path, model: str) -> None:
    code = (
        "import sys; from toedit.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "from tqdm.auto import tqdm\n"  # as transformers does while it reads a GGUF file
        "list(tqdm(range(3)))\n"
    )
    command = [sys.executable, "-c", code, "score", str(corpus), "--model", model]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 9
    assert "it/s" not in done.stderr


def test_calibrate_prints_the_threshold_that_edit_takes(
    corpus: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model", model, "--top-k", 320)
    out, told = run(capsys, "calibrate", corpus, "--target-rate", 0.2, "--of", "candidates", *flags, "--json")
    found = json.loads(out)
    assert f"--threshold {found['threshold']!r} (from {found['n_tokens']} tokens)" in told
    edited = (
        "edit",
        corpus,
        "--out",
        tmp_path / "out",
        *flags,
        "--threshold",
        repr(found["threshold"]),
        "--json",
    )
    counts = json.loads(run(capsys, *edited)[0])
    assert counts["n_candidates"] / counts["n_tokens"] == found["candidate_rate"]
    assert counts["expected_changes"] == pytest.approx(found["change_rate"] * found["n_tokens"], rel=1e-4)
    assert "expected changes" in run(capsys, "calibrate", corpus, "--target-rate", 0.2, *flags[:4])[0]


def test_theory_prints_the_exact_error_beside_the_paper_s(capsys: pytest.CaptureFixture[str]) -> None:
    out, told = run(capsys, "theory", "-T", 200, "-d", 4, "--generations", 10, "--runs", 500, "--json")
    found = json.loads(out)
    last = found["generations"][-1]
    assert found["paper_bound"] == 2.0
    assert last["exact"] > 3 > last["paper"]
    assert abs(last["simulated"] - last["exact"]) < 4 * last["standard_error"]
    assert "the paper's bound is 2" in told
    assert "simulated" in run(capsys, "theory", "--masks", "full", "--runs", 9)[0]
    assert "it may be disjoint, fresh or full" in run(capsys, "theory", "--masks", "some", code=2)[1]
    assert "disjoint masks have fractions" in run(capsys, "theory", "--fraction", 0.5, code=2)[1]


def test_analyze_writes_a_page_with_the_perplexities_of_a_prior(
    corpus: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, page = tmp_path / "synth.jsonl", tmp_path / "page.html"
    other.write_text("".join(json.dumps({"text": f"hello mat {n} the hat"}) + "\n" for n in range(9)))
    assert run(capsys, "analyze", corpus, other, "--report", page, "--model", model)[0] == f"{page}\n"
    html = page.read_text()
    assert "9 human and 9 synthetic texts" in html
    assert "<h2>Perplexities</h2>" in html


def test_mix_writes_exactly_the_tokens_asked_for(
    corpus: Path, model: str, tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    other, out = tmp_path / "synth.jsonl", tmp_path / "mixed.jsonl"
    other.write_text("".join(json.dumps({"text": f"hello mat {n}"}) + "\n" for n in range(30)))
    mix = ("mix", corpus, other, "--alpha", 0.25, "--tokens", 80, "--tokenizer", model, "--out", out)
    assert json.loads(run(capsys, *mix, "--json")[0])["human_tokens"] == 20
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    sizes = {"human": 0, "synthetic": 0}
    for row in rows:
        sizes[row["source"]] += len(tokenizer(row["text"])["input_ids"])
    assert sizes == {"human": 20, "synthetic": 60}
    assert "mixed.jsonl is there already" in run(capsys, *mix, code=2)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--threshold", "0"), "threshold is 0.0; it must be a number above 0"),
        (("--threshold", "-1"), "threshold is -1.0"),
        (("--top-k", "0"), "top_k is 0; it must be a whole number, at least 1"),
        (("--top-k", "321"), "top_k is 321, more than the 320 tokens of the model"),
        (("--temperature", "0"), "temperature is 0.0; it must be a number above 0"),
        (("--preset", "best"), "there is no preset 'best'; there are: official, paper"),
        (("--set", "sampler"), "--set sampler: write key=value"),
        (("--set", "sampler=nucleus"), "sampler is 'nucleus'; it must be one of 'top_k'"),
        (("--set", "speed=3"), "'speed' is not a setting of EditConfig"),
        (("--set", "self=3"), "'self' is not a setting of EditConfig"),
        (("--top-k", "4", "--set", "top_k=0"), "top_k is 0"),
        (("--text-column", "body"), "there is no column 'body'; there are: 'id', 'text', 'n'"),
        (("--id-column", "key"), "there is no column 'key'"),
        (("--id-from", "row"), "--id-from row: it may be column or hash"),
        (("--layout", "chatml"), "there is no layout 'chatml'; there are: text, messages"),
        (("--layout", "alpaca", "--text-column", "x"), "the columns of the layout 'alpaca' have fixed names"),
        (("--backend", "onnx"), "there is no backend 'onnx'; there are: transformers"),
        (("--shard-rows", "0"), "shard_rows is 0; it must be at least 1"),
        (("--option", "batch_tokens=many"), "batch_tokens is 'many'; it must be a whole number, at least 1"),
        (("--option", "head_rows=0"), "head_rows is 0; it must be a whole number, at least 1"),
        (("--overlap", "4096"), "overlap is 4096 and window is 2048; overlap must be smaller"),
    ],
)
def test_a_mistake_is_told_without_a_traceback_and_with_exit_code_two(
    corpus: Path,
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    told = run(capsys, "edit", corpus, "--out", tmp_path / "out", "--model", model, *arguments, code=2)[1]
    assert message in told


def test_inputs_and_folders_that_do_not_fit_are_told(
    corpus: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    edit = ("edit", corpus, "--out", out, "--model", model)
    assert "there is no such file" in run(capsys, "edit", "no.jsonl", "--out", out, code=2)[1]
    assert "cannot load" in run(capsys, *edit[:-1], tmp_path / "none", code=2)[1]
    run(capsys, *edit)  # the failed start left nothing that is in the way
    told = run(capsys, *edit, "--threshold", 0.5, code=2)[1]
    assert "settings.config.threshold: 0.99 there, 0.5 now" in told
    assert "give another folder, or start anew with --no-resume" in told
    for flag in ("--no-resume", "--resume"):
        run(capsys, *edit, "--threshold", 0.5, flag)
    assert read_manifest(out).header["settings"]["config"]["threshold"] == 0.5
    for flag in ("--no-resume", "--resume"):
        told = run(capsys, "edit", corpus, "--out", tmp_path, "--model", model, flag, code=2)[1]
        assert "in the folder of results" in told
        (tmp_path / "full").mkdir(exist_ok=True)
        (tmp_path / "full" / "notes.txt").touch()
        told = run(capsys, "edit", corpus, "--out", tmp_path / "full", "--model", model, flag, code=2)[1]
        assert "is not empty and holds no results of toedit" in told
    assert "holds no results of `toedit edit`" in run(capsys, "stats", tmp_path, code=2)[1]
    assert (
        "row 1: there is no column 'body'"
        in run(capsys, "diff", corpus, out, "--text-column", "body", code=2)[1]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sigma", "0"), "--sigma 0.0: the errors are shown in units that need a sigma above 0"),
        (("--sigma", "inf"), "sigma is inf; a standard deviation is a number"),
        (("--seed", "-1"), "seed is -1; it must be a whole number, at least 0"),
        (("--masks", "fresh", "--fraction", "2"), "masks drawn anew have fractions from 0 to 1, not [2.0"),
        (("--masks", "fresh", "--decay", "1e300"), "masks drawn anew have fractions from 0 to 1"),
        (("--masks", "full", "--decay", "0.5"), "leave --fraction and --decay out"),
        (("--fraction", "nan"), "disjoint masks have fractions >= 0"),
        (("--samples", "5"), "T=5 samples in d=10 dimensions have no finite mean error"),
    ],
)
def test_impossible_settings_of_the_theory_are_told(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    out, told = run(capsys, "theory", "--runs", 9, *arguments, code=2)
    assert message in told
    assert len(told.splitlines()) == 1
    assert out == ""


def test_a_file_that_cannot_be_written_is_told_before_the_work(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """None of the verbs gets to a model: there is none."""
    page = tmp_path / "none" / "page"
    mix = ("mix", corpus, corpus, "--alpha", 0.5, "--tokens", 9, "--tokenizer", "none", "--out", page)
    for verb in (mix, ("diff", corpus, corpus, "--out", page), ("analyze", corpus, corpus, "--report", page)):
        told = run(capsys, *verb, code=2)[1]
        assert told == f"toedit: {page}: there is no folder {page.parent}; make it, or give another name\n"
    told = run(capsys, "analyze", corpus, corpus, "--report", tmp_path, code=2)[1]
    assert told == f"toedit: --report {tmp_path}: it is a folder; name the page to write\n"


def test_a_rate_that_cannot_be_is_told_before_the_model_is_loaded(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrate = ("calibrate", corpus, "--model", "none", "--target-rate")
    assert "target_rate is 2.0; it must be" in run(capsys, *calibrate, 2, code=2)[1]
    assert "of is 'words'; it must be" in run(capsys, *calibrate, 0.1, "--of", "words", code=2)[1]


def test_every_verb_takes_the_small_prior_by_its_name(
    corpus: Path,
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("toedit.reproduce.verb.small_prior", lambda: model)
    named, budget = ("--model", "smollm2-135m"), ("--alpha", 0.5, "--tokens", 9)
    for verb in (
        ("edit", corpus, "--out", tmp_path / "out", *named, "--agree", "smollm2-135m"),
        ("score", corpus, *named),
        ("calibrate", corpus, "--target-rate", 0.1, *named),
        ("analyze", corpus, corpus, "--report", tmp_path / "page.html", *named),
        ("mix", corpus, corpus, *budget, "--out", tmp_path / "mixed.jsonl", "--tokenizer", named[1]),
    ):
        run(capsys, *verb)


@pytest.mark.parametrize("while_doing", ["toedit.job.survey", "toedit.cli.load_editor"])
def test_ctrl_c_before_the_first_document_ends_as_it_does_later(
    corpus: Path,
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    while_doing: str,
) -> None:
    edit = ("edit", corpus, "--model", model, "--out", tmp_path / "out")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(while_doing, interrupted)
        told = run(capsys, *edit, code=130)[1]
    assert told == "toedit: interrupted; the same command goes on where it stopped\n"
    run(capsys, *edit)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on where it stopped"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device; mend it, then"),
    ],
)
def test_an_interrupt_and_a_full_disk_end_with_their_codes_and_can_be_resumed(
    corpus: Path,
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    message: str,
) -> None:
    edit = ("edit", corpus, "--model", model, *FLAGS, "--shard-rows", 4, "--out")

    def broken(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("toedit.commits.Commits.finish", broken)
        assert message in run(capsys, *edit, tmp_path / "out", code=code)[1]
    run(capsys, *edit, tmp_path / "out")
    run(capsys, *edit, tmp_path / "whole")
    for name in ("in-00000.jsonl", "in-00001.jsonl", "in-00002.jsonl"):
        found, whole = (tmp_path / folder / "data" / name for folder in ("out", "whole"))
        assert found.read_bytes() == whole.read_bytes()
