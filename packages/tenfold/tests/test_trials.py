import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold import Trial, TrialContext
from tenfold.records import load_records
from tenfold.trials import by_arm

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_equal_trials_have_equal_hashes_whatever_the_order_of_keys(settings: dict[str, object]) -> None:
    trial = Trial("a", 1, settings)
    again = Trial("a", 1, dict(reversed(list(json.loads(json.dumps(settings)).items()))))
    assert trial == again
    assert hash(trial) == hash(again)
    assert trial.folder_name == again.folder_name


def test_settings_hash_is_the_sha256_of_canonical_json() -> None:
    # printf '{"lr":0.1,"steps":[1,2]}' | sha256sum
    assert Trial("a", 0, {"steps": (1, 2), "lr": 0.1}).settings_hash == "8767cfeaae0a"


def test_arm_seed_stage_and_settings_make_different_trials() -> None:
    trials = {
        Trial("a", 0),
        Trial("b", 0),
        Trial("a", 1),
        Trial("a", 0, stage="sweep"),
        Trial("a", 0, {"lr": 1}),
        Trial("a", 0, {"lr": 1.5}),
    }
    assert len(trials) == 6
    assert len({trial.folder_name for trial in trials}) == 6


def test_a_folder_name_is_safe_and_distinct_even_where_the_readable_part_is_not() -> None:
    names = [Trial(arm, 0).folder_name for arm in ("a/b", "a b", "../../x", "x" * 500)]
    assert len(set(names)) == 4
    assert all("/" not in name and len(name) < 120 for name in names)


def test_settings_that_are_no_json_are_refused() -> None:
    with pytest.raises(TypeError, match="settings of arm 'a' must be plain JSON"):
        Trial("a", 0, {"model": object()})
    with pytest.raises(TypeError, match="plain JSON"):
        Trial("a", 0, {"lr": float("nan")})


def test_changing_the_callers_dict_does_not_change_the_trial() -> None:
    settings = {"layers": [1]}
    trial = Trial("a", 0, settings)
    settings["layers"].append(2)
    assert trial.settings == {"layers": [1]}


def test_results_by_arm_are_those_of_one_stage_with_the_seeds_in_order() -> None:
    trials = [Trial("b", 1, stage="x"), Trial("a", 2, stage="x"), Trial("b", 0, stage="x"), Trial("a", 0)]
    found = by_arm({trial: number for number, trial in enumerate(trials)}, "x")
    assert found == {"b": {0: 2, 1: 0}, "a": {2: 1}}
    assert [list(seeds) for seeds in found.values()] == [[0, 1], [2]]


def test_finishing_writes_the_result_and_removes_the_checkpoints(tmp_path: Path) -> None:
    context = TrialContext(Trial("a", 3, {"lr": 0.5}), tmp_path, lambda done, total: None)
    (context.checkpoint_dir / "state").write_text("x")
    context.log(7, loss=np.float32(0.5), accuracy=1)
    result = context.finish(
        {"loss": np.float64(0.25), "spectrum": [np.float32(1.0)], "name": "x", "n": np.int64(3)}
    )
    assert result == {"loss": 0.25, "spectrum": [1.0], "name": "x", "n": 3}
    assert not context.checkpoint_dir.exists()
    records, was_damaged = load_records(tmp_path / "metrics.jsonl", print)
    assert not was_damaged
    assert records.results() == {context.trial: result}
    assert records.curve("a", "loss") == {3: ([7], [0.5])}


@pytest.mark.parametrize(("result", "match"), [(0.5, "not float"), ({"model": object()}, "plain JSON")])
def test_a_result_that_is_no_json_is_refused_before_anything_is_written(
    tmp_path: Path, result: object, match: str
) -> None:
    context = TrialContext(Trial("a", 3), tmp_path, lambda done, total: None)
    with pytest.raises(TypeError, match=match):
        context.finish(result)  # type: ignore[arg-type]
    assert not (tmp_path / "metrics.jsonl").exists()
    assert context.checkpoint_dir.exists()


def test_progress_is_reported_seldom_but_always_at_the_end(tmp_path: Path) -> None:
    reports: list[tuple[float, float]] = []
    context = TrialContext(Trial("a", 3), tmp_path, lambda done, total: reports.append((done, total)))
    for step in range(1, 10_001):
        context.progress(step, 10_000)
    assert reports[-1] == (10_000, 10_000)
    assert len(reports) < 100
