from __future__ import annotations

import hashlib
import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toedit import ToEditError
from toedit.randomness import document_words, gumbel, philox, queue_places

# Written down when the layout was frozen, from `noise_by_hand`; other numbers mean other edits for everybody.
GOLDEN_WORDS = [0x45FB9E09, 0x4407EBCD, 0xAAA0172D, 0x331CF8A9]
GOLDEN_NOISE = [
    [1.6620404982241854, -0.4501320998135989, -0.5898050330526617, -0.022115989374289734],
    [-0.9267817926597322, 0.7180336121251264, -0.04832371928966217, 0.7274734885488932],
    [-1.5619208426206772, 0.4117738230950239, 0.4413271464299091, 1.2028582058246986],
]
GOLDEN_PLACES = [1462079661, 3648225253]

word = st.integers(0, 2**32 - 1)


def philox_by_hand(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 on Python's whole numbers, after the paper."""
    (a, b, c, d), (k, m) = counter, key
    for _ in range(10):
        x, y = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (y >> 32) ^ b ^ k, y % 2**32, (x >> 32) ^ d ^ m, x % 2**32
        k, m = (k + 0x9E3779B9) % 2**32, (m + 0xBB67AE85) % 2**32
    return [a, b, c, d]


def noise_by_hand(seed: int, doc_id: str, position: int, rank: int) -> float:
    """One number of noise, from the layout in the module's docstring."""
    words = struct.unpack(
        "<4I", hashlib.blake2b(f"toedit:1:{seed}:{doc_id}".encode(), digest_size=16).digest()
    )
    drawn = philox_by_hand([position, rank // 4, words[2], words[3]], list(words[:2]))[rank % 4]
    return -math.log(-math.log((drawn + 0.5) / 2**32))


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    # The known answers for philox4x32, 10 rounds, of Random123 (D. E. Shaw Research), file kat_vectors.
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers(counter, key, expected):
    drawn = philox(np.array(counter, dtype=np.uint32), np.array(key, dtype=np.uint32))
    assert drawn.tolist() == expected == philox_by_hand(counter, key)


@given(
    st.lists(st.lists(word, min_size=4, max_size=4), min_size=1, max_size=5),
    st.lists(word, min_size=2, max_size=2),
)
@settings(deadline=None)
def test_philox_on_arrays_equals_philox_on_whole_numbers(counters, key):
    drawn = philox(np.array(counters, dtype=np.uint32), np.array(key, dtype=np.uint32))
    assert drawn.tolist() == [philox_by_hand(counter, key) for counter in counters]


@given(st.integers(), st.text(), st.integers(0, 2**32 - 1), st.integers(0, 70))
@settings(deadline=None)
def test_the_noise_follows_the_documented_layout(seed, doc_id, position, rank):
    drawn = gumbel(document_words(seed, doc_id), np.array([position]), rank + 1)
    assert drawn.shape == (1, rank + 1)
    assert drawn[0, rank] == pytest.approx(noise_by_hand(seed, doc_id, position, rank), rel=1e-12)


def test_golden_noise():
    assert document_words(0, "a1").tolist() == GOLDEN_WORDS
    drawn = gumbel(document_words(0, "a1"), np.array([0, 1, 1_000_000]), 8)
    assert drawn[:, [0, 3, 4, 7]] == pytest.approx(np.array(GOLDEN_NOISE), rel=1e-12)
    assert queue_places(document_words(0, "a1"), np.array([0, 1])).tolist() == GOLDEN_PLACES


def test_a_number_and_its_text_are_the_same_document():
    assert (
        document_words(0, 7).tolist()
        == document_words(0, "7").tolist()
        == document_words(0, np.int64(7)).tolist()
    )


def test_an_id_that_is_neither_number_nor_text_is_refused():
    with pytest.raises(ToEditError, match=r"a document id is a whole number or text, not 1\.5"):
        document_words(0, 1.5)


def test_seed_document_position_and_rank_each_change_the_noise():
    base = gumbel(document_words(0, "a"), np.array([5]), 8)
    assert not np.isin(gumbel(document_words(1, "a"), np.array([5]), 8), base).any()
    assert not np.isin(gumbel(document_words(0, "b"), np.array([5]), 8), base).any()
    assert not np.isin(gumbel(document_words(0, "a"), np.array([6]), 8), base).any()
    assert len(set(base[0])) == 8


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=20, unique=True), st.integers(1, 20))
@settings(deadline=None)
def test_the_noise_of_a_token_depends_on_no_other_token_and_on_no_number_of_candidates(positions, ranks):
    document = document_words(3, "x")
    together = gumbel(document, np.array(positions), 20)
    for row, position in enumerate(positions):
        assert (gumbel(document, np.array([position]), ranks)[0] == together[row, :ranks]).all()


def test_the_noise_has_mean_and_variance_of_the_gumbel_distribution():
    # Mean 0.57722 (Euler's constant), variance pi^2 / 6; five standard errors of 800,000 numbers.
    drawn = gumbel(document_words(0, "moments"), np.arange(100_000), 8)
    deviation = math.pi / math.sqrt(6)
    assert drawn.mean() == pytest.approx(np.euler_gamma, abs=5 * deviation / math.sqrt(drawn.size))
    # The fourth central moment is 5.4 sigma^4, so the variance's standard error is sigma^2 sqrt(4.4 / n).
    assert drawn.var() == pytest.approx(deviation**2, abs=5 * deviation**2 * math.sqrt(4.4 / drawn.size))
    correlations = np.corrcoef(drawn.T)[np.triu_indices(8, 1)]
    assert abs(correlations).max() < 5 / math.sqrt(len(drawn))
