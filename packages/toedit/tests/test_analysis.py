"""Perplexities, the map and the page of two corpora."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import toedit
from toedit import ToEditError
from toedit.analysis import concentration, coverage, embed_2d, ppl_histogram, write_report

SEA = [f"the ship number {row} sailed over the deep blue sea to harbour {row % 5}" for row in range(40)]
CODE = [f"def function_{row}(x): return x + {row % 7} # python adds" for row in range(40)]


def test_coverage_by_hand() -> None:
    human = np.linspace(1, 101, 50)
    # Quantiles of 1 .. 21 in even steps: 1.2 and 20.8, of a range of 100.
    assert coverage(human, np.linspace(1, 21, 2001)) == pytest.approx(0.196)
    assert coverage(human, np.linspace(1, 1000, 99_999)) == pytest.approx((101 - 10.99) / 100)
    assert coverage(human, human * 1000) == 0.0


def test_histogram_holds_every_document_once_on_common_edges() -> None:
    human, synthetic = np.geomspace(2, 200, 1000), np.full(7, 8.0)
    edges, shares = ppl_histogram(human, synthetic, bins=10)
    assert (edges[0], edges[-1]) == (2.0, 200.0)
    np.testing.assert_allclose(np.diff(np.log(edges)), np.log(100) / 10)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(shares[0], 0.1, atol=0.0015)
    assert shares[1].max() == 1.0
    assert ppl_histogram([3.0], bins=2)[1].sum() == 1.0


def test_the_map_keeps_two_subjects_apart_and_repeats() -> None:
    points = embed_2d(SEA + CODE, seed=1)
    assert points.shape == (80, 2)
    assert points.dtype == np.float32
    sea, code = points[:40], points[40:]
    nearest = [
        np.argsort(np.linalg.norm(points - point, axis=1))[1] // 40 for point in np.concatenate([sea, code])
    ]
    assert nearest == [0] * 40 + [1] * 40
    np.testing.assert_array_equal(points, embed_2d(SEA + CODE, seed=1))


def test_an_encoder_replaces_the_terms() -> None:
    seen = []

    def encoder(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return np.eye(len(texts))

    assert embed_2d(["a"] * 5, encoder=encoder).shape == (5, 2)
    assert seen == ["a"] * 5


class Page(HTMLParser):
    """What a page shows, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.shown: list[str] = []
        self.fetched: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [
            value for key, value in attrs if key in ("src", "href") and not str(value).startswith("#")
        ]

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


def test_the_report_stands_alone_and_repeats(tmp_path: Path) -> None:
    perplexities = {"human_ppl": np.linspace(1, 101, 40), "synthetic_ppl": np.linspace(1, 21, 40)}
    first = write_report(tmp_path / "a.html", [*SEA, "<script>&"], CODE, **perplexities)
    again = write_report(tmp_path / "b.html", [*SEA, "<script>&"], CODE, **perplexities)
    assert first.read_bytes() == again.read_bytes()
    page = Page(first.read_text(encoding="utf-8"))
    assert page.tags.count("svg") == 3
    assert not page.fetched
    assert "script" not in page.tags
    assert "41 human and 40 synthetic texts." in page.shown
    assert any("19.6% of the human range" in text for text in page.shown)
    assert page.shown[page.shown.index("the ship") + 1] == "40"


def test_without_perplexities_the_report_has_two_figures(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path / "a.html", SEA, CODE).read_text(encoding="utf-8"))
    assert page.tags.count("svg") == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: coverage([], [1.0]), "without perplexities"),
        (lambda: coverage([1.0, 2.0], [1.0, np.nan]), "perplexity 1 .* is nan"),
        (lambda: ppl_histogram([0.5]), "at least 1"),
        (lambda: coverage([2.0, 2.0], [2.0]), "are the same"),
        (lambda: embed_2d(["a", "b", "c"]), "at least 4"),
        (lambda: embed_2d(["", " ", "!", "?"]), "no words"),
        (lambda: embed_2d(["a"] * 5, encoder=lambda texts: np.ones((2, 3))), r"\(2, 3\) for 5"),
        (lambda: write_report("a.html", SEA, CODE, human_ppl=[1.0]), "both"),
        (lambda: embed_2d(SEA, seed=-1), "seed is -1; for a map"),
        (lambda: write_report("a.html", SEA, [""]), "the synthetic texts hold no words"),
        (lambda: concentration([0, 0]), "not all 0"),
    ],
)
def test_what_cannot_be_says_why(call: object, message: str) -> None:
    with pytest.raises(ToEditError, match=message):
        call()


def test_missing_extras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(ToEditError, match=r"scikit-learn: pip install 'toedit\[analysis\]'"):
        embed_2d(SEA)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ToEditError, match=r"matplotlib: pip install 'toedit\[analysis\]'"):
        write_report("a.html", SEA, CODE)


def test_the_analysis_and_the_theory_import_no_heavy_library() -> None:
    heavy = "torch", "transformers", "sklearn", "matplotlib", "scipy"
    code = (
        f"import sys, toedit; toedit.analysis, toedit.theory; print([m for m in {heavy} if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
    assert toedit.analysis.coverage is coverage
