"""The report of a job: one page with everything in it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from toedit.config import EditConfig
from toedit.errors import ToEditError
from toedit.job import JobSettings
from toedit.job_report import report_html, summary_rows, write_report
from toedit.manifest import Manifest, ShardRecord
from toedit.statistics import EditStats

STATS = EditStats(
    n_documents=3,
    n_empty=1,
    n_tokens=1000,
    n_scored=990,
    n_candidates=120,
    n_changed=4,
    histogram=(330, 80, 50, 40, 30, 40, 40, 50, 60, 270),
    log_p_units=-round(990 * 2.5 * 2**32),
    swap_units=round(3.6 * 2**32),
)
EXAMPLE = {"id": "d<1>", "before": "twice 60 is ", "old": "120", "new": "<b>12", "after": " & more"}


class Page(HTMLParser):
    """Checks that every element is closed in order, and collects what the page would fetch."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    settings = JobSettings(EditConfig(protect=("<code>",)), "prior")
    manifest = Manifest(tmp_path / "out", {"settings": settings.to_dict(), "inputs": {}}, False)
    record = ShardRecord("data/a.jsonl", 0, 1, 4, 3, 1, 9, "0", {}, STATS, [EXAMPLE] * 90)
    manifest.add(record)
    manifest.close()
    rows = [{"perplexity": perplexity} for perplexity in (1.0, 12.0, 13.0, 2000.0, None)]
    (tmp_path / "out" / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bad = {"input": "a.jsonl", "row": 2, "id": None, "reason": "the line is not JSON: <", "line": "{"}
    (tmp_path / "out" / "quarantine.jsonl").write_text(json.dumps(bad) + "\n")
    return tmp_path / "out"


def test_the_page_is_whole_and_fetches_nothing(folder: Path) -> None:
    html = write_report(folder).read_text()
    page = Page(html)
    assert page.open == []
    assert page.fetched == []
    assert "<script" not in html
    assert "@import" not in html


def test_the_bars_of_the_perplexities_say_where_they_begin(folder: Path) -> None:
    html = report_html(folder)
    for start in ("1", "1.58", "10", "158", "1,585"):  # five bars a factor of ten
        assert f">{start}</text>" in html


def test_candidates_and_changes_are_counted_apart_with_the_perplexity(folder: Path) -> None:
    numbers = {what: number for what, number, _ in summary_rows(STATS, 1)}
    assert numbers["candidates"] == "120"
    assert numbers["changed"] == "4"
    assert numbers["expected"] == "3.6"
    assert numbers["swap"] == "3.000%"  # 3.6 of 120
    assert numbers["perplexity"] == "12.182"  # e^2.5
    html = report_html(folder)
    for what, number in numbers.items():
        assert f'<th>{what}</th><td class="n">{number}</td>' in html


def test_where_nothing_was_scored_or_drawn_no_nan_is_shown() -> None:
    numbers = {what: number for what, number, _ in summary_rows(EditStats(n_documents=1, n_empty=1), 0)}
    assert (numbers["perplexity"], numbers["swap"], numbers["changed"]) == ("none", "none", "0")


def test_histograms_show_the_shares_of_their_bins(folder: Path) -> None:
    tokens, documents = re.findall(r"<svg.*?</svg>", report_html(folder), flags=re.DOTALL)
    assert re.findall(r">([\d.]+%)<", tokens)[::9] == ["33.3%", "27.3%"]
    assert [title for title in re.findall(r"<title>(\d+)</title>", documents) if title != "0"] == [
        "1",
        "2",
        "1",
    ]


def test_edits_reasons_and_settings_are_shown_as_text(folder: Path) -> None:
    html = report_html(folder)
    assert html.count("<del>120</del><ins>&lt;b&gt;12</ins> &amp; more") == 40
    assert "a.jsonl, row 2" in html
    assert "the line is not JSON: &lt;" in html
    assert "&lt;code&gt;" in html


def test_a_folder_without_a_job_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(ToEditError, match=r"holds no results of `toedit edit`: there is no manifest\.jsonl"):
        report_html(tmp_path)
