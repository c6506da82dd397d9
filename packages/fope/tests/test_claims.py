"""The claims' rules, on metrics made up for the purpose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from fope.reproduce.claims import CLAIMS
from fope.reproduce.experiment import arm_metrics
from tenfold import Estimate, Trial, Verdict
from tenfold.claims import judge

LENGTH = 64
BY_ID = {claim.id: claim for claim in CLAIMS}


def result(at_l: float, at_16l: float, *, heldout: float = 0.3, found: float | None = None) -> dict[str, Any]:
    """A trial whose loss rises in a line (over log length); text of the held-out library costs more."""
    losses = [at_l + (at_16l - at_l) * step / 4 for step in range(5)]
    lengths = [str(LENGTH * 2**step) for step in range(5)]
    splits = {
        "valid": dict(zip(lengths, losses, strict=True)),
        "heldout": {length: loss + heldout for length, loss in zip(lengths, losses, strict=True)},
        "books": dict(zip(lengths, losses, strict=True)),
    }
    passkey = {length: [found, found] for length in lengths}
    taught = {"passkey": passkey, "lessons": 1} if found is not None else {}
    return {"losses": splits, **taught}


def verdict(claim: str, arms: Mapping[str, list[dict[str, Any]]]) -> tuple[Verdict, str]:
    trained = {Trial(arm, seed): found for arm, results in arms.items() for seed, found in enumerate(results)}
    metrics = {name: Estimate.of(value) for name, value in arm_metrics(trained, LENGTH).items()}
    return judge(BY_ID[claim], metrics, "quick", lambda name: True)


def test_a_asks_for_seven_tenths_of_the_growth_of_rope_on_both_texts() -> None:
    rope = [result(2.0, 3.0)]
    assert verdict("A", {"rope": rope, "fope": [result(2.1, 2.79)]})[0] == Verdict.HELD
    assert verdict("A", {"rope": rope, "fope": [result(2.0, 2.71)]})[0] == Verdict.DID_NOT_HOLD
    fine_on_valid = result(2.0, 2.5)
    fine_on_valid["losses"]["heldout"][str(16 * LENGTH)] += 0.3  # growth 0.8 on the held-out text
    assert verdict("A", {"rope": rope, "fope": [fine_on_valid]})[0] == Verdict.DID_NOT_HOLD
    assert verdict("A-books", {"rope": rope, "fope": [fine_on_valid]})[0] == Verdict.HELD


def test_a_is_not_tested_where_rope_does_not_degrade() -> None:
    flat = {"rope": [result(2.0, 1.9)], "fope": [result(2.0, 1.8)]}
    assert verdict("A", flat)[0] == Verdict.NOT_TESTED


def test_b_allows_two_hundredths_of_a_nat_at_the_training_length() -> None:
    rope = [result(2.0, 3.0), result(2.1, 3.0)]
    assert verdict("B", {"rope": rope, "fope": [result(2.03, 3), result(2.105, 3)]})[0] == Verdict.HELD
    assert verdict("B", {"rope": rope, "fope": [result(2.03, 3), result(2.12, 3)]})[0] == Verdict.DID_NOT_HOLD


@pytest.mark.parametrize(
    ("cf", "expected"),
    [
        (result(2.0, 2.9), Verdict.HELD),
        (result(1.9, 2.9), Verdict.DID_NOT_HOLD),  # better at 4 L: 2.4 < 2.45
        (result(2.0, 2.8), Verdict.DID_NOT_HOLD),
    ],
)
def test_c_asks_at_4l_and_at_16l(cf: dict[str, Any], expected: Verdict) -> None:
    fope = result(2.0, 2.9)
    assert verdict("C", {"fope": [fope], "cf": [cf]})[0] == expected


def test_d_is_void_unless_both_have_learned_the_passkey() -> None:
    def asked(rope: float, fope: float) -> tuple[Verdict, str]:
        found = {"rope": result(2, 3, found=rope), "fope": result(2, 3, found=fope)}
        for arm in found:  # at L both are as made; at 4 L RoPE finds half as many, FoPE as many
            if arm == "rope":
                found[arm]["passkey"][str(4 * LENGTH)] = [rope / 2, rope / 2]
        return verdict("D", {arm: [value] for arm, value in found.items()})

    assert asked(0.95, 0.95)[0] == Verdict.HELD
    reason = asked(0.95, 0.85)[1]
    assert "not learned" in reason
    assert "passkey_fope_1L = 0.85" in reason
    assert asked(0.85, 0.95)[0] == Verdict.NOT_TESTED


def test_d_asks_for_twenty_points() -> None:
    same = {arm: [result(2, 3, found=0.95)] for arm in ("rope", "fope")}
    assert verdict("D", same)[0] == Verdict.DID_NOT_HOLD


def test_e_compares_the_series_alone_and_the_ratio_of_the_perplexities() -> None:
    arms = {"rope": [result(2, 3)], "fs": [result(2, 3.1)], "fope": [result(2, 2.5, heldout=0.25)]}
    assert verdict("E1", arms)[0] == Verdict.DID_NOT_HOLD
    assert verdict("E1", arms | {"fs": [result(2, 2.9)]})[0] == Verdict.HELD
    assert verdict("E2", arms)[0] == Verdict.HELD
    assert verdict("E2", arms | {"fope": [result(2, 2.5, heldout=0.35)]})[0] == Verdict.DID_NOT_HOLD


def test_a_claim_whose_arm_was_left_out_is_not_tested() -> None:
    only = {"rope": [result(2, 3)], "fope": [result(2, 2.5)]}
    for claim in ("C", "D", "E1", "F1", "F2"):
        assert verdict(claim, only)[0] == Verdict.NOT_TESTED


def test_rules_as_the_brief_fixed_them() -> None:
    said = {claim.id: claim.condition for claim in CLAIMS}
    assert said["A"] == "growth_ratio_valid ≤ 0.7 and growth_ratio_heldout ≤ 0.7"
    assert said["B"] == "fope_minus_rope_1L ≤ 0.02"
    assert said["C"] == "fope_minus_cf_16L ≤ 0 and fope_minus_cf_4L ≤ 0"
    assert said["D"].endswith("≥ 0.2, asked if passkey_rope_1L and passkey_fope_1L ≥ 0.9")
