"""What `score --json` and `compare --json` print: the numbers of the tables, for a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medxpertqa.scores import Cell
from medxpertqa.summaries import Comparison, PairedCell, Summary


def summary_as_json(summary: Summary) -> dict[str, Any]:
    """What `score --json` prints: accuracies as shares, counts, cells, both parsers, tokens and cost."""

    def cell(found: Cell) -> dict[str, Any]:
        return {
            "n": found.n,
            "n_correct": found.n_correct,
            "accuracy": found.accuracy,
            "ci": list(found.ci),
            "standard_error": found.standard_error,
        }

    counts = ("n_records", "n_no_answer", "n_errors", "n_truncated", "n_filtered", "n_empty", "n_missing")
    return {
        "name": summary.name,
        "protocol": summary.protocol,
        "parser": summary.parser,
        "errors": summary.errors,
        **cell(summary),
        **{key: getattr(summary, key) for key in counts},
        "complete": summary.complete,
        "by": _mapped(summary.by, cell),
        "parsers": {
            name: {
                "n_correct": share.n_correct,
                "accuracy": share.accuracy,
                "ci": list(share.ci),
                "n_answered": share.n_answered,
                "n_ambiguous": share.n_ambiguous,
                "rules": dict(share.rules),
            }
            for name, share in summary.parsers.items()
        },
        "disagreement": list(summary.disagreement),
        "position": summary.position
        and {
            "chi2": summary.position.chi2,
            "p_value": summary.position.p_value,
            "counts": dict(summary.position.counts),
        },
        "consistency": summary.consistency,
        "usage": {
            "input_tokens": summary.input_tokens,
            "output_tokens": summary.output_tokens,
            "cost": summary.cost,
        },
    }


def comparison_as_json(pair: Comparison, adjusted: float) -> dict[str, Any]:
    """What `compare --json` prints of a pair: shares, counts and p-values; `adjusted` is Holm's."""

    def difference(found: PairedCell) -> dict[str, Any]:
        return {
            "n": found.n,
            "difference": found.difference,
            "ci": list(found.ci),
            "p_value": found.p_value,
        }

    return {
        "names": list(pair.names),
        **difference(pair),
        "p_value_holm": adjusted,
        "mid_p": pair.mid_p,
        "only_a": pair.only_a,
        "only_b": pair.only_b,
        "by": _mapped(pair.by, difference),
        "interaction": pair.interaction
        and {
            "difference": pair.interaction.difference,
            "ci": list(pair.interaction.ci),
            "p_value": pair.interaction.p_value,
        },
    }


def _mapped(by: Mapping[str, Mapping[str, Any]], made: Any) -> dict[str, Any]:
    return {key: {value: made(cell) for value, cell in cells.items()} for key, cells in by.items()}
