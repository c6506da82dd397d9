import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tenfold import Records, Trial
from tenfold.records import append_record, load_records, measurement_of, result_of

A, B = Trial("a", 0, {"lr": 1}), Trial("b", 1, {"lr": 1}, stage="sweep")


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two trials: a logs twice and ends, b logs once, then both log again."""
    path = tmp_path / "metrics.jsonl"
    append_record(path, measurement_of(A, 0, {"loss": 2.0}))
    append_record(path, measurement_of(A, 10, {"loss": 1.0, "extra": math.nan}))
    append_record(path, result_of(A, {"loss": 0.5}))
    append_record(path, measurement_of(B, 0, {"loss": math.inf}))
    append_record(path, result_of(B, {"loss": None, "names": ["x"]}))
    return path


def test_a_line_is_the_documented_json(file: Path) -> None:
    measured, ended = json.loads(lines(file)[0]), json.loads(lines(file)[4])
    assert measured == {
        "arm": "a",
        "seed": 0,
        "stage": "",
        "settings_hash": A.settings_hash,
        "step": 0,
        "metrics": {"loss": 2.0},
    }
    assert ended == {
        "arm": "b",
        "seed": 1,
        "stage": "sweep",
        "settings_hash": B.settings_hash,
        "settings": {"lr": 1},
        "result": {"loss": None, "names": ["x"]},
    }


def test_what_was_written_is_read_back(file: Path) -> None:
    records, was_damaged = load_records(file, pytest.fail)
    assert not was_damaged
    assert records.results() == {A: {"loss": 0.5}, B: {"loss": None, "names": ["x"]}}
    assert records.arms() == ["a", "b"]
    assert records.arms(stage="sweep") == ["b"]
    assert records.curve("a", "loss") == {0: ([0, 10], [2.0, 1.0])}
    assert records.curve("b", "loss", stage="sweep") == {1: ([0], [math.inf])}
    assert records.curve("b", "loss") == records.curve("a", "accuracy") == {}
    columns = records.curves("a")[0]
    assert (columns["step"], columns["loss"]) == ([0, 10], [2.0, 1.0])
    assert all(math.isnan(value) for value in columns["extra"])  # not logged, and logged as NaN


def test_a_missing_file_has_no_records(tmp_path: Path) -> None:
    records, was_damaged = load_records(tmp_path / "metrics.jsonl", pytest.fail)
    assert (list(records), records.results(), was_damaged) == ([], {}, False)


def test_the_last_of_two_equal_steps_counts_and_steps_rise() -> None:
    records = Records(
        [measurement_of(A, step, {"loss": loss}) for step, loss in ((5, 1.0), (10, 0.9), (0, 2.0), (5, 0.8))]
    )
    assert records.curve("a", "loss") == {0: ([0, 5, 10], [2.0, 0.8, 0.9])}


def test_trials_of_several_settings_are_not_mixed_in_a_curve() -> None:
    other = Trial("a", 0, {"lr": 2})
    records = Records([measurement_of(t, 0, {"loss": t.settings["lr"]}) for t in (A, other)])
    with pytest.raises(ValueError, match=f"arm 'a' ran with several settings.*{A.settings_hash}"):
        records.curve("a", "loss")
    assert records.curve("a", "loss", settings_hash=other.settings_hash) == {0: ([0], [2.0])}
    assert records.restricted_to([A]).curve("a", "loss") == {0: ([0], [1.0])}


DAMAGES = {
    "truncated last line": (lambda ls: [*ls[:4], ls[4][:-30]], 5),
    "no newline at the end": (lambda ls: [*ls[:4], ls[4][:-1]], 5),
    "garbage in the middle": (lambda ls: [*ls[:2], b"\x00\xff\xfe garbage\n", *ls[2:]], 3),
    "half a line in the middle": (lambda ls: [*ls[:3], ls[3][:20], ls[4]], 4),
    "an empty line": (lambda ls: [ls[0], b"\n", *ls[1:]], 2),
    "JSON of another schema": (lambda ls: [ls[0], b'{"loss": 1.0}\n', *ls[1:]], 2),
    "JSON that is no object": (lambda ls: [*ls[:3], b"[1, 2]\n", *ls[3:]], 4),
    "a number as text": (lambda ls: [ls[0], ls[1].replace(b'"step":10', b'"step":"10"'), *ls[2:]], 2),
    "an unknown key": (lambda ls: [ls[0].replace(b'"arm"', b'"arms"'), *ls[1:]], 1),
    "a result with other settings": (lambda ls: [*ls[:2], ls[2].replace(b'"lr":1', b'"lr":3'), *ls[3:]], 3),
    "metrics and a result": (
        lambda ls: [*ls[:2], ls[2].replace(b'"result"', b'"step":1,"metrics":{},"result"'), *ls[3:]],
        3,
    ),
    "nothing but zeros": (lambda ls: [b"\x00" * 512], 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_the_sound_lines_before_it_are_kept(file: Path, damage: str) -> None:
    change, bad_line = DAMAGES[damage]
    sound = lines(file)[: bad_line - 1]
    damaged = b"".join(change(lines(file)))
    file.write_bytes(damaged)
    told: list[str] = []
    records, was_damaged = load_records(file, told.append)
    assert was_damaged
    assert len(told) == 1
    assert f"{file} is damaged at line {bad_line}" in told[0]
    assert "moved to metrics.jsonl.damaged-1" in told[0]
    assert f"{len(sound)} sound records" in told[0]
    assert lines(file) == sound
    assert file.with_name("metrics.jsonl.damaged-1").read_bytes() == damaged
    assert len(records.results()) == sum(b'"result"' in line for line in sound)
    assert load_records(file, pytest.fail).was_damaged is False  # the new file is sound


def test_a_second_damage_does_not_overwrite_the_first(file: Path) -> None:
    for number in (1, 2):
        with file.open("ab") as handle:
            handle.write(b"garbage")
        load_records(file, lambda message: None)
        assert file.with_name(f"metrics.jsonl.damaged-{number}").exists()


def test_lines_appended_side_by_side_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"

    def append(number: int) -> None:
        append_record(path, measurement_of(Trial(f"arm{number}" * 400, number), 0, {"x": number}))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(append, range(64)))
    assert len(list(load_records(path, pytest.fail).records)) == 64
