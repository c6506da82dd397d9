"""The `implicit-prm` command as a user meets it: scoring and judging; training is in test_cli_train."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForSequenceClassification

from implicit_prm import ImplicitPRM
from implicit_prm.cli import main

# Four responses to each of three prompts; of each the second and the fourth are right.
ROWS = [
    {
        "id": f"{prompt}-{number}",
        "prompt": f"what is {prompt}+{prompt}?",
        "completion": f"Step 1: so{' so' * number}\n\nthe answer is\n#### {2 * prompt + (number + 1) % 2}",
        "answer": str(2 * prompt),
    }
    for prompt in range(3)
    for number in range(4)
]


@pytest.fixture(scope="module")
def models(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama: Callable[..., Any], tokenizer: Any
) -> dict[str, str]:
    """Folders of saved models: MODEL and REF fit each other, the others do not."""
    root = tmp_path_factory.mktemp("models")
    broken = tiny_llama()
    broken.model.norm.weight.data[3] = float("nan")
    made = {
        "MODEL": tiny_llama(),
        "REF": tiny_llama(1),
        "POLICY": tiny_llama(vocab_size=len(tokenizer)),
        "BFLOAT16": tiny_llama(1).to(torch.bfloat16),
        "NAN": broken,
        "CLASSIFIER": LlamaForSequenceClassification(tiny_llama().config),
        "OTHER_TOKENS": tiny_llama(),
    }
    for name, model in made.items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    other = json.loads(tokenizer.backend_tokenizer.to_str())
    other["model"]["merges"] = []
    (root / "OTHER_TOKENS" / "tokenizer.json").write_text(json.dumps(other))
    return {name: str(root / name) for name in made}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", ROWS)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    """(stdout, stderr) of a command that ends with `code`; never a traceback."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == code, err
    assert "Traceback" not in err
    return out, err


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_score_writes_what_the_library_gives_and_bon_and_vote_judge_it(
    source: Path, models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    score = ("score", source, out, "--model", models["MODEL"], "--ref", models["REF"], "--beta", 0.5)
    told = run(capsys, *score)[1]
    assert "12 of 12 responses scored now; " in told
    prm = ImplicitPRM.from_pretrained(models["MODEL"], models["REF"], beta=0.5)
    assert lines(out) == [
        {**row, **scored.to_dict()} for row, scored in zip(ROWS, prm.score(ROWS), strict=True)
    ]
    assert f"all 12 rows are in {out} already" in run(capsys, *score)[1]

    table = json.loads(run(capsys, "bon", out, "--n", 2, 4, "--aggregate", "min", "--json")[0])
    accuracy = {(row["method"], row["n"]): row["accuracy"] for row in table}
    assert accuracy["random", 4] == 0.5
    assert accuracy["oracle", 2] == pytest.approx(5 / 6)  # of the 6 pairs of 4 one has both wrong ones
    lowest = [[min(row["step_rewards"]) for row in lines(out)[at : at + 4]] for at in (0, 4, 8)]
    best = [scores.index(max(scores)) for scores in lowest]
    assert accuracy["min", 4] == pytest.approx(sum(place % 2 for place in best) / 3)
    shown, told = run(capsys, "bon", out)
    for part in ("n = 4", "vote by min", "50.0% [50.0%, 50.0%]"):
        assert part in shown
    assert told == "implicit-prm: 3 prompts, 12 responses\n"

    votes = [json.loads(line) for line in run(capsys, "vote", out)[0].splitlines()]
    assert [vote["prompt"] for vote in votes] == [f"what is {n}+{n}?" for n in range(3)]
    assert [vote["majority"] for vote in votes] == ["1", "3", "5"]  # two against two: the first seen
    outcomes = [[row["outcome_reward"] for row in lines(out)[at : at + 4]] for at in (0, 4, 8)]
    assert [vote["best"] for vote in votes] == [
        f"{n}-{max(range(4), key=o.__getitem__)}" for n, o in enumerate(outcomes)
    ]


def test_shards_together_are_the_whole_and_steps_and_reference_can_be_chosen(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(
        tmp_path / "in.jsonl", [{"prompt": "q", "completion": f"so\nthe answer is {n}"} for n in range(300)]
    )
    outs = [tmp_path / f"{n}.jsonl" for n in (1, 2)]
    how = ("--model", models["MODEL"], "--ref", "none", "--steps", "line", "--batch-size", 64)
    for n, out in enumerate(outs, 1):
        run(capsys, "score", source, out, *how, "--shard", f"{n}/2")
    assert [len(lines(out)) for out in outs] == [256, 44]
    first = lines(outs[0])[0]
    assert first["id"] == "1"
    assert [step["text"] for step in first["steps"]] == ["so\n", "the answer is 0"]
    assert all(row["outcome_reward"] < 0 for row in lines(outs[1]))  # log-probs alone


def test_a_response_that_is_too_long_is_cut_and_marked_if_it_may_be(
    source: Path, models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score = (
        "score",
        source,
        tmp_path / "out.jsonl",
        "--model",
        models["MODEL"],
        "--ref",
        "none",
        "--max-length",
        20,
    )
    assert "more than max_length=20; raise it, or cut completions" in run(capsys, *score, code=2)[1]
    run(capsys, *score, "--truncate", "right")
    assert all(row["truncated"] and len(row["token_ids"]) < 20 for row in lines(tmp_path / "out.jsonl"))


def _row(**changes: Any) -> list[dict[str, Any]]:
    return [ROWS[0], {**ROWS[1], **changes}]


TEMPLATED = "<|im_start|>user\nso<|im_end|>\n"


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        (ROWS, ("--ref", "OTHER_TOKENS"), "different tokenizers: "),
        (ROWS, ("--ref", "CLASSIFIER"), "an implicit PRM is a causal language model"),
        (
            ROWS,
            ("--model", "CLASSIFIER", "--ref", "none"),
            "is a LlamaForSequenceClassification: an implicit PRM",
        ),
        (ROWS, ("--model", "NAN"), "row '0-0': the model gives log-prob nan to token 0 of the response"),
        (ROWS, ("--ref", "NAN"), "row '0-0': the reference gives log-prob nan to token 0"),
        (ROWS, ("--model", "no such model"), "cannot load 'no such model'"),
        (ROWS, ("--ref", "base"), 'the reference "base" is the model without its adapter'),
        (ROWS, ("--beta", "0"), "beta must be above 0, not 0.0; the paper uses 0.05"),
        (ROWS, ("--beta", "-1"), "beta must be above 0, not -1.0"),
        (ROWS, ("--backend", "onnx"), "there is no backend 'onnx'; there are: hf, vllm, openai"),
        (ROWS, ("--option", "dtype"), "--option dtype: write key=value"),
        (ROWS, ("--option", "dtype=float99"), "there is no dtype 'float99'; take float32, bfloat16"),
        (ROWS, ("--option", "device=gpu"), "the device 'gpu' cannot be used: "),
        (ROWS, ("--beta", "inf"), "beta must be above 0, not inf"),
        (ROWS, ("--option", "speed=3"), "an option does not fit the backend hf"),
        (ROWS, ("--steps", "chapter"), "steps='chapter' is unknown; allowed: 'paragraph'"),
        (ROWS, ("--steps", "regex:("), "the pattern is no regular expression"),
        (ROWS, ("--shard", "3/2"), "there is no shard 3/2: of four shards the first is 1/4"),
        (ROWS, ("--truncate", "left"), "truncate='left' is unknown; allowed: 'error', 'right'"),
        (ROWS, ("--render", "html"), "render='html' is unknown; allowed: 'original', 'official'"),
        ([*ROWS, ROWS[2]], (), "rows 3 and 13 have the same id '0-2'; give every row its own id"),
        (_row(completion=""), (), "in.jsonl, line 2: completion is '': it is empty"),
        (_row(label=1.5), (), "in.jsonl, line 2: the label 1.5 is outside [0, 1]"),
        (_row(label=float("nan")), (), "in.jsonl, line 2: the label nan is outside [0, 1]"),
        ([{"text": "so"}], (), "in.jsonl, line 1: no prompt; the columns ['text'] are of no format"),
        ([{"prompt": "q", "chosen": "a", "rejected": "b"}], (), "row 1 has no completion to score"),
        (
            _row(prompt=[{"role": "user", "content": TEMPLATED}]),
            (),
            "as if the chat template were applied already",
        ),
        (_row(prompt="<|endoftext|><|endoftext|>so"), (), "begins with the BOS token '<|endoftext|>' twice"),
        (_row(prompt=""), (), "row '0-1': the prompt has no tokens"),
        ([], (), "in.jsonl has no rows"),
    ],
)
def test_what_cannot_be_scored_is_told_without_a_traceback_and_with_exit_code_two(
    rows: list[Any],
    arguments: tuple[str, ...],
    message: str,
    models: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write(tmp_path / "in.jsonl", rows)
    given = {"--model": "MODEL", "--ref": "REF"} | dict(zip(arguments[::2], arguments[1::2], strict=True))
    words = [models.get(word, word) for pair in given.items() for word in pair]
    told = run(capsys, "score", source, tmp_path / "out.jsonl", *words, code=2)[1]
    assert message in told


def test_what_is_odd_but_allowed_is_warned_of(
    source: Path, models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score = ("score", source, tmp_path / "out.jsonl", "--model", models["MODEL"], "--ref", models["BFLOAT16"])
    assert "model and reference compute in different dtypes" in run(capsys, *score)[1]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on where it stopped"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "No space left on device; mend it, then the same",
        ),
    ],
)
def test_an_interrupt_and_a_full_disk_end_with_their_codes_and_are_gone_on_from(
    error: BaseException,
    code: int,
    message: str,
    source: Path,
    models: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = ("--model", models["MODEL"], "--ref", models["REF"])

    def broken(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr("implicit_prm.jobs._append", broken)
        assert message in run(capsys, "score", source, tmp_path / "out.jsonl", *flags, code=code)[1]
    for name in ("out", "whole"):
        run(capsys, "score", source, tmp_path / f"{name}.jsonl", *flags)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """A file of scores, written by hand."""
    steps = [{"text": "so\n\n", "start": 0, "end": 4}, {"text": "4", "start": 4, "end": 5}]
    made = [
        {
            "id": f"{prompt}{number}",
            "prompt": prompt,
            "label": number % 2,
            "outcome_reward": 0.1 * number,
            "step_rewards": [0.2 * number, -0.1 * number],
            "token_rewards": [0.2 * number, -0.1 * number],
            "q_values": [0.2 * number, 0.1 * number],
            "steps": steps,
            "token_ids": [1, 2],
            "offsets": [[0, 4], [4, 5]],
            "truncated": False,
        }
        for prompt in "ab"
        for number in range(4)
    ]
    return write(tmp_path / "scored.jsonl", made)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bon", "SCORED", "--n", "8"), "n is 8, and prompt 0 has 4 responses"),
        (("bon", "SCORED", "--aggregate", "best"), "best"),
        (("bon", "SCORED", "--subset", "some"), "no subset is called 'some'; there are first, blocks, all"),
        (("bon", "SCORED", "SCORED"), "the response 'a0' is at "),
        (("bon", "none.jsonl"), "there is no file none.jsonl"),
        (("bon", "RAW"), "line 1 is no scored response; give files that `implicit-prm score` wrote"),
        (("vote", "SCORED", "--weight", "tanh"), "no weight is called 'tanh'; there are sigmoid, exp, raw"),
        (("vote", "SCORED", "--scale", "0"), "the scale of the votes is 0.0; it must be above 0"),
    ],
)
def test_what_cannot_be_judged_is_told(
    arguments: tuple[str, ...], message: str, scored: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"SCORED": scored, "RAW": source}
    assert message in run(capsys, *(places.get(word, word) for word in arguments), code=2)[1]


def test_votes_are_left_out_where_no_answer_is_marked(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown, told = run(capsys, "bon", scored, "--n", 4, "--aggregate", "sum", "--aggregate", "min")
    assert "majority" not in shown
    assert "no votes, since no response marks a final answer" in told
    best = {row["method"]: row["accuracy"] for row in json.loads(run(capsys, "bon", scored, "--json")[0])}
    assert best == {"random": 0.5, "min": 0.0, "oracle": 1.0}  # the lowest step of the first one is highest


def test_processbench_takes_q_at_the_steps_ends_and_a_threshold_from_another_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = [([0.5, -2.0, 1.0], 1), ([0.5, 0.5], -1), ([-1.0, 2.0], 0), ([1.0, -1.5], -1)]
    scored = write(
        tmp_path / "pb.jsonl",
        [
            {"id": str(n), "prompt": "q", "step_rewards": rewards, "outcome_reward": 0, "first_error": label}
            for n, (rewards, label) in enumerate(samples)
        ],
    )
    # q: [.5 -1.5 -.5], [.5 1], [-1 1], [1 -.5]: a threshold in (-1, -.5] is right on all of them.
    found, told = run(capsys, "processbench", scored, "--json")
    assert json.loads(found) == {
        "samples": 4,
        "threshold": -0.75,
        "error_acc": 1.0,
        "correct_acc": 1.0,
        "f1": 1.0,
    }
    assert "F1 is an upper bound" in told
    found, told = run(capsys, "processbench", scored, "--tune-on", scored)
    assert "-0.75" in found
    assert not told
    strict = json.loads(run(capsys, "processbench", scored, "--threshold", 0.0, "--json")[0])
    assert (strict["error_acc"], strict["correct_acc"]) == (1.0, 0.5)
    by_reward = json.loads(
        run(capsys, "processbench", scored, "--threshold", -1.2, "--by", "reward", "--json")[0]
    )
    assert (by_reward["error_acc"], by_reward["correct_acc"]) == (0.5, 0.5)


def test_view_prints_steps_and_writes_a_page(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, "view", scored, "--id", "a3", "--id", "b1")[0]
    assert [line.split()[0] for line in shown.splitlines() if line.startswith(("a", "b"))] == ["a3", "b1"]
    assert "h = +0.3" in shown
    page = tmp_path / "page.html"
    assert run(capsys, "view", scored, "--html", page, "--limit", 2)[0] == f"{page}\n"
    assert page.read_text().count("<section>") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("processbench", "SCORED"),
            "the response 'a0' has no first_error, the index of its first wrong step",
        ),
        (("processbench", "SCORED", "--by", "r"), "--by r: it may be q or reward"),
        (("processbench", "SCORED", "--threshold", "0", "--tune-on", "SCORED"), "give one of them"),
        (("view", "SCORED", "--id", "c9"), "there is no response 'c9'"),
        (("view", "SCORED", "--html", "none/page.html"), "the page is a file in a folder that exists"),
    ],
)
def test_what_cannot_be_shown_is_told(
    arguments: tuple[str, ...], message: str, scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in run(capsys, *(scored if word == "SCORED" else word for word in arguments), code=2)[1]


def test_a_token_is_in_no_file_and_in_no_message(
    models: dict[str, str], tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, how in (
        ("score", ("--model", models["MODEL"], "--ref", "none")),
        ("sample", ("--model", models["POLICY"], "--n", 1, "--max-tokens", 2)),
    ):
        asked = write(tmp_path / "asked.jsonl", [{"prompt": "so"}]) if verb == "sample" else source
        command = (verb, asked, tmp_path / f"{verb}.jsonl", *how)
        told = run(capsys, *command, "--option", "token=hf_first")
        told += run(capsys, *command, "--option", "token=hf_second")
        told += run(capsys, *command, "--option", "token=hf_second", "--option", "dtype=float32", code=2)
        assert "already" in told[3]
        assert "made with other settings" in told[5]
        assert not [text for text in told if "hf_" in text]
    assert not [path for path in tmp_path.iterdir() if path.is_file() and b"hf_" in path.read_bytes()]


def test_samples_are_graded_resumed_and_scored_as_they_were_drawn(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(
        tmp_path / "in.jsonl", [{"question": f"{n}+{n}?", "answer": f"so\n#### {2 * n}"} for n in range(70)]
    )
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    how = ("--model", models["POLICY"], "--n", 2, "--max-tokens", 5, "--seed", 3)
    told = run(capsys, "sample", source, whole, *how, "--tokens")[1]
    assert "140 of 140 responses drawn now" in told
    rows = lines(whole)
    assert [row["id"] for row in rows[:3]] == ["1-0", "1-1", "2-0"]
    assert rows[0]["prompt"] == [{"role": "user", "content": "0+0?"}]
    assert {row["label"] for row in rows} == {0}
    assert all(len(row["completion_ids"]) <= 5 for row in rows)
    assert len({tuple(row["completion_ids"]) for row in rows}) > 130  # every chunk draws anew
    run(capsys, "sample", source, out, *how, "--tokens")
    out.write_bytes(whole.read_bytes()[:9000])
    run(capsys, "sample", source, out, *how, "--tokens")
    assert out.read_bytes() == whole.read_bytes()
    assert "all 140 responses are in" in run(capsys, "sample", source, out, *how, "--tokens")[1]

    run(capsys, "score", whole, tmp_path / "scored.jsonl", "--model", models["POLICY"], "--ref", "none")
    for row, scored in zip(rows, lines(tmp_path / "scored.jsonl"), strict=True):
        assert scored["token_ids"] == row["completion_ids"]
        assert scored["label"] == row["label"]
    run(capsys, "sample", source, tmp_path / "text.jsonl", *how)
    assert all("completion_ids" not in row for row in lines(tmp_path / "text.jsonl"))


def test_what_a_row_says_of_its_own_response_is_not_said_of_the_drawn_ones(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = {"id": "pb", "problem": "so", "steps": ["the answer", "is 4"], "label": 1}
    stepwise = {"prompt": "so", "completion_ids": [3, 4], "step_ends": [0, 1], "step_labels": [1, 0]}
    source, out = write(tmp_path / "in.jsonl", [sample, stepwise]), tmp_path / "out.jsonl"
    run(capsys, "sample", source, out, "--model", models["POLICY"], "--n", 1, "--max-tokens", 3)
    assert [sorted(row) for row in lines(out)] == [["completion", "id", "prompt", "truncated"]] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--temperature", "-1"), "temperature must be a number of at least 0, not -1.0"),
        (("--top-p", "0"), "top_p must be above 0 and at most 1"),
        (("--max-tokens", "512"), "prompt '0-0' has 10 tokens; with max_tokens=512 that is more"),
        (("--backend", "onnx"), "there is no backend 'onnx'; there are: hf, vllm, openai"),
        (("--model", "CLASSIFIER"), "an implicit PRM is a causal language model"),
        (("--option", "batch_size=x"), "batch_size must be a whole number, not 'x'"),
    ],
)
def test_what_cannot_be_sampled_is_told(
    arguments: tuple[str, str],
    message: str,
    source: Path,
    models: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {"--model": "MODEL", arguments[0]: arguments[1]}
    words = [models.get(word, word) for pair in given.items() for word in pair]
    assert message in run(capsys, "sample", source, tmp_path / "out.jsonl", *words, code=2)[1]


@pytest.mark.parametrize("prompt", [{"prompt": ""}, {"prompt_ids": []}])
def test_a_prompt_that_cannot_be_read_has_its_id_in_the_file(
    prompt: dict[str, Any], models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it stands in the second of the chunks in which prompts are worked on."""
    rows = [*({"prompt": "so"} for _ in range(64)), {"id": "odd", **prompt}]
    source = write(tmp_path / "in.jsonl", rows)
    told = run(
        capsys,
        *("sample", source, tmp_path / "out.jsonl", "--model", models["POLICY"], "--n", 1, "--max-tokens", 1),
        code=2,
    )[1]
    assert "row 'odd': the prompt has no tokens" in told


def test_flops_counts_what_reward_models_cost(
    source: Path, models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model", models["MODEL"], "--completions", 4)
    costs = json.loads(run(capsys, "flops", source, *flags, "--json")[0])
    assert set(costs) == {"ce", "math-shepherd"}
    assert costs["math-shepherd"]["ratio"] == costs["math-shepherd"]["total"] / costs["ce"]["total"] > 1
    labelled = write(tmp_path / "labelled.jsonl", [{**row, "label": n % 2} for n, row in enumerate(ROWS)])
    assert "dpo" in run(capsys, "flops", labelled, *flags)[0]
    # One response a prompt, right and wrong ones among them: there are no pairs to train DPO on.
    alone = [{**row, "prompt": f"{n} + 1 =", "label": n % 2} for n, row in enumerate(ROWS)]
    found = json.loads(run(capsys, "flops", write(tmp_path / "alone.jsonl", alone), *flags, "--json")[0])
    assert set(found) == {"ce", "math-shepherd"}


def test_reproduce_runs_the_experiment_and_shows_its_claims(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def claims(_: object, *arguments: object, **options: object) -> tuple[dict[str, list[str]], str]:
        asked.append((arguments, options["resume"]))
        return {"claims": []}, "the table"

    monkeypatch.setattr("tenfold.Experiment.reproduce", claims)
    out = run(capsys, "reproduce", "--scale", "laptop", "--set", "a=1")[0]
    assert out == "the table\nResults: results/implicit-prm/laptop\n"
    assert json.loads(run(capsys, "reproduce", "--quick", "--resume", "--json")[0]) == {"claims": []}
    assert asked == [(("laptop", ["a=1"], Path("results")), False), (("quick", (), Path("results")), True)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("tenfold", ["reproduce"], "reproduce"),
        ("vllm", ["sample", "IN", "OUT", "--model", "m", "--backend", "vllm"], "vllm"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(
    missing: str, arguments: list[str], extra: str, source: Path, tmp_path: Path
) -> None:
    """In a process of its own: modules that are imported twice in one are not the same modules."""
    places = {"IN": str(source), "OUT": str(tmp_path / "out.jsonl")}
    words = [places.get(word, word) for word in arguments]
    code = f"import sys; sys.modules[{missing!r}] = None; from implicit_prm.cli import main; main({words})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 2
    assert f"pip install 'implicit-prm[{extra}]'" in ended.stderr
