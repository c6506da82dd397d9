"""Training: what is learnt, what a stop costs, what is refused; over 400 lines, as all train one bandit."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from omnirl.errors import OmniRLError, TrainingError
from omnirl.model.config import OmniRLConfig
from omnirl.model.losses import context_weights, policy_loss
from omnirl.model.memory import detach
from omnirl.model.modeling import OmniRL
from omnirl.training.checkpoints import load_state, save_state
from omnirl.training.config import TrainConfig
from omnirl.training.distributed import Processes
from omnirl.training.loop import Progress, train
from omnirl.training.optimizers import make_optimizers, split_parameters
from omnirl.training.segments import LossPlan, batch_gradients

ARMS = 4


def bandits(batch: int, length: int, seed: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches of random pulls, each followed by the filler step, labelled with the best arm."""
    for update in range(10**6):
        draw = np.random.default_rng([seed, update])
        means = draw.normal(size=(batch, ARMS))
        pulls = draw.integers(ARMS, size=(batch, length // 2))
        real = np.arange(length) % 2 == 0
        actions, labels = np.full((batch, length), ARMS), np.full((batch, length), -100)
        rewards = np.zeros((batch, length), np.float32)
        actions[:, real], labels[:, real] = pulls, means.argmax(1)[:, None]
        rewards[:, real] = np.take_along_axis(means, pulls, 1) + 0.1 * draw.normal(size=pulls.shape)
        yield {
            "observations": np.zeros((batch, length), int),
            "tags": np.where(real, 6, 7) + np.zeros((batch, 1), int),
            "actions": actions,
            "labels": labels,
            "rewards": rewards,
            "means": means,
        }


def settings(out: Path, **changes: object) -> TrainConfig:
    model = OmniRLConfig(1, ARMS, 16, 1, 1, layout="fused", state_dropout=0.1)
    base = TrainConfig(model, str(out), updates=6, batch_size=4, context=16, warmup=2, log_every=1)
    return replace(base, **changes)  # type: ignore[arg-type]


def weights(model: OmniRL) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_bandit_is_learnt_in_context_so_that_regret_halves(tmp_path: Path) -> None:
    config = settings(
        tmp_path,
        model=OmniRLConfig(1, ARMS, 32, 1, 2, layout="fused", state_dropout=0.0),
        updates=120,
        context=24,
        context_warmup=0,
        warmup=10,
    )
    model = train(config, bandits(16, 24)).model
    test = next(bandits(256, 24, seed=1))
    with torch.no_grad():
        logits = model(
            *(torch.as_tensor(test[key]) for key in ("observations", "tags", "actions", "rewards"))
        )
    chosen = logits.policy_logits[:, 22].argmax(-1).numpy()
    best = test["means"].max(1)
    regret = (best - np.take_along_axis(test["means"], chosen[:, None], 1)[:, 0]).mean()
    assert regret < 0.5 * (best - test["means"].mean(1)).mean()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(tmp_path: Path, threads: int) -> None:
    whole = train(settings(tmp_path / "whole", threads=threads), bandits(4, 16))

    def killed(progress: Progress) -> None:
        if progress.update == 4:  # after the checkpoint of update 3, so one update is lost
            raise MemoryError

    config = settings(tmp_path / "killed", threads=threads, checkpoint_minutes=1e-9)
    with pytest.raises(MemoryError):
        train(config, bandits(4, 16), on_update=killed)
    resumed = train(config, bandits(4, 16))
    assert torch.equal(weights(whole.model), weights(resumed.model))
    assert resumed.steps == whole.steps == 6 * 4 * 16
    logged = [json.loads(line) for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    assert [record["update"] for record in logged] == [1, 2, 3, 4, 5, 6]
    again = OmniRL.from_pretrained(tmp_path / "killed" / "model")
    assert torch.equal(weights(again), weights(whole.model))


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """A shell's background jobs ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_a_signal_writes_a_checkpoint_before_it_does_what_it_does(tmp_path: Path) -> None:
    def told(progress: Progress) -> None:
        if progress.update == 2:
            signal.raise_signal(signal.SIGINT)

    config = settings(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(config, bandits(4, 16), on_update=told)
    seen: list[int] = []
    train(config, bandits(4, 16), on_update=lambda progress: seen.append(progress.update))
    assert seen == [3, 4, 5, 6]


@pytest.mark.usefixtures("_interruptible")
def test_one_process_of_many_stops_when_any_was_told_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: str, other: int, own: int) -> list[int]:
        """The updates until the stop, where a second process and this one are told after these updates."""

        def total(self: Processes, tensors: list[Tensor]) -> list[Tensor]:
            *rest, told = tensors
            if len(seen) == other and len(rest) > 1:  # with the gradients, not the sums before them
                told = told + torch.tensor([1.0, 0.0])
            return [*rest, told]

        def report(progress: Progress) -> None:
            seen.append(progress.update)
            if progress.update == own:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(Processes, "total", total)
        seen: list[int] = []
        with pytest.raises(KeyboardInterrupt):
            train(settings(tmp_path / folder), bandits(4, 16), on_update=report)
        assert load_state(tmp_path / folder)["counts"][0] == len(seen)
        return seen

    monkeypatch.setattr(Processes, "count", 2)
    assert run("other", other=1, own=99) == [1, 2]
    assert run("own", other=99, own=2) == [1, 2, 3]  # the others hear of it with the sums of the next


def test_a_checkpoint_of_a_gpu_is_read_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    save_state(tmp_path, {"weight": torch.arange(3)})
    assert load_state(tmp_path)["weight"].tolist() == [0, 1, 2]


def test_updates_that_are_not_finite_are_passed_over_and_many_stop_the_run(tmp_path: Path) -> None:
    def spoilt(bad: set[int]) -> Iterator[dict[str, np.ndarray]]:
        for update, batch in enumerate(bandits(4, 16)):
            rewards = np.full_like(batch["rewards"], np.nan) if update in bad else batch["rewards"]
            yield {**batch, "rewards": rewards}

    result = train(settings(tmp_path / "one"), spoilt({2}))
    assert result.skipped == 1
    assert torch.isfinite(weights(result.model)).all()
    config = settings(tmp_path / "many", max_bad_updates=3, checkpoint_minutes=1e-9)
    with pytest.raises(TrainingError, match=r"3 updates in a row, up to update 5.*last\.pt"):
        train(config, spoilt({2, 3, 4, 5}))


def test_a_checkpoint_of_other_settings_is_refused_and_a_damaged_one_named(tmp_path: Path) -> None:
    train(settings(tmp_path), bandits(4, 16))
    with pytest.raises(OmniRLError, match=r"lr = 0\.003, not 0\.1"):
        train(settings(tmp_path, lr=0.1), bandits(4, 16))
    (tmp_path / "last.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(OmniRLError, match="damaged"):
        train(settings(tmp_path), bandits(4, 16))
    assert train(settings(tmp_path), bandits(4, 16), resume=False).updates == 6


def test_a_run_begins_with_the_weights_of_a_folder_and_a_resumed_one_does_not(tmp_path: Path) -> None:
    first = train(settings(tmp_path / "first", seed=1), bandits(4, 16))
    config = settings(tmp_path / "next", initial=str(first.folder / "model"), lr=1e-9, muon_lr=0.0)

    def killed(progress: Progress) -> None:
        if progress.update == 3:
            raise MemoryError

    with pytest.raises(MemoryError):
        train(replace(config, checkpoint_minutes=1e-9), bandits(4, 16), on_update=killed)
    (first.folder / "model").rename(tmp_path / "moved")  # a run that goes on needs it no more
    again = train(config, bandits(4, 16))
    torch.testing.assert_close(weights(again.model), weights(first.model), atol=1e-6, rtol=0)
    other = settings(tmp_path / "other", initial=str(tmp_path / "moved"), model=without_hiding())
    with pytest.raises(OmniRLError, match=r"state_dropout 0\.1, not 0\.0"):
        train(other, bandits(4, 16))


def updates_logged(folder: Path) -> list[int]:
    return [json.loads(line)["update"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_that_begins_anew_leaves_nothing_of_the_one_before(tmp_path: Path) -> None:
    train(settings(tmp_path), bandits(4, 16))

    def killed(progress: Progress) -> None:
        if progress.update == 2:  # before any checkpoint of its own
            raise MemoryError

    other = settings(tmp_path, lr=0.1)
    with pytest.raises(MemoryError):
        train(other, bandits(4, 16), resume=False, on_update=killed)
    assert updates_logged(tmp_path) == [1, 2]
    assert TrainConfig.from_toml(tmp_path / "config.toml") == other
    seen: list[int] = []  # a restart finds no checkpoint, that of the first run neither
    train(other, bandits(4, 16), on_update=lambda progress: seen.append(progress.update))
    assert seen == updates_logged(tmp_path) == [1, 2, 3, 4, 5, 6]


def star() -> tuple[OmniRL, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = OmniRL(OmniRLConfig(3, ARMS, 16, 2, 2, layout="star")).eval()
    raw = next(bandits(6, 24))
    batch = {key: torch.as_tensor(value) for key, value in raw.items() if key != "means"}
    batch["observations"] = torch.randint(3, (6, 24))
    return model, batch


def test_gradients_do_not_depend_on_threads_or_rows_and_count_every_term() -> None:
    model, batch = star()
    plan = LossPlan.of(batch, ARMS, (0.2, 0.4, 0.4), 10, None)
    one, terms = batch_gradients(model, batch, plan)
    for threads in (2, 3):
        other, _ = batch_gradients(model, batch, plan, threads)
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    output = model(*(batch[key] for key in ("observations", "tags", "actions", "rewards")))
    w = context_weights(0, 24, 10)
    valid = batch["labels"] >= 0
    policy = policy_loss(output.policy_logits, batch["labels"], w) / (w * valid).sum()
    real = batch["actions"][:, :-1] < ARMS
    wrong = (output.reward[:, :-1] - batch["rewards"][:, :-1])[real]
    states = output.next_state_logits[:, :-1][real].log_softmax(-1)
    states = -states.gather(1, batch["observations"][:, 1:][real][:, None]).mean()
    torch.testing.assert_close(terms, torch.stack((policy, states, wrong.square().mean())).detach())


@pytest.mark.parametrize("size", [5, 8])
def test_segment_gradients_add_up_to_truncated_backpropagation_by_hand(size: int) -> None:
    model, batch = star()
    plan = LossPlan.of(batch, ARMS, (1.0, 0.0, 0.0), 10, size)
    gradients, terms = batch_gradients(model, batch, plan)
    memory, loss = None, torch.zeros(())
    for low in range(0, 24, size):
        part = {key: value[:, low : low + size] for key, value in batch.items()}
        output = model(*(part[key] for key in ("observations", "tags", "actions", "rewards")), memory=memory)
        memory = detach(output.memory)
        w = context_weights(low, part["labels"].shape[1], 10)
        loss = loss + policy_loss(output.policy_logits, part["labels"], w) / plan.policy_total
    expected = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True, allow_unused=True)
    whole, whole_terms = batch_gradients(model, batch, replace(plan, segment=None))
    torch.testing.assert_close(terms, whole_terms)  # the memory's numbers are those of one pass
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    assert any(not torch.allclose(a, b, atol=1e-6) for a, b in zip(gradients, whole, strict=True))


def test_bf16_gradients_are_near_those_of_fp32_in_every_thread() -> None:
    model, batch = star()
    plan = LossPlan.of(batch, ARMS, (0.2, 0.4, 0.4), 10, 8)
    exact, _ = batch_gradients(model, batch, plan, 2)
    exact_norm = torch.nn.utils.get_total_norm(exact)
    rough, _ = batch_gradients(model, batch, replace(plan, precision="bf16"), 2)
    error = torch.nn.utils.get_total_norm([a - b for a, b in zip(exact, rough, strict=True)])
    assert 0 < error < 0.05 * exact_norm


@pytest.mark.parametrize("mixer", ["attention", "gated_deltanet"])
def test_the_papers_layout_trains_in_segments_on_a_cpu(tmp_path: Path, mixer: str) -> None:
    model = OmniRLConfig(1, ARMS, 16, 2, 2, mixer=mixer)
    config = settings(tmp_path, model=model, updates=2, segment=6, schedule="noam", muon_lr=0.0)
    result = train(config, bandits(4, 16))
    assert result.updates == 2
    assert result.skipped == 0
    assert torch.isfinite(weights(result.model)).all()
    record = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    terms = [record[key] for key in ("policy_loss", "state_loss", "reward_loss")]
    assert record["loss"] == pytest.approx(np.dot((0.2, 0.4, 0.4), terms))


DISTRIBUTED = """
import signal
import sys
import torch
sys.path.insert(0, sys.argv[1])
import test_training as t
from pathlib import Path
from omnirl.training.distributed import Processes
rank, folder = Processes().rank, Path(sys.argv[2])
halves = ({key: value[2 * rank : 2 * rank + 2] for key, value in batch.items()} for batch in t.bandits(4, 16))
signal.signal(signal.SIGINT, signal.default_int_handler)
def told(progress):
    if rank == 1 and str(progress.update) == sys.argv[3]:
        signal.raise_signal(signal.SIGINT)
    (folder / f"seen_{rank}").write_text(str(progress.update))
try:
    t.train(t.settings(folder, model=t.without_hiding()), halves, on_update=told)
except KeyboardInterrupt:
    pass
"""


def without_hiding() -> OmniRLConfig:
    return OmniRLConfig(1, ARMS, 16, 1, 1, layout="fused", state_dropout=0.0)


def two_processes(folder: Path, interrupted: int) -> None:
    """Train in `folder`; the second process is interrupted after that update."""
    pytest.importorskip("accelerate")
    folder.mkdir()
    script = folder / "run.py"
    script.write_text(DISTRIBUTED)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(script), str(Path(__file__).parent), str(folder), str(interrupted)]
    subprocess.run(command, check=True, timeout=300)


@pytest.mark.slow
def test_two_processes_stop_together_when_one_is_told(tmp_path: Path) -> None:
    two_processes(tmp_path / "two", interrupted=2)
    assert [(tmp_path / "two" / f"seen_{rank}").read_text() for rank in (0, 1)] == ["3", "3"]
    assert load_state(tmp_path / "two")["counts"][0] == 3
    assert not (tmp_path / "two" / "model").exists()


@pytest.mark.slow
def test_two_processes_of_accelerate_train_like_one_with_all_rows(tmp_path: Path) -> None:
    two_processes(tmp_path / "two", interrupted=0)
    one = train(settings(tmp_path / "one", model=without_hiding()), bandits(4, 16))
    two = OmniRL.from_pretrained(tmp_path / "two" / "model")
    records = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for alone, together in zip(*records, strict=True):
        assert alone["steps"] == together["steps"]
        assert alone["loss"] == pytest.approx(together["loss"], rel=1e-3)
    assert records[0][0]["gradient_norm"] == pytest.approx(records[1][0]["gradient_norm"], rel=1e-5)
    assert (weights(two) - weights(one.model)).abs().mean() < 1e-3  # Adam makes much of rounding


def test_muon_has_the_matrices_of_the_trunk_and_adamw_the_rest(tmp_path: Path) -> None:
    config = settings(tmp_path)
    model = OmniRL(config.model)
    matrices, others = split_parameters(model)
    assert {name.rsplit(".", 2)[-2] for name, _ in matrices} == {"qkv_proj", "o_proj", "up_proj", "down_proj"}
    adamw, muon = make_optimizers(model, config)
    assert [id(weight) for weight in muon.param_groups[0]["params"]] == [id(weight) for _, weight in matrices]
    assert sum(len(group["params"]) for group in adamw.param_groups) == len(others)
    (alone,) = make_optimizers(model, replace(config, muon_lr=0.0))
    assert sum(len(group["params"]) for group in alone.param_groups) == len(matrices) + len(others)


def test_schedules_are_those_of_the_formulas(tmp_path: Path) -> None:
    noam = settings(tmp_path, schedule="noam", warmup=2000)
    assert [noam.rate(update - 1) for update in (500, 2000, 8000)] == pytest.approx([0.25, 1.0, 0.5])
    config = settings(tmp_path, updates=1000, warmup=50, context=256, context_start=64, context_ramp=0.4)
    rates = [config.rate(update) for update in (0, 24, 49, 500, 750, 1000)]
    assert rates == pytest.approx([0.02, 0.5, 1.0, 1.0, 0.525, 0.05])
    assert [config.length(update) for update in (0, 200, 400, 999)] == [64, 160, 256, 256]


def test_a_config_survives_its_toml_and_a_typo_is_met_with_the_nearest_key(tmp_path: Path) -> None:
    config = settings(tmp_path, segment=8, data={"num_states": 16, "mix": [0.5, 0.5], "family": "anymdp"})
    path = tmp_path / "train.toml"
    path.write_text(config.to_toml())
    assert TrainConfig.from_toml(path) == config
    path.write_text(config.to_toml().replace("muon_lr", "mounlr"))
    with pytest.raises(OmniRLError, match="did you mean 'muon_lr'"):
        TrainConfig.from_toml(path)
    path.write_text("updates = ")
    with pytest.raises(OmniRLError, match="no training config"):
        TrainConfig.from_toml(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"updates": 0}, "updates is 0"),
        ({"clip": 0.0}, "clip"),
        ({"schedule": "cosine"}, "trapezoid"),
        ({"precision": "fp16"}, "bf16"),
        ({"final_lr": 2.0}, "final_lr"),
        ({"state_weight": 1.0}, "world_model"),
        ({"threads": 2, "device": "cuda"}, "threads are for the CPU"),
        ({"threads": 2, "model": OmniRLConfig(1, 2, 8, 1, 1, dropout=0.1)}, "dropout needs threads = 1"),
    ],
)
def test_a_setting_that_cannot_be_is_named(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(OmniRLError, match=message):
        settings(tmp_path, **changes)


def test_batches_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    batch = next(bandits(4, 16))
    config = settings(tmp_path)
    with pytest.raises(OmniRLError, match="ended after 3 of 6"):
        train(config, islice(bandits(4, 16), 3))
    for changes, message in (
        ({"labels": np.full((4, 16), 7)}, "label 7"),
        ({"tags": batch["tags"][:, :5]}, "differ in shape"),
        ({"observations": batch["observations"] + 2}, "observations has id 2"),
    ):
        with pytest.raises(OmniRLError, match=message):
            train(config, iter([{**batch, **changes}]), resume=False)
    with pytest.raises(OmniRLError, match="has no rewards"):
        train(config, iter([{key: batch[key] for key in batch if key != "rewards"}]), resume=False)


def test_a_typo_in_the_data_table_is_met_with_the_nearest_key(tmp_path: Path) -> None:
    with pytest.raises(OmniRLError, match=r"\[data\].*did you mean 'num_states'"):
        train(settings(tmp_path, data={"num_state": 1}))
