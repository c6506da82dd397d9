"""From an experiment and a scale to a folder of results: start or resume, run, judge, draw."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tenfold.claims import judge
from tenfold.configs import config_sha256, differences, load_config, plain_config
from tenfold.environment import changes_between, describe_environment
from tenfold.errors import TenfoldError, UsageError
from tenfold.estimates import Estimate
from tenfold.experiments import Experiment
from tenfold.locks import own_lock
from tenfold.log import RunLog
from tenfold.results import ClaimResult, ClaimsFile, Environment, FigureRecord, FiguresFile, RunFolder
from tenfold.runs import Run
from tenfold.storage import Tell, move_aside, report_damage, sync_folder, write_json


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder and its judged claims."""

    folder: RunFolder
    claims: ClaimsFile


def run_experiment(
    experiment: Experiment,
    scale: str,
    *,
    assignments: Iterable[str] = (),
    results: Path = Path("results"),
    resume: bool = False,
    jobs: int | None = None,
    tell: Tell = print,
) -> Outcome:
    """Run an experiment into results/<name>/<scale>/ and judge its claims. Claims that fail are no error.

    `assignments` are `key=value` changes of the config. With `resume` an earlier run of the same config is
    continued; without it, it is moved aside. `tell` gets the messages for the person who waits.

    Raises `UsageError` for an unknown scale, a bad assignment, less than one job, a resume with another
    config, or a folder in use; `TenfoldError` if a trial or the experiment failed (it names the log).
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs}: it must be at least 1")
    assignments = list(assignments)
    config = load_config(experiment, scale, assignments)
    folder = RunFolder(Path(results) / experiment.name / scale)
    with own_lock(folder.path):
        log = RunLog(folder.log_file, tell)
        before = _prepare(folder, plain_config(config), resume, log)
        run = Run(folder.path, scale, log, jobs)
        log.write(f"{'resumed' if before else 'started'} {experiment.name} at scale {scale}")
        now = describe_environment(
            experiment.source,
            config_sha256(plain_config(config)),
            before.seeds if before else (),
            assignments,
        )
        environment = _write_environment(folder, now, before, log)
        for name in dict.fromkeys(name for claim in experiment.claims for name in claim.needs):
            run.has_data(name)  # before the work, so that a name that nobody knows is found out now
        metrics = _measure(experiment, config, run)
        folder.write_metrics(metrics)
        seeds = sorted({trial.seed for trial in run.trials})
        write_json(folder.environment_file, environment.model_copy(update={"seeds": seeds}))
        claims = _judge(experiment, scale, metrics, run)
        write_json(folder.claims_file, claims)
        _draw(experiment, config, metrics, run, folder)
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
        log.write("finished")
    return Outcome(folder, claims)


def _prepare(folder: RunFolder, config: Mapping[str, Any], resume: bool, log: RunLog) -> Environment | None:
    """Make the folder ready; return the environment of the run that is resumed, if one is."""
    if not folder.path.exists():
        folder.path.mkdir(parents=True)
    elif not resume and any(folder.path.iterdir()):
        aside = move_aside(folder.path, "old")
        folder.path.mkdir()
        log.tell(f"The earlier run was moved to {aside}; to continue a run, give --resume.")
    environment = folder.read_environment(log.tell)
    _check_same_config(folder, config, environment, log)
    folder.write_config(config)
    folder.read_metrics(log.tell)  # written again at the end; read here to move damaged ones aside by name
    folder.read_claims(log.tell)
    folder.read_figures(log.tell)
    return environment


def _check_same_config(
    folder: RunFolder, config: Mapping[str, Any], environment: Environment | None, log: RunLog
) -> None:
    stored = folder.read_config(log.tell)
    known = environment.config_sha256 if environment is not None else None
    if stored is not None and known is not None and config_sha256(stored) != known:
        report_damage(
            folder.config_file, "it is not the config that environment.json gives the sum of", log.tell
        )
        stored = None
    if stored is None:
        if folder.records_file.exists() and known != config_sha256(config):
            raise UsageError(
                f"{folder.config_file} is lost, and the trials that finished in {folder.path} "
                "cannot be told to have the present config; run again without --resume"
            )
        return
    changed = differences(stored, config)
    if changed:
        listed = "; ".join(
            f"{key} was {_shown(old)}, is now {_shown(new)}" for key, (old, new) in changed.items()
        )
        raise UsageError(
            f"{folder.path} was started with another config: {listed}. "
            "Resume it with the same --set, or run without --resume to start anew"
        )


def _shown(value: Any) -> str:
    return "absent" if value is None else repr(value)


def _write_environment(
    folder: RunFolder, environment: Environment, before: Environment | None, log: RunLog
) -> Environment:
    if before is not None:
        changes = changes_between(before, environment)
        if changes:
            log.tell(f"The run is resumed in another environment ({'; '.join(changes)}).")
        environment = environment.model_copy(
            update={"changed_on_resume": [*before.changed_on_resume, *changes]}
        )
    write_json(folder.environment_file, environment)
    return environment


def _measure(experiment: Experiment, config: BaseModel, run: Run) -> dict[str, Estimate]:
    try:
        measured = experiment.run(config, run)
        return {str(name): Estimate.of(value) for name, value in measured.items()}
    except TenfoldError:
        raise
    except Exception as error:
        raise _failure(f"experiment {experiment.name}", error, run) from error


def _failure(what: str, error: Exception, run: Run) -> TenfoldError:
    run.log.write(f"{what} failed\n{traceback.format_exc()}")
    reason = "".join(traceback.format_exception_only(error)).strip()
    return TenfoldError(f"{what} failed: {reason}\nThe traceback is in {run.log.path}.")


def _judge(experiment: Experiment, scale: str, metrics: Mapping[str, Estimate], run: Run) -> ClaimsFile:
    return ClaimsFile(
        experiment=experiment.name,
        title=experiment.title,
        paper=experiment.paper,
        url=experiment.url,
        summary=experiment.summary,
        scale=scale,
        finished=datetime.now(UTC).replace(microsecond=0),
        claims=[
            ClaimResult.of(claim, metrics, *judge(claim, metrics, scale, run.has_data))
            for claim in experiment.claims
        ],
    )


def _draw(
    experiment: Experiment, config: BaseModel, metrics: Mapping[str, Estimate], run: Run, folder: RunFolder
) -> None:
    """Draw into a new folder that takes the place of the old one when all figures are there."""
    if experiment.figures is None:
        return
    fresh = folder.path / "figures.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        figures = experiment.figures(config, metrics, run.records(), fresh)
    except Exception as error:
        raise _failure(f"the figures of {experiment.name}", error, run) from error
    listed = [
        FigureRecord(file=_name_in(fresh, Path(figure.path)), caption=figure.caption) for figure in figures
    ]
    write_json(fresh / "figures.json", FiguresFile(figures=listed))
    shutil.rmtree(folder.figures, ignore_errors=True)
    fresh.rename(folder.figures)
    sync_folder(folder.path)


def _name_in(folder: Path, path: Path) -> str:
    name = path.relative_to(folder) if path.is_relative_to(folder) else path
    if not (folder / name).is_file() or name.is_absolute():
        raise TenfoldError(f"the figure {path} was not written into the folder that the experiment was given")
    return name.as_posix()
