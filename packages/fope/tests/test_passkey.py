"""The passkey texts hold what they say, the loss looks at the answer, and the score counts exact answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from torch import nn

from fope.reproduce.passkey import KeysInText, PasskeyConfig, PasskeyLoss, PasskeyTexts, scores, teach
from lmlab.tokenizers import encode, train_tokenizer

TOKENIZER = train_tokenizer(["bytes"], 257)
CONFIG = {
    "arms": [],
    "curriculum": [{"digits": 5}],
    "training": {"max_steps": 1, "batch_size": 1, "learning_rate": 1.0},
    "lessons": 3,
    "language_weight": 0.5,
    "trials": 3,
}
TEXT = np.array(encode(TOKENIZER, ["In 1912 the ship sank; ~1500 people died. " * 50])[0])


@pytest.fixture
def texts() -> PasskeyTexts:
    return PasskeyTexts(TOKENIZER, TEXT)


def read(tokens: np.ndarray) -> str:
    return str(TOKENIZER.decode(tokens.tolist()))


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_a_text_has_its_key_at_its_depth_and_again_at_the_end(texts: PasskeyTexts, depth: float) -> None:
    text = read(texts.draw(64, 5, [depth], np.random.default_rng(0)))
    assert len(text) == 64
    key = text[-5:]
    assert len(set(key)) == 5
    assert text.endswith(f" ~key~{key}")
    spare = 64 - 2 * len(f" ~key~{key}")
    assert text.index(f" ~key~{key}") == round(depth * spare)
    assert sum(character.isdigit() for character in text) == 10  # the filler has none


def test_a_curriculum_takes_its_kinds_in_turn(texts: PasskeyTexts) -> None:
    kinds = [KeysInText(digits=10, keys=3), KeysInText(digits=4)]
    rows = texts.curriculum(64, kinds, 6, seed=1)
    assert rows.shape == (6, 64)
    digits = torch.isin(rows, torch.as_tensor(texts.digits)).sum(1)
    assert digits.tolist() == [30, 8] * 3
    assert len({tuple(row) for row in rows.tolist()}) == 6


def test_no_room_is_an_error(texts: PasskeyTexts) -> None:
    with pytest.raises(ValueError, match="20 tokens have no room for 2 keys of 5 digits"):
        texts.draw(20, 5, [0.5], np.random.default_rng(0))


def test_a_tokenizer_without_a_token_for_a_digit_is_named() -> None:
    spaced = train_tokenizer(["bytes"], 257)
    spaced.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(ValueError, match="need one token for '0'; this tokenizer has 2"):
        PasskeyTexts(spaced, TEXT)


class Constant(nn.Module):
    """A model that always gives the same logits: a score of 2 to one token and 0 to all others."""

    def __init__(self, token: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(257))
        self.bias.data[token] = 2.0

    def forward(self, input_ids: torch.Tensor, logits_to_keep: int = 0) -> Any:
        logits = self.bias.expand(*input_ids.shape, 257)

        class Output:
            pass

        output = Output()
        output.logits = logits[:, -logits_to_keep:]  # type: ignore[attr-defined]
        return output


def test_the_loss_weighs_the_answer_and_the_text_apart(texts: PasskeyTexts) -> None:
    row = torch.from_numpy(texts.draw(64, 5, [0.3], np.random.default_rng(1)))[None]
    digit = int(row[0, -1])  # once among the five of the answer, once among the 58 other targets
    norm = float(torch.logsumexp(Constant(digit).bias, 0).detach())
    for weight in (0.0, 0.5):
        loss = PasskeyLoss(Constant(digit), texts.digits, weight)(row, row)["loss"]  # type: ignore[arg-type]
        expected = (norm - 2 / 5) + weight * (norm - 2 / 58)
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_every_key_but_the_first_is_to_be_predicted(texts: PasskeyTexts) -> None:
    text = torch.from_numpy(texts.draw(64, 6, [0.1, 0.9], np.random.default_rng(2)))
    repeated = PasskeyLoss(Constant(0), texts.digits, 1.0).repeated(text[None])[0]  # type: ignore[arg-type]
    is_digit = torch.isin(text, torch.as_tensor(texts.digits))
    assert torch.equal(repeated.nonzero(), is_digit.nonzero()[6:])


class Copier(Constant):
    """Knows the answer as long as the text is at most 64 tokens long."""

    def forward(self, input_ids: torch.Tensor, logits_to_keep: int = 0) -> Any:
        output = super().forward(input_ids, logits_to_keep)
        if input_ids.shape[1] <= 64:
            following = input_ids.roll(-1, dims=1)
            output.logits = nn.functional.one_hot(following, 257).float()[:, -logits_to_keep:]
        return output


def test_scores_count_exact_answers(texts: PasskeyTexts) -> None:
    config = PasskeyConfig.model_validate(CONFIG)
    found = scores(Copier(0), texts, [64, 128], config)  # type: ignore[arg-type]
    assert found == {"64": [1.0] * 5, "128": [0.0] * 5}


def test_lessons_end_when_the_keys_are_found(
    texts: PasskeyTexts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PasskeyConfig.model_validate(CONFIG)
    seen: list[torch.Tensor] = []
    monkeypatch.setattr("fope.reproduce.passkey.train", lambda model, rows, *_, **__: seen.append(rows))
    assert teach(Copier(0), texts, 64, config, 0, directory=tmp_path) == 1  # type: ignore[arg-type]
    assert teach(Constant(0), texts, 64, config, 0, directory=tmp_path) == 3  # type: ignore[arg-type]
    assert not torch.equal(seen[1], seen[2])  # each lesson has texts of its own
