"""DSIR beside data-selection's, on the same files with the same noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_selection import HashedNgramDSIR

from toedit import ToEditError
from toedit.analysis import DSIR

random = np.random.default_rng(0)
WORDS = np.array(
    ["the", "cat", "sat", "on", "mat", ",", "and", ".", "moon", "É2", "½", "—", "run_away", "hat"]
)


def corpus(size: int, tilt: float) -> list[str]:
    share = np.exp(tilt * np.arange(len(WORDS)))
    lengths = random.integers(60, 200, size)
    return [" ".join(random.choice(WORDS, n, p=share / share.sum())) for n in lengths]


TARGET, RAW = corpus(60, 0.1), corpus(80, -0.1)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> HashedNgramDSIR:
    folder = tmp_path_factory.mktemp("dsir")
    for name, texts in (("target", TARGET), ("raw", RAW)):
        lines = [json.dumps({"text": text}) + "\n" for text in texts]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    dsir = HashedNgramDSIR(
        [str(folder / "raw.jsonl")], [str(folder / "target.jsonl")], str(folder / "cache"), num_proc=1
    )
    dsir.fit_importance_estimator(num_tokens_to_fit="all")
    dsir.compute_importance_weights()
    return dsir


def test_weights_are_those_of_data_selection(peer: HashedNgramDSIR) -> None:
    ours = DSIR(TARGET, RAW)
    np.testing.assert_array_equal(ours.log_ratio, peer.log_diff)
    theirs = np.load(peer.log_importance_weights_dir / "0.npy")
    np.testing.assert_allclose(ours.log_weights(RAW), theirs, rtol=0, atol=1e-9)


def test_the_same_noise_draws_the_same_texts(
    peer: HashedNgramDSIR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough = sum(len(text.split()) >= 100 for text in RAW)
    assert 20 < enough < 80  # so the filter of short texts takes part
    noise = 30 * np.random.default_rng(1).gumbel(size=enough)
    monkeypatch.setattr(np.random, "gumbel", lambda size: noise.reshape(size))
    peer.resample(str(tmp_path / "out"), 15, cache_dir=str(tmp_path / "cache"))
    lines = (tmp_path / "out" / "0.jsonl").read_text().splitlines()
    chosen = DSIR(TARGET, RAW).select(RAW, 15, noise=noise)
    assert [RAW[index] for index in chosen] == [json.loads(line)["text"] for line in lines]


@pytest.mark.slow
def test_draws_follow_the_weights() -> None:
    # Two texts: the first one is drawn with the probability w_1/(w_1 + w_2).
    dsir = DSIR(["a a b"], ["a b b"], n=1)
    texts = ["a", "b"]
    weights = np.exp(dsir.log_weights(texts))
    np.testing.assert_allclose(weights, [2.0, 0.5], rtol=1e-6)
    draws = [dsir.select(texts, 1, min_words=0, seed=seed)[0] for seed in range(3000)]
    # Expected 0.8; four standard errors of 3000 draws are 0.029.
    assert abs(np.mean(np.equal(draws, 0)) - 0.8) < 0.03


def test_selecting_all_or_none() -> None:
    dsir = DSIR(TARGET, RAW)
    assert dsir.select(RAW, 80, min_words=0).tolist() == list(range(80))
    assert dsir.select(RAW, 0).tolist() == []
    np.testing.assert_array_equal(dsir.select(RAW, 9, seed=5), dsir.select(RAW, 9, seed=5))
    assert dsir.log_weights(["", "the"])[0] == 0.0


def test_what_cannot_be_says_why() -> None:
    with pytest.raises(ToEditError, match="raw texts hold no words"):
        DSIR(TARGET, ["", " "])
    dsir = DSIR(TARGET, RAW)
    with pytest.raises(ToEditError, match=r"0 of 2 texts .* min_words=100"):
        dsir.select(["a", "b"], 1)
    with pytest.raises(ToEditError, match=r"noise has the shape \(3,\); 2"):
        dsir.select(["a", "b"], 1, min_words=0, noise=[1, 2, 3])
