"""The claims' rules, on results made up for the purpose, and claim C1 on the real modules."""

from __future__ import annotations

import math
from typing import Any

import pytest

from memoryformer.reproduce.accounting import accounting_metrics, printed_numbers
from memoryformer.reproduce.claims import CLAIMS
from memoryformer.reproduce.comparisons import (
    ABLATION,
    ablation_metrics,
    best_rates,
    comparison_metrics,
    inside_metrics,
    stage,
)
from memoryformer.reproduce.decoding import decoding_metrics
from tenfold import Estimate, Trial, Verdict
from tenfold.claims import judge

BY_ID = {claim.id: claim for claim in CLAIMS}
BASE = {
    ("transformer", 1e-3): [2.4, 2.41, 2.42],
    ("transformer", 3e-3): [2.2, 2.21, 2.22],
    ("memoryformer", 1e-3): [2.5, 2.51, 2.52],
    ("memoryformer", 3e-3): [2.3, 2.31, 2.32],
    ("memoryformer", 6e-3): [2.1, 2.11, 2.12],
    ("transformer-fc", 2.4e-2): [2.3, 2.31, 2.32],
    ("transformer-total", 1.2e-2): [2.3, 2.31, 2.32],
}
SWEEPS = {"transformer": (1e-3, 3e-3), "memoryformer": (1e-3, 3e-3, 6e-3)}
SWEEPS |= {"transformer-fc": (2.4e-2,), "transformer-total": (1.2e-2,)}


def result(loss: float) -> dict[str, Any]:
    return {
        "choice_loss": loss,
        "losses": {"valid": loss, "books": loss + 1},
        "bits_per_byte": {"valid": loss / math.log(2), "books": (loss + 1) / math.log(2)},
        "parameters": 10,
        "flops": 20.0,
        "tokens_per_second": 30.0,
    }


def trained(changes: dict[tuple[str, float], list[float]]) -> dict[Trial, dict[str, Any]]:
    return {
        Trial(arm, seed, {"learning_rate": rate}, stage=stage(rate)): result(loss)
        for (arm, rate), losses in (BASE | changes).items()
        for seed, loss in enumerate(losses)
    }


def verdict(claim: str, metrics: dict[str, Any], scale: str = "laptop") -> Verdict:
    estimates = {name: Estimate.of(value) for name, value in metrics.items()}
    return judge(BY_ID[claim], estimates, scale, lambda name: True)[0]


def compared(claim: str, changes: dict[tuple[str, float], list[float]]) -> Verdict:
    found = trained(changes)
    return verdict(claim, comparison_metrics(found, best_rates(found, SWEEPS), 1e-3))


def test_c1_holds_of_the_real_modules_and_mf_small_alone_is_off() -> None:
    numbers = printed_numbers()
    off = {number.where: (number.printed, number.rounded) for number in numbers if not number.agrees}
    assert off == {
        "Table 1, MF-small without attention (G)": ("1.0", "0.9"),
        "Table 1, MF-small (G)": ("7.4", "7.3"),
    }
    assert len(numbers) - len(off) == 21
    metrics = accounting_metrics()
    assert verdict("C1", metrics) == Verdict.HELD
    assert verdict("C1", metrics | {"printed_numbers_off": 1.0}) == Verdict.DID_NOT_HOLD
    assert verdict("C1", metrics | {"modules_minus_counters": 2.0}) == Verdict.DID_NOT_HOLD
    assert {name: metrics[f"tables_over_dense_fc_{name}"] for name in ("tiny", "small", "base")} == {
        "tiny": 22.0,
        "small": 22.0,
        "base": 22.0,
    }


def test_c2_wants_more_than_the_spread_of_either_arm() -> None:
    assert compared("C2", {}) == Verdict.HELD  # 2.4 against 2.3, spreads of 0.02
    assert compared("C2", {("transformer", 1e-3): [2.31, 2.32, 2.33]}) == Verdict.DID_NOT_HOLD
    assert compared("C2", {("memoryformer", 3e-3): [2.2, 2.3, 2.4]}) == Verdict.DID_NOT_HOLD
    assert compared("C2-books", {}) == Verdict.HELD


def test_c2b_takes_both_at_their_best_and_allows_a_tie() -> None:
    assert compared("C2b", {}) == Verdict.HELD
    assert compared("C2b", {("memoryformer", 6e-3): [2.2, 2.21, 2.22]}) == Verdict.HELD
    assert compared("C2b", {("memoryformer", 6e-3): [2.201, 2.21, 2.22]}) == Verdict.DID_NOT_HOLD


def test_the_best_rate_is_chosen_by_the_first_seed_on_the_choosing_text() -> None:
    found = trained({("memoryformer", 3e-3): [2.0, 9.0, 9.0]})
    assert best_rates(found, SWEEPS)["memoryformer"] == 3e-3


@pytest.mark.parametrize(
    ("claim", "arm"), [("C3", ("transformer-fc", 2.4e-2)), ("C3b", ("transformer-total", 1.2e-2))]
)
def test_c3_wants_more_than_the_spread(claim: str, arm: tuple[str, float]) -> None:
    assert compared(claim, {}) == Verdict.HELD
    assert compared(claim, {arm: [2.11, 2.12, 2.13]}) == Verdict.DID_NOT_HOLD


def test_c4_asks_for_the_order_of_the_two_rates() -> None:
    assert compared("C4", {}) == Verdict.HELD
    assert compared("C4", {("memoryformer", 1e-3): [2.29, 2.3, 2.31]}) == Verdict.DID_NOT_HOLD


def test_one_seed_has_no_spread_and_tests_no_margin() -> None:
    one = {key: losses[:1] for key, losses in BASE.items()}
    assert compared("C2", one) == Verdict.NOT_TESTED
    assert compared("C2b", one) == Verdict.HELD


def ablated(**losses: float) -> dict[str, Any]:
    found = {"bits-0": 2.2, "bits-1": 2.1, "bits-3": 1.9, "tau-4": 2.1, "gelu": 2.0}
    found |= {name.replace("_", "-"): loss for name, loss in losses.items()}
    trials = {Trial(arm, 0, stage=ABLATION): result(loss) for arm, loss in found.items()}
    return ablation_metrics(
        trials | {Trial("memoryformer", seed, stage=ABLATION): result(2.0 + 0.01 * seed) for seed in range(3)}
    )


def test_ablations_are_compared_with_the_setting_of_their_seed() -> None:
    for claim in ("C5", "C6", "C7"):
        assert verdict(claim, ablated()) == Verdict.HELD
        assert verdict(claim, ablated(), "quick") == Verdict.NOT_TESTED
    assert verdict("C5", ablated(bits_3=2.01)) == Verdict.HELD  # not worse by more than the spread of 0.02
    assert verdict("C5", ablated(bits_3=2.03)) == Verdict.DID_NOT_HOLD
    assert verdict("C5", ablated(bits_0=1.99, bits_1=1.99)) == Verdict.DID_NOT_HOLD
    assert verdict("C6", ablated(tau_4=1.99)) == Verdict.DID_NOT_HOLD
    assert verdict("C7", ablated(gelu=1.97)) == Verdict.DID_NOT_HOLD


def inspected(entropy: float, dead: float, int8: float) -> dict[str, Any]:
    even = {"entropy": 0.99, "dead_rows": 0.0, "max_share": 0.01, "flip_rate": 0.0}
    worst = even | {"entropy": entropy, "dead_rows": dead}
    found = result(2.0) | {"int8_loss": 2.0 + int8, "buckets": {"block1_qkv": worst, "block1_layer1": even}}
    return inside_metrics({Trial("memoryformer", 0, stage=stage(3e-3)): found, Trial("a", 0): result(1.0)})


def test_c8_asks_for_the_worst_layer_and_c10_for_two_thousandths_of_a_nat() -> None:
    assert verdict("C8", inspected(0.85, 0.049, 0)) == Verdict.HELD
    assert verdict("C8", inspected(0.84, 0.049, 0)) == Verdict.DID_NOT_HOLD
    assert verdict("C8", inspected(0.85, 0.05, 0)) == Verdict.DID_NOT_HOLD
    assert verdict("C10", inspected(0.9, 0, 0.0019)) == Verdict.HELD
    assert verdict("C10", inspected(0.9, 0, 0.0021)) == Verdict.DID_NOT_HOLD


def decoded(ours: float, int8: float) -> dict[str, Any]:
    speeds = {"transformer": [100.0, 200.0], "transformer, lean loop": [150.0, 300.0]}
    for name, speed in (("MemoryFormer", ours), ("MemoryFormer int8", int8)):
        speeds[name] = [120.0, 240.0]
        speeds[f"{name}, compile_decode"] = [100 * speed, 200 * speed]
    return decoding_metrics({"speeds": speeds})


def test_c9_compares_round_by_round_with_the_transformer() -> None:
    assert decoded(2.0, 3.0)["decode_speed"].samples == (2.0, 2.0)
    assert decoded(2.0, 3.0)["decode_speed_modules"].mean == pytest.approx(1.2)
    assert decoded(2.0, 3.0)["decode_speed_int8_lean"].mean == pytest.approx(2.0)
    assert verdict("C9", decoded(1.5, 1.5), "quick") == Verdict.HELD
    assert verdict("C9", decoded(1.6, 1.4), "quick") == Verdict.DID_NOT_HOLD
    assert verdict("C9-512", decoded(3.0, 3.0)) == Verdict.HELD
    assert verdict("C9-512", decoded(2.9, 3.0)) == Verdict.DID_NOT_HOLD
    assert verdict("C9-lean", decoded(1.6, 1.6)) == Verdict.HELD
    assert verdict("C9-lean", decoded(1.4, 1.6)) == Verdict.DID_NOT_HOLD


def test_rules_as_the_specification_fixed_them() -> None:
    said = {claim.id: claim.condition for claim in CLAIMS}
    assert said["C1"] == "printed_numbers_off = 0 and modules_minus_counters = 0"
    assert said["C2"] == "transformer_minus_memoryformer > spread_transformer_memoryformer"
    assert said["C2b"] == "best_transformer_minus_memoryformer ≥ 0"
    assert said["C4"] == "loss_3x_minus_1x < 0"
    assert said["C5"] == "loss_2_minus_0_bits < 0 and worst_step_of_bits ≤ spread_ablations"
    assert said["C6"] == "loss_tau8_minus_tau4 ≤ 0"
    assert said["C7"] == "gelu_changes_loss ≤ spread_ablations"
    assert said["C8"] == "least_bucket_entropy ≥ 0.85 and most_dead_rows < 0.05"
    assert said["C9"] == "decode_speed ≥ 1.5 and decode_speed_int8 ≥ 1.5"
    assert said["C9-512"] == "decode_speed ≥ 3 and decode_speed_int8 ≥ 3"
    assert said["C10"] == "int8_costs < 0.002"
