"""The command: what each verb writes and says, and that a mistake is a sentence and exit code 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnirl.cli import main
from omnirl.data import load_dataset
from omnirl.model.config import OmniRLConfig
from omnirl.model.modeling import OmniRL
from omnirl.tasks.batch import TaskBatch
from omnirl.tasks.sampling import sample_tasks
from omnirl.tasks.solver import solve
from omnirl.training.config import TrainConfig


class Command:
    """The command in this process: `run` gives its JSON, `fails` its message."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def _call(self, arguments: tuple[Any, ...]) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        shown = self.capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), shown.out, shown.err

    def text(self, *arguments: Any) -> str:
        code, out, err = self._call(arguments)
        assert code == 0, err
        return out

    def run(self, *arguments: Any) -> Any:
        return json.loads(self.text(*arguments, "--json"))

    def fails(self, *arguments: Any, code: int = 2) -> str:
        found, _, err = self._call(arguments)
        assert found == code
        assert "Traceback" not in err
        return err


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    config = OmniRLConfig(16, 5, hidden_size=8, num_layers=1, num_heads=1, layout="fused")
    OmniRL(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks") / "tasks.npz"
    sample_tasks(3, seed=0).save(path)
    return path


def test_sampled_tasks_are_those_of_the_function(command: Command, tmp_path: Path) -> None:
    found = command.run("sample", "-n", 2, "--seed", 4, "--first", 1, "--out", tmp_path / "t.npz")
    assert (found["tasks"], found["family"]) == (2, "anymdp")
    expected = sample_tasks(3, seed=4)[1:]
    assert np.array_equal(TaskBatch.load(tmp_path / "t.npz").transition, expected.transition)
    assert command.run("info", tmp_path / "t.npz")["states"] == "16 to 16"


def test_solve_writes_q(command: Command, tasks: Path, tmp_path: Path) -> None:
    found = command.run("solve", tasks, "--out", tmp_path / "q.npy")
    assert found["oracle_return"] > found["random_return"]
    assert np.array_equal(np.load(tmp_path / "q.npy"), np.asarray(solve(TaskBatch.load(tasks), 0.994)))


def test_data_goes_to_the_official_folders_and_back(command: Command, tasks: Path, tmp_path: Path) -> None:
    made, there, back = (tmp_path / name for name in ("made", "there", "back"))
    found = command.run("synth", tasks, "--steps", 30, "--mix", "explore", "--out", made)
    assert (found["sequences"], found["steps"]) == (3, 30)
    assert command.run("info", made)["method"] == "dpd"
    command.run("convert", made, "--from", "omnirl", "--to", "airsoul", "--out", there)
    command.run("convert", there, "--from", "airsoul", "--out", back)
    first, last = load_dataset(made), load_dataset(back)
    assert all(
        np.array_equal(first[i][name], last[i][name]) for i in range(3) for name in ("actions", "labels")
    )


def test_bench_tells_four_rates(command: Command) -> None:
    found = command.run("bench", "-n", 2, "--num-states", 8, "--steps", 20)
    assert list(found) == [
        "sampled tasks / s",
        "solved tasks / s",
        "environment steps / s",
        "synthesised steps / s",
    ]
    assert all(rate > 0 for rate in found.values())
    assert "at least 8" in command.fails("bench", "--num-states", 4)


def test_a_model_is_trained_from_toml_with_changes(command: Command, tmp_path: Path) -> None:
    model = OmniRLConfig(16, 5, hidden_size=8, num_layers=1, num_heads=1, layout="fused")
    config = TrainConfig(
        model, str(tmp_path / "elsewhere"), updates=9, batch_size=2, context=16, data={"tasks": 4}
    )
    (tmp_path / "config.toml").write_text(config.to_toml())
    changes = ("--set", "updates=2", "--set", "model.num_layers=2", "--out", tmp_path / "run")
    found = command.run("train", tmp_path / "config.toml", *changes)
    assert found["updates"] == 2
    assert OmniRL.from_pretrained(found["model"]).config.num_layers == 2
    assert command.run("info", found["model"])["num_layers"] == 2
    assert "updats" in command.fails("train", tmp_path / "config.toml", "--set", "updats=2")


def test_an_environment_is_scored_by_episode(command: Command, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    arguments = ("--model", model, "--episodes", 3, "--runs", 2, "--permute")
    files = ("--out", tmp_path / "e.csv", "--plot", tmp_path / "e.png")
    found = command.run("eval", "--env", "FrozenLake-v1", *arguments, *files)
    assert len(found["mean"]) == len(found["ci95"]) == 3
    assert found["settings"]["permute_states"] is True
    assert len((tmp_path / "e.csv").read_text().splitlines()) == 1 + 2 * 3
    assert (tmp_path / "e.png").stat().st_size > 0


def test_tasks_are_scored_too(command: Command, model: Path, tasks: Path) -> None:
    found = command.run("eval", "--tasks", tasks, "--model", model, "--episodes", 1, "--runs", 1)
    assert found["what"] == "normalised score"
    assert '"ci95": [\n    null' in command.text(
        "eval", "--env", "FrozenLake-v1", "--model", model, "--episodes", 1, "--runs", 1, "--json"
    )  # of one run there is no interval, and JSON has no NaN
    assert "one of them" in command.fails("eval", "--model", model)
    for option in (
        ("--shaping", "frozenlake"),
        ("--reward-scale", 2),
        ("--max-steps", 5),
        ("--env-arg", "a=1"),
    ):
        assert f"{option[0]} is for environments" in command.fails("eval", "--tasks", tasks, *option)


@pytest.mark.parametrize("family", ["garnet", "bandit"])
def test_every_family_that_is_sampled_is_scored(
    command: Command, model: Path, tmp_path: Path, family: str
) -> None:
    command.run("sample", "-n", 2, "--family", family, "--out", tmp_path / "t.npz")
    found = command.run("eval", "--tasks", tmp_path / "t.npz", "--model", model, "--episodes", 2, "--runs", 1)
    assert len(found["mean"]) == 2
    assert found["skipped"] == 0


def test_a_room_and_two_agents_are_scored(command: Command, tmp_path: Path) -> None:
    OmniRL(OmniRLConfig(105, 5, 8, 1, 1, layout="fused")).save_pretrained(tmp_path)
    arguments = ("--model", tmp_path, "--episodes", 2, "--runs", 2)
    room = command.run("eval", "--env", "omnirl/DarkRoom-v0", "--env-arg", "size=4", *arguments)
    assert room["what"] == "normalised score"
    two = command.run("eval", "--env", "Switch2", "--max-steps", 6, *arguments)
    assert two["steps"] == [6.0, 6.0]
    assert "shapes its rewards itself" in command.fails("eval", "--env", "Switch2", "--reward-scale", 2)


def test_play_tells_each_episode_and_draws_the_lake(command: Command, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    film = tmp_path / "lake.gif"
    lines = command.text("play", "--model", model, "--episodes", 4, "--out", film, "--json").splitlines()
    assert [json.loads(line)["episode"] for line in lines] == [0, 1, 2, 3]
    assert film.read_bytes().startswith(b"GIF89a")
    OmniRL(OmniRLConfig(60, 5, 8, 1, 1, layout="fused")).save_pretrained(tmp_path / "60")
    shown = command.text("play", "Pendulum-v1", "--model", tmp_path / "60", "--episodes", 1, "--max-steps", 5)
    assert "episode    1" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("play", "--env-arg", "is_slippery"), "key=value"),
        (("play", "NoSuchLake-v9"), "NoSuchLake"),
        (("play", "Taxi-v4"), "6 actions"),
        (("play", "CliffWalking-v1"), "48 observations and the agent knows 16"),
        (("play", "--out", "lake.mp4"), "must end in .gif"),
        (("play", "Pendulum-v1", "--out", "lake.gif"), "Pendulum-v1 has none"),
        (("eval", "--env", "FrozenLake-v1", "--plot", "curve.xyz"), "must end in .png, .svg, .pdf"),
        (("play", "Switch2"), "eval --env Switch2"),
        (("play", "--env-arg", "map_name=9x9"), "FrozenLake-v1 cannot be made"),
        (("play", "--max-steps", "0"), "'--max-steps'"),
        (("eval", "--env", "Switch2", "--env-arg", "foo=1"), "Switch2 cannot be made"),
        (("eval", "--env", "Switch2", "--env-arg", "max_steps=abc"), "Switch2 cannot be made"),
        (("eval", "--env", "Switch2", "--max-steps", "0"), "'--max-steps'"),
        (("play", "Blackjack-v1"), "must be Discrete"),
        (("solve", __file__), "no .npz file of arrays"),
        (("convert", "nowhere", "--from", "airsoul", "--out", "b"), "no such file or folder"),
        (("convert", __file__, "--from", "airsoul", "--out", "b"), "no file of torch.save"),
        (("info", "nowhere"), "nowhere"),
        (("sample", "--num-states", "5", "--out", "x.npz"), "at least 8"),
        (("convert", "a", "--from", "xenoverse", "--to", "minari", "--out", "b"), "npz"),
    ],
)
def test_a_mistake_is_a_sentence(
    command: Command, model: Path, arguments: tuple[str, ...], says: str
) -> None:
    more = ("--model", model) if arguments[0] == "play" else ()
    assert says in command.fails(*arguments, *more)


WRONG_SETTINGS = [
    ("lr=abc", "lr is 'abc'; it must be a number"),
    ("lr=null", "lr is None"),
    ("seed=-1", "seed is -1"),
    ("model=5", "model: it is a table"),
    ("model.dropout=abc", "dropout is 'abc'"),
    ("model.layout=5", "layout is 5"),
    ("data.num_states=abc", "num_states is 'abc'; it must be a whole number"),
    ("data.workers=true", "workers is True"),
    ("data.tag_mask=5", "tag_mask is 5"),
    ("data.method=[1]", "no method [1]"),
    ("data.mix=5", "mix must be a name"),
]
WRONG_FILES = [
    ('lr = "3e-3"', "lr is '3e-3'; it must be a number"),
    ("model = 5", "model is 5; it must be a table"),
    ("[model]\nnum_actions = 5", "needs 'num_states'"),
    ("data = 5", "data is 5; it must be a table"),
]


@pytest.mark.parametrize(
    ("line", "setting", "says"),
    [("", setting, says) for setting, says in WRONG_SETTINGS]
    + [(line, "updates=1", says) for line, says in WRONG_FILES],
)
def test_a_training_setting_of_another_kind_is_a_sentence(
    command: Command, tmp_path: Path, line: str, setting: str, says: str
) -> None:
    table = "" if "model" in line else "[model]\nnum_states = 16\nnum_actions = 5\n"
    path = tmp_path / "config.toml"
    path.write_text(f'out = "{tmp_path / "run"}"\n{line}\n{table}')
    assert says in command.fails("train", path, "--set", setting)


@pytest.mark.parametrize(
    ("name", "verb"), [("model.safetensors", "play"), ("config.json", "play"), ("config.json", "info")]
)
def test_a_model_s_file_that_breaks_off_is_named(
    command: Command, model: Path, tmp_path: Path, name: str, verb: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:20])
    arguments = ("info", folder) if verb == "info" else ("play", "--model", folder)
    assert f"{folder / name} is damaged" in command.fails(*arguments)


def test_without_the_shipped_weights_the_way_to_train_them_is_told(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("omnirl.model.modeling.files", lambda name: tmp_path)
    assert "omnirl reproduce" in command.fails("play")
