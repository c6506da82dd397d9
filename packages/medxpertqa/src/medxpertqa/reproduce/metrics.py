"""From the records of the runs to the metrics that the claims name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medxpertqa.stats import position_bias, wilson

Row = Mapping[str, Any]
PARSERS = ("official", "robust")


def answers_metrics(found: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of E3 to E6 from the results of the runs by arm: "cot 1", ..., "ao", "blind", "permuted"."""
    if not found:
        return {}
    runs = list(found.values())
    metrics: dict[str, float] = {
        "run_errors": sum(run["errors"] for run in runs),
        "replies_stored": sum(run["stored"] for run in runs),
        "replies_expected": sum(run["expected"] for run in runs),
        "scored_replies": sum(run["scored"] for run in runs),
        "scorer_differences": sum(run["scorer_differences"] for run in runs),
    }
    parity = [run["parity_differences"] for run in runs]
    if None not in parity:
        metrics |= {"parity_replies": metrics["scored_replies"], "parity_reply_differences": sum(parity)}
    metrics |= resume_metrics([run for run in runs if "resume" in run])
    groups = {
        "text_cot": cot_rows(found),
        "text_ao": rows_of(found, "ao"),
        "mm_blind": rows_of(found, "blind"),
    }
    for name, rows in groups.items():
        if rows:
            metrics |= accuracy_metrics(name, rows)
    if "permuted" in found:
        metrics |= permuted_metrics(rows_of(found, "permuted"))
    return metrics


def cot_rows(found: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """The rows of official-cot on Text, of all shards."""
    return [row for arm, run in found.items() if arm.startswith("cot") for row in run["rows"]]


def rows_of(found: Mapping[str, Mapping[str, Any]], arm: str) -> list[Row]:
    """The rows of one run, none if it was left out."""
    return list(found[arm]["rows"]) if arm in found else []


def right(rows: Iterable[Row], parser: str) -> list[bool]:
    """Whether each row is right as read by a parser."""
    return [row["letters"][parser] == row["label"] for row in rows]


def accuracy_metrics(name: str, rows: Sequence[Row]) -> dict[str, float]:
    """Accuracy by either parser and what both intervals have in common, in %; extraction; even letters."""
    n, metrics, lows, highs = len(rows), {}, [], []
    for parser in PARSERS:
        correct = sum(right(rows, parser))
        low, high = wilson(correct, n)
        lows.append(100 * low)
        highs.append(100 * high)
        metrics[f"{name}_accuracy_{parser}"] = 100 * correct / n
        metrics[f"{name}_extracted_{parser}"] = (
            100 * sum(row["letters"][parser] is not None for row in rows) / n
        )
    position = position_bias(
        [row["letters"]["official"] for row in rows], [row["label"] for row in rows], rows[0]["n_options"]
    )
    return metrics | {
        f"{name}_low": max(lows),
        f"{name}_high": min(highs),
        f"{name}_extracted": metrics[f"{name}_extracted_official"],
        f"{name}_disagreements": sum(row["letters"]["official"] != row["letters"]["robust"] for row in rows),
        f"{name}_position_chi2": position.chi2,
        f"{name}_position_p": position.p_value,
    }


def permuted_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Accuracy over all orders, and how many questions always get the same option's text, in %."""
    chosen: dict[str, set[int | None]] = {}
    for row in rows:
        chosen.setdefault(row["id"], set()).add(chosen_option(row))
    consistent = sum(len(options) == 1 and None not in options for options in chosen.values())
    return {
        "permuted_accuracy": 100 * sum(right(rows, "official")) / len(rows),
        "permuted_consistent": 100 * consistent / len(chosen),
    }


def chosen_option(row: Row) -> int | None:
    """The published place of the option that was chosen, None for no answer."""
    letter = row["letters"]["official"]
    if letter is None:
        return None
    place = ord(letter) - ord("A")
    return int(row["order"][place]) if row["order"] else place


def resume_metrics(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the killed runs lost and kept, summed."""
    if not runs:
        return {}
    sums = {key: sum(run["resume"][key] for run in runs) for key in ("lost", "kept", "allowed")}
    return {f"resume_{key}": value for key, value in sums.items()} | {
        "resume_missing": sum(run["missing"] for run in runs),
        "resume_twice": sum(run["twice"] for run in runs),
    }
