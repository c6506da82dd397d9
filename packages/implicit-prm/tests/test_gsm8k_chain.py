"""GSM8K-chain: programs out of worked solutions, responses judged step by step."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from implicit_prm import ImplicitPRMError
from implicit_prm.tasks.base import Grade
from implicit_prm.tasks.gsm8k_chain import GSM8KChain, calculate, program_of, read_programs

CLIPS = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nAltogether <<48+24=72>>72 clips."

TASK = GSM8KChain(train=("48/2;48+#1?", "3*4;#1-2;#2*#1?"), test=("10-4;#1*3?",))


@pytest.mark.parametrize(
    ("solution", "answer", "prompt"),
    [
        (CLIPS, "72", "48/2;48+#1?"),
        ("<<1 + 2=3>>, <<3*300=900>>", "900", "1+2;#1*300?"),
        ("<<2*3=6>>, <<2*3=6>>, <<6+1=7>>", "7", "2*3;2*3;#2+1?"),  # the latest result of that value
        (CLIPS, "71", None),  # the last calculation is not the answer
        ("<<48/2=24>>", "24", None),  # one step
        ("<<12/60=0.2>>, <<0.2*50=10>>", "10", None),  # not in integers
        ("<<7/2=3>>, <<3+1=4>>", "4", None),  # not exact
        ("<<100-50-30=20>>, <<20+1=21>>", "21", None),  # not binary
        ("<<999+1=1000>>, <<1000-1=999>>", "999", None),
        ("no calculation", "3", None),
    ],
)
def test_a_solution_is_a_program_where_every_calculation_is_one_operation(
    solution: str, answer: str, prompt: str | None
) -> None:
    assert program_of(solution, answer) == prompt


def test_the_right_response_by_hand() -> None:
    assert TASK.solve("48/2;48+#1?") == "48/2=24;48+24=72;"
    assert TASK.answer("48/2=24;48+24=72;") == 72
    assert TASK.answer("48/2=24;48+24=72") is None  # cut off


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("48/2=24;48+24=72;", Grade(True, (True, True), -1)),
        ("48/2=23;48+23=71;", Grade(False, (False, True), 0)),  # the second step is right, given the first
        ("48/2=24;48+24=73;", Grade(False, (True, False), 1)),
        ("48/2=24;24+48=72;", Grade(True, (True, False), 1)),  # another calculation than was asked for
        ("48/2=24;48+2", Grade(False, (True, False), 1)),
        ("48/2=24;", Grade(False, (True,), 1)),
        ("48/2=24;48+24=72;1+1=2;", Grade(False, (True, True, False), 2)),
        ("48=;48+24=72;", Grade(True, (False, False), 0)),
        ("", Grade(False, (), 0)),
    ],
)
def test_steps_are_judged_by_the_operands_they_should_have(completion: str, expected: Grade) -> None:
    assert TASK.grade("48/2;48+#1?", completion) == expected


def test_drawn_prompts_keep_their_program_stay_in_range_and_are_no_test_prompts() -> None:
    prompts = TASK.prompts(300, 0)
    assert prompts == TASK.prompts(300, 0) != TASK.prompts(300, 1)
    shapes = {"".join(char for char in prompt if char in "+-*/;#?") for prompt in prompts}
    assert shapes == {"/;+#?", "*;#-;#*#?"}
    assert len(set(prompts)) > 20
    for prompt, response in TASK.demonstrations(300, 0):
        assert TASK.grade(prompt, response).first_error == -1
    assert "10-4;#1*3?" not in prompts
    assert TASK.test_prompts(1, 0) == ["10-4;#1*3?"]


def test_a_character_is_a_token() -> None:
    tokenizer = TASK.tokenizer()
    text = "48/2=24;48+24=72;"
    ids = tokenizer(text).input_ids
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer("#1?" + text).input_ids[3:] == ids


def test_division_is_exact_and_results_are_at_most_999() -> None:
    assert [calculate(6, op, 3) for op in "+-*/"] == [9, 3, 18, 2]
    assert (
        calculate(7, "/", 2)
        is calculate(7, "/", 0)
        is calculate(2, "-", 3)
        is calculate(500, "+", 500)
        is None
    )


@pytest.mark.parametrize("prompt", ["", "1+1", "1+?", "#1+2?", "1+1;#2+1?", "1+1;#0+1?", "1+1;two?"])
def test_what_is_no_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(ImplicitPRMError, match="no prompt of this task"):
        TASK.solve(prompt)


def test_files_that_are_not_gsm8k_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"question": "?", "answer": f"{CLIPS}\n#### 72"}) + "\n")
    assert read_programs(file) == ["48/2;48+#1?"]
    file.write_text(json.dumps({"prompt": "?", "completion": "!"}) + "\n")
    with pytest.raises(ImplicitPRMError, match=r"rows\.jsonl, row 1 has no worked solution"):
        read_programs(file)
    with pytest.raises(ImplicitPRMError, match="no programs to train on"):
        GSM8KChain((), ("1+1;#1+1?",))
    with pytest.raises(ImplicitPRMError, match="there are 1 test prompts, not 2"):
        TASK.test_prompts(2, 0)


@pytest.mark.skipif("TENFOLD_DATA" not in os.environ, reason="TENFOLD_DATA, the folder of GSM8K, is not set")
def test_gsm8k_has_these_programs() -> None:
    folder = Path(os.environ["TENFOLD_DATA"]) / "implicit-prm"
    task = GSM8KChain.from_files(folder / "gsm8k_train.jsonl", folder / "gsm8k_test.jsonl")
    # 2,909 and 510 solutions are chains; of 80 and 25 the last calculation is not the answer.
    assert (len(task.train), len(task.test)) == (2829, 485)
    assert task.train[0] == "48/2;48+#1?"
