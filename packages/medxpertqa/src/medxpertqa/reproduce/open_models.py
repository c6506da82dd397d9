"""P claims: what users' runs of the paper's open models say (see `launch/`), and how long all of Text is."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from medxpertqa.errors import DataError
from medxpertqa.hub import SETS, load_questions
from medxpertqa.importing import load_results
from medxpertqa.reproduce.claims import PUBLISHED
from medxpertqa.reproduce.measuring import average_length
from medxpertqa.results import Results
from medxpertqa.summaries import summarize
from tenfold import Run


class ModelsConfig(BaseModel):
    """Where the runs are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    logs: str = Field(description="folder with the logs of each run: KEY/text, KEY/mm, KEY as in the claims")


def model_metrics(config: ModelsConfig, run: Run) -> dict[str, float]:
    """The accuracy in %, by the official parser, of each run that is whole; of others the reason is told."""
    found = {}
    for model in PUBLISHED:
        for subset in ("text", "mm"):
            folder = Path(config.logs) / model.key / subset
            if not folder.is_dir():
                continue
            results = finished_run(folder, subset, run)
            if results is not None:
                found[f"{subset}_{model.key}"] = 100 * results.accuracy
    return found | length_metrics(run)


def finished_run(folder: Path, subset: str, run: Run) -> Results | None:
    """The results of a run or a batch, if it is whole (`Summary.complete`) and was asked as officially."""
    try:
        results = load_results(folder)
    except DataError as error:
        run.log.tell(str(error))
        return None
    n, needed = len({record.id for record in results.records}), SETS[subset].size
    if n != needed:
        run.log.tell(f"{folder} has {n} of {needed} questions, so its claim is not tested")
    elif not summarize(results).complete:
        run.log.tell(f"{folder} is not complete, so its claim is not tested")
    elif not results.protocol.startswith("official-") or " without " in results.protocol:
        run.log.tell(f"{folder} was asked by {results.protocol}, so its claim is not tested")
    else:
        return results
    return None


def length_metrics(run: Run) -> dict[str, float]:
    """The average length of Text, if the hub or its cache has it."""
    try:
        return {"length_text": average_length(load_questions("text"))}
    except (DataError, ModuleNotFoundError) as error:
        run.log.tell(str(error))
        return {}
