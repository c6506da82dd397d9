"""One page that sets a synthetic corpus beside a human one; it needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from toedit.analysis.embedding import embed_2d
from toedit.analysis.ngrams import concentration, hashed_ngrams, top_ngrams
from toedit.analysis.perplexity import coverage, ppl_histogram
from toedit.errors import MissingExtraError, ToEditError
from toedit.randomness import seeded_generator

_NAMES = ("human", "synthetic")
_COLOURS = ("#2a6f97", "#d1495b")
_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}svg{max-width:100%;height:auto}
td,th{padding:.25rem .8rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}"""


def write_report(
    path: str | Path,
    human: Sequence[str],
    synthetic: Sequence[str],
    *,
    human_ppl: ArrayLike | None = None,
    synthetic_ppl: ArrayLike | None = None,
    texts_on_map: int = 300,
    seed: int = 0,
) -> Path:
    """Write the page and return its path: n-grams, a map, and perplexities if a prior has given them.

    The perplexities are one a document. The map shows at most `texts_on_map` texts of each corpus, drawn with
    `seed`. The same arguments give the same page. Raises `ToEditError` without matplotlib and scikit-learn,
    for a corpus without words, and for perplexities of one corpus only.
    """
    if (human_ppl is None) != (synthetic_ppl is None):
        raise ToEditError("perplexities are compared: give both human_ppl and synthetic_ppl, or none")
    corpora = (list(human), list(synthetic))
    parts = [
        "<h1>Synthetic text beside human text</h1>",
        f"<p>{len(corpora[0])} human and {len(corpora[1])} synthetic texts.</p>",
        *_concentrations(corpora),
        *_frequent(corpora),
    ]
    if human_ppl is not None and synthetic_ppl is not None:
        parts += _perplexities(human_ppl, synthetic_ppl)
    parts += _map(corpora, texts_on_map, seed)
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Human and synthetic text</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>"
    )
    path = Path(path)
    path.write_text(page, encoding="utf-8")
    return path


def _concentrations(corpora: Sequence[list[str]]) -> list[str]:
    counts = [hashed_ngrams(texts) for texts in corpora]
    for name, count in zip(_NAMES, counts, strict=True):
        if not count.any():
            raise ToEditError(f"the {name} texts hold no words, so there is nothing to compare")
    found = [concentration(count) for count in counts]
    rows = [
        ["1- and 2-grams", *(f"{count.sum():,}" for count in counts)],
        ["entropy, nats", *(f"{one.entropy:.3f}" for one in found)],
        ["effective buckets, e^H", *(f"{one.effective_buckets:,.0f}" for one in found)],
        ["Gini", *(f"{one.gini:.3f}" for one in found)],
        ["share of the fullest 1 % of buckets", *(f"{one.top_share:.1%}" for one in found)],
    ]
    figure, axes = _axes()
    for name, colour, count in zip(_NAMES, _COLOURS, counts, strict=True):
        axes.loglog(
            np.arange(1, len(count) + 1), np.sort(count)[::-1] / count.sum(), color=colour, label=name
        )
    axes.set(xlabel="buckets, fullest first", ylabel="share of all n-grams")
    axes.legend()
    return [
        "<h2>Hashed n-grams</h2>",
        "<p>In 10,000 buckets. Larger corpora fill more of them: compare corpora of equal size.</p>",
        _table(["", *_NAMES], rows),
        _svg(figure),
    ]


def _frequent(corpora: Sequence[list[str]], k: int = 15) -> list[str]:
    tops = [top_ngrams(texts, n=2, k=k) for texts in corpora]
    rows = [
        [cell for top in tops for cell in (top[rank] if rank < len(top) else ("", ""))]
        for rank in range(max(map(len, tops)))
    ]
    return ["<h2>Most frequent 2-grams</h2>", _table(["human", "times", "synthetic", "times"], rows)]


def _perplexities(human: ArrayLike, synthetic: ArrayLike) -> list[str]:
    edges, shares = ppl_histogram(human, synthetic)
    figure, axes = _axes()
    for name, colour, share in zip(_NAMES, _COLOURS, shares, strict=True):
        axes.stairs(share, edges, color=colour, label=name, fill=True, alpha=0.5)
    axes.set(xscale="log", xlabel="perplexity under the prior", ylabel="share of documents")
    axes.legend()
    low, high = np.quantile(np.asarray(synthetic, dtype=np.float64), [0.01, 0.99])
    values = np.asarray(human, dtype=np.float64)
    inside = np.mean((values >= low) & (values <= high))
    return [
        "<h2>Perplexities</h2>",
        f"<p>The synthetic 1 % to 99 % quantiles, {low:.2f} to {high:.2f}, cover "
        f"{coverage(human, synthetic):.1%} of the human range; {inside:.1%} of the human documents lie there."
        "</p>",
        _svg(figure),
    ]


def _map(corpora: Sequence[list[str]], most: int, seed: int) -> list[str]:
    random = seeded_generator(seed)
    chosen = [[texts[i] for i in random.permutation(len(texts))[:most]] for texts in corpora]
    points = embed_2d(chosen[0] + chosen[1], seed=seed)
    figure, axes = _axes()
    for name, colour, part in zip(_NAMES, _COLOURS, np.split(points, [len(chosen[0])]), strict=True):
        axes.scatter(part[:, 0], part[:, 1], s=9, color=colour, label=name, alpha=0.7)
    axes.set(xticks=[], yticks=[])
    axes.legend()
    return ["<h2>Map</h2>", "<p>TF-IDF, 50 singular vectors, t-SNE: alike texts lie near.</p>", _svg(figure)]


def _axes() -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("the report needs matplotlib: pip install 'toedit[analysis]'") from error
    figure = Figure(figsize=(7, 4), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any) -> str:
    import matplotlib

    written = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "toedit"}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    text = written.getvalue()
    return text[text.index("<svg") :]


def _table(header: list[str], rows: list[list[Any]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
