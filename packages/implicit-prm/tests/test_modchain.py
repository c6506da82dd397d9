"""ModChain: what is right is known in closed form, and the teacher errs as often as it is told to."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from implicit_prm import ImplicitPRMError
from implicit_prm.tasks.base import Grade, grade_steps
from implicit_prm.tasks.generators import GeneratorConfig, build_generator, fine_tune
from implicit_prm.tasks.modchain import ModChain

TASK = ModChain()
SMALL = ModChain(mod=5, operations=3, steps=3, hard_share=0.2)


def states(text: str) -> list[int]:
    return [int(word[1:]) for word in text.split()]


def test_the_right_response_follows_the_table() -> None:
    (prompt,) = TASK.prompts(1, 0)
    state, chain = states(prompt)[0], states(prompt)[1:]
    for k, after in zip(chain, states(TASK.solve(prompt)), strict=True):
        state = int(TASK.table[k, state])
        assert after == state


def test_operations_are_affine_bijections_and_all_different() -> None:
    # f(x) = a x + b mod 23 with a != 0: f(x + 1) - f(x) = a everywhere, so every state is hit once.
    steps = (np.roll(TASK.table, -1, axis=1) - TASK.table) % TASK.mod
    assert (steps == steps[:, :1]).all()
    assert (np.sort(TASK.table, axis=1) == np.arange(TASK.mod)).all()
    assert len({tuple(row) for row in TASK.table.tolist()}) == TASK.operations


def test_a_quarter_of_the_transitions_is_hard_and_a_confounder_is_never_right() -> None:
    assert TASK.hard.sum() == round(0.25 * 20 * 23)
    assert (TASK.confounder != TASK.table).all()


def test_the_teacher_is_right_as_often_as_it_is_told() -> None:
    right = {True: [], False: []}
    confounded = []
    for prompt, response in TASK.demonstrations(4000, 1):
        before, *after = [states(prompt)[0], *states(response)]
        for k, state in zip(states(prompt)[1:], after, strict=True):
            is_hard = bool(TASK.hard[k, before])
            right[is_hard].append(state == TASK.table[k, before])
            if is_hard:
                confounded.append(state == TASK.confounder[k, before])
            before = state
    # What is left over falls on each of the 23 states alike: 0.45 + 0.15/23, 0.40 + 0.15/23, 0.97 + 0.03/23.
    for found, expected in ((right[True], 0.4565), (confounded, 0.4065), (right[False], 0.9713)):
        error = math.sqrt(expected * (1 - expected) / len(found))
        assert np.mean(found) == pytest.approx(expected, abs=4 * error)


def test_every_step_is_judged_against_the_state_before_it() -> None:
    (prompt,) = TASK.prompts(1, 0)
    right = states(TASK.solve(prompt))
    wrong = [*right[:2], (right[2] + 1) % 23, *right[3:]]
    grade = TASK.grade(prompt, " ".join(f"s{state}" for state in wrong))
    assert grade.first_error == 2
    assert grade.steps == (True, True, False, False, True, True)  # the third error moves only the fourth step
    assert grade.correct  # the last state is right, whatever came before


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("", Grade(False, (), 0)),
        ("f1 s1 s2", Grade(False, (False, False, False), 0)),  # an operation is no state
        ("s99 nonsense s2", Grade(False, (False, False, False), 0)),
    ],
)
def test_what_is_no_chain_is_wrong_from_the_first_step(completion: str, expected: Grade) -> None:
    grade = SMALL.grade("s0 f0 f1 f2", completion)
    assert (grade.correct, grade.first_error) == (expected.correct, expected.first_error)
    assert len(grade.steps) == len(expected.steps)


def test_a_chain_that_is_too_short_or_too_long_is_wrong_where_it_ends() -> None:
    prompt = "s0 f0 f1 f2"
    solution = SMALL.solve(prompt)
    short, long = solution.rsplit(" ", 1)[0], f"{solution} s0"
    assert SMALL.grade(prompt, short) == Grade(False, (True, True), 2)
    assert SMALL.grade(prompt, long) == Grade(False, (True, True, True, False), 3)


@given(st.lists(st.booleans(), max_size=6), st.integers(1, 6), st.booleans())
def test_steps_before_the_first_error_are_right_and_it_is_not(
    steps: list[bool], expected: int, correct: bool
) -> None:
    grade = grade_steps(steps, expected, correct)
    if grade.first_error < 0:
        assert grade.steps == (True,) * expected
    else:
        assert all(grade.steps[: grade.first_error])
        assert grade.steps[grade.first_error : grade.first_error + 1] in ((False,), ())


def test_seeds_draw_another_task_and_other_prompts_and_the_same_seed_the_same() -> None:
    assert (ModChain(seed=1).table != TASK.table).any()
    assert TASK.prompts(5, 0) == TASK.prompts(5, 0) != TASK.prompts(5, 1)
    assert not set(TASK.prompts(200, 0)) & set(TASK.test_prompts(200, 0))


def test_the_start_state_may_stand_last_and_the_chain_is_the_same() -> None:
    turned = ModChain(start_last=True)
    for prompt, other in zip(TASK.prompts(20, 0), turned.prompts(20, 0), strict=True):
        start, *chain = prompt.split()
        assert other.split() == [*chain, start]
        assert turned.solve(other) == TASK.solve(prompt)
    with pytest.raises(ImplicitPRMError, match="6 operations f0 to f19, then a state s0 to s22"):
        turned.solve("s0 f0 f1 f2 f3 f4 f5")


def test_tokens_are_words_however_they_are_joined() -> None:
    tokenizer = TASK.tokenizer()
    (prompt,) = TASK.prompts(1, 0)
    response = TASK.solve(prompt)
    apart = tokenizer(prompt).input_ids + tokenizer(response).input_ids
    assert len(apart) == 1 + 6 + 6
    assert tokenizer(prompt + response).input_ids == tokenizer(f"{prompt} {response}").input_ids == apart
    assert tokenizer.decode(tokenizer(response).input_ids) == response
    assert tokenizer("s1 what").input_ids[1:] == [tokenizer.unk_token_id]


@pytest.mark.parametrize(
    "changes",
    [
        {"mod": 2},
        {"operations": 0},
        {"operations": 600},
        {"steps": 0},
        {"hard_share": 1.2},
        {"hard_right": 0.7},
    ],
)
def test_a_task_that_cannot_be_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ImplicitPRMError, match=r"is -?[0-9]|are \("):
        ModChain(**changes)


@pytest.mark.parametrize("prompt", ["", "s0", "s0 f0 f1", "s9 f0 f1 f2", "s0 f0 f1 f7", "f0 s0 f1 f2"])
def test_what_is_no_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(ImplicitPRMError, match="a state s0 to s4, then 3 operations f0 to f2"):
        SMALL.solve(prompt)


def test_a_generator_learns_its_teacher_to_the_limit_that_noise_sets() -> None:
    # One operation on 5 states without hard transitions: the loss a state is at best
    # -0.976 ln 0.976 - 0.024 ln 0.006 = 0.146, and 0 for the end.
    task = ModChain(mod=5, operations=2, steps=2, hard_share=0.0)
    tokenizer = task.tokenizer()
    config = GeneratorConfig(16, 32, 1, 2, 16, batch_size=64, learning_rate=2e-2)
    model = build_generator(tokenizer, config, seed=0)
    losses = fine_tune(model, tokenizer, task.demonstrations(120 * 64, 0), config)
    assert len(losses) == 120
    assert losses[0] > 1.5
    assert np.mean(losses[-20:]) == pytest.approx(2 * 0.146 / 3, abs=0.05)
    stopped = fine_tune(
        model, tokenizer, task.demonstrations(640, 0), config, is_enough=lambda step: step == 3
    )
    assert len(stopped) == 3
    with pytest.raises(ImplicitPRMError, match="one batch alone takes 64"):
        fine_tune(model, tokenizer, task.demonstrations(63, 0), config)
