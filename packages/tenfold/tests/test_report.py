"""The page says what the results say; how it looks in a browser is in test_report_in_browser.py."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image

from tenfold import AtLeast, Below, Claim, UsageError, find_experiment, run_experiment
from tenfold.figures import save
from tenfold.report import write_report
from tenfold.results import FigureRecord, FiguresFile, RunFolder
from tenfold.storage import write_json

if TYPE_CHECKING:
    from conftest import Paper

Finish = Callable[..., RunFolder]


def text_of(page: Path) -> str:
    """What the page says, its markup and style taken away."""
    body = page.read_text(encoding="utf-8").partition("<body>")[2]
    return re.sub(
        r"\s+",
        " ",
        html.unescape(re.sub(r"<wbr>|<[^>]*>", lambda tag: "" if tag[0] == "<wbr>" else " ", body)),
    )


def rows_of(page: Path) -> list[list[str]]:
    """The rows of the summary, a text a cell."""
    summary = page.read_text().partition('<table class="claims">')[2].partition("</table>")[0]
    rows = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in summary.split("<tr")[2:]]
    return [[" ".join(html.unescape(re.sub(r"<[^>]*>", " ", cell)).split()) for cell in row] for row in rows]


def test_the_summary_has_a_row_a_claim_with_the_papers_number_ours_and_the_verdict(
    tmp_path: Path, finished_run: Finish
) -> None:
    finished_run(tmp_path)
    page = write_report(tmp_path, pytest.fail)
    assert page == tmp_path / "index.html"
    # t(0.975, 2) s / sqrt(3) = 4.3027 * 0.1 / 1.7321 = 0.2484
    assert rows_of(page) == [
        ["A small paper"],
        ["C1 The error is smaller.", "–", "0.2 [−0.04841, 0.4484] nats", "✓ held", "quick"],
        ["C2 It is fast.", "1,234", "−2", "✗ did not hold", "quick"],
        ["C3 It scales.", "to 8 GPUs", "−2", "– not tested at this scale", "quick"],
        ["C4 It reads books.", "–", "−2", "– not tested data books not available", "quick"],
    ]


def test_a_mean_that_is_not_finite_is_shown_without_an_interval(tmp_path: Path, finished_run: Finish) -> None:
    finished_run(tmp_path, claims=[Claim("C1", "It ends.", "page 1", "diverged", Below(2), unit="s")])
    page = write_report(tmp_path, pytest.fail)
    assert rows_of(page)[1] == ["C1 It ends.", "–", "inf s", "✗ did not hold", "quick"]
    assert "nan" not in text_of(page)


def test_a_section_has_all_that_is_needed_to_doubt_a_claim(tmp_path: Path, finished_run: Finish) -> None:
    finished_run(tmp_path)
    text = text_of(write_report(tmp_path, pytest.fail))
    assert "A small paper Doe, 1999 It is small." in text
    assert "error < error_plain" in text
    assert "speed ≥ 1,234 (the paper)" in text
    assert "1,234 (table 1)" in text
    assert "One machine." in text
    assert "error_plain 0.6 [0.3516, 0.8484] 0.5 0.6 0.7" in text  # what it was compared with, seed by seed
    assert "Finished 2 January 2026, 03:04 UTC." in text
    assert "seeds = [ 0, 1, 2, ]" in text
    assert 'href="https://example.org/1"' in (tmp_path / "index.html").read_text()


def test_verdicts_are_counted_for_every_scale(tmp_path: Path, finished_run: Finish) -> None:
    finished_run(tmp_path)
    finished_run(tmp_path, scale="paper")
    text = text_of(write_report(tmp_path, pytest.fail))
    assert "Scale held did not hold not tested quick 1 1 2 paper 1 2 1" in text


def test_a_claim_tested_at_two_scales_has_a_row_for_each_and_one_article(
    tmp_path: Path, finished_run: Finish
) -> None:
    finished_run(tmp_path, scale="laptop")
    finished_run(tmp_path, scale="quick")
    page = write_report(tmp_path, pytest.fail)
    assert [(row[0][:2], row[-1]) for row in rows_of(page)[1:3]] == [("C1", "quick"), ("C1", "laptop")]
    assert page.read_text().count('<article class="claim"') == 4


def test_a_claim_whose_rule_changed_between_two_runs_stands_twice(
    tmp_path: Path, finished_run: Finish
) -> None:
    finished_run(tmp_path, claims=[Claim("C1", "Fast.", "table 1", "speed", AtLeast(0))])
    finished_run(tmp_path, scale="laptop", claims=[Claim("C1", "Fast.", "table 1", "speed", AtLeast(-9))])
    page = write_report(tmp_path, pytest.fail)
    assert page.read_text().count('<article class="claim"') == 2
    assert "speed ≥ 0" in text_of(page)
    assert "speed ≥ −9" in text_of(page).replace("-", "−")


def test_a_real_run_shows_where_it_was_made_and_how_to_make_it_again(
    install: Callable[..., Paper], source: str, tmp_path: Path
) -> None:
    paper = install({"__init__.py": with_figure(source)})
    done = paper.tenfold(
        "run", "growth", "--set", "steps=3", "--resume", "--results", "my results", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    page = write_report(tmp_path / "my results", pytest.fail)
    text = text_of(page)
    assert "tenfold run growth --scale" not in text  # the command as it was given, which named no scale
    assert "tenfold run growth --set steps=3 --results 'my results'" in text
    assert "seeds 0, 1, 2" in text
    assert re.search(r"pydantic 2\.\d+", text)
    assert re.search(r"\d+ usable", text)
    assert "Figure 1. Growth, seed by seed." in text
    assert re.search(
        r'<img src="data:image/svg\+xml;base64,[\w+/=]{1000,}" alt="Growth, seed by seed."', page.read_text()
    )


def with_figure(source: str) -> str:
    """Let the paper draw."""
    head, middle, end = source.partition("EXPERIMENT = ")
    drawn = """
def figures(config, metrics, records, folder):
    from matplotlib.figure import Figure as Canvas
    from tenfold.figures import Figure, save, style
    with style():
        canvas = Canvas(figsize=(9, 3))
        axes = canvas.subplots()
        for steps, values in records.curve("fast", "x").values():
            axes.plot(steps, values)
    return [Figure(save(canvas, folder, "growth"), "Growth, seed by seed.")]

"""
    return head + drawn + middle + end.replace("claims=CLAIMS,", "claims=CLAIMS,\n    figures=figures,")


def test_a_run_started_by_the_paper_s_own_command_keeps_what_it_changed(
    paper: Paper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bin/growth", "reproduce", "--resume", "--set", "steps=3"])
    run_experiment(find_experiment("growth"), "quick", assignments=["steps=3"], results=tmp_path, tell=str)
    assert "tenfold run growth --set steps=3" in text_of(write_report(tmp_path, pytest.fail))


def test_a_run_started_from_python_says_the_command_that_makes_it(paper: Paper, tmp_path: Path) -> None:
    run_experiment(find_experiment("growth"), "quick", results=tmp_path, tell=pytest.fail)
    assert "tenfold run growth --scale quick" in text_of(write_report(tmp_path, pytest.fail))


@pytest.mark.parametrize("command", [["pytest"], ["bin/tenfold", "run", "--set", "steps=3", "growth"]])
def test_what_was_changed_is_in_the_command_however_the_run_was_started(
    paper: Paper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr("sys.argv", command)
    changes = (change for change in ["steps=3", "pause=0.0"])
    run_experiment(find_experiment("growth"), "quick", assignments=changes, results=tmp_path, tell=str)
    again = "tenfold run growth --scale quick --set steps=3 --set pause=0.0"
    assert again in text_of(write_report(tmp_path, pytest.fail))
    file = tmp_path / "growth" / "quick" / "environment.json"
    older = json.loads(file.read_text())
    del older["assignments"]
    file.write_text(json.dumps(older))
    assert "tenfold run growth --scale quick" in text_of(write_report(tmp_path, pytest.fail))


def test_an_unfinished_run_is_shown_with_the_command_that_finishes_it(
    tmp_path: Path, finished_run: Finish
) -> None:
    finished_run(tmp_path)
    finished_run(tmp_path, scale="laptop").claims_file.unlink()
    page = write_report(tmp_path, pytest.fail)
    assert ["The laptop run has not finished.", "… unfinished", "laptop"] in rows_of(page)
    assert "1 run has not finished." in text_of(page)
    assert "tenfold run small --scale laptop --resume" in text_of(page)


def test_damaged_files_are_moved_aside_and_named(tmp_path: Path, finished_run: Finish) -> None:
    folder = finished_run(tmp_path)
    for file in (folder.claims_file, folder.config_file, folder.environment_file):
        file.write_text('{"cut o')
    told: list[str] = []
    text = text_of(write_report(tmp_path, told.append))
    assert len(told) == 3
    for file in (folder.claims_file, folder.config_file, folder.environment_file):
        assert not file.exists()
        assert file.with_name(f"{file.name}.damaged-1").read_text() == '{"cut o'
        assert any(message.startswith(f"{file} is damaged") for message in told)
        assert f"{file} is damaged" in text
    assert "The quick run has not finished." in text


def test_damaged_and_missing_figures_are_named_and_the_others_shown(
    tmp_path: Path, finished_run: Finish
) -> None:
    folder = finished_run(tmp_path)
    folder.figures.mkdir()
    whole = save(Canvas(), folder.figures, "whole").read_bytes()
    image = (folder.figures / "whole.png").read_bytes()
    (folder.figures / "cut.svg").write_bytes(whole[: len(whole) // 2])
    (folder.figures / "cut.png").write_bytes(image[: len(image) // 2])
    (folder.figures / "drawing.pdf").write_text("%PDF")
    sound = ["whole.svg", "whole.png", "whole.jpg", "whole.gif", "whole.webp"]
    for name in sound[2:]:
        with Image.open(folder.figures / "whole.png") as picture:
            picture.convert("RGB").save(folder.figures / name)
    unsound = ["cut.svg", "cut.png", "gone.svg", "drawing.pdf"]
    listed = FiguresFile(
        figures=[FigureRecord(file=name, caption=f"About {name}.") for name in sound + unsound]
    )
    write_json(folder.figures / "figures.json", listed)
    told: list[str] = []
    page = write_report(tmp_path, told.append)
    assert [message.partition(" is ")[0].partition(" cannot ")[0] for message in told] == [
        str(folder.figures / name) for name in unsound
    ]
    assert (folder.figures / "cut.svg.damaged-1").exists()
    assert (folder.figures / "cut.png.damaged-1").exists()
    assert (
        re.findall(r'alt="(.*?)" width="(\d+)" height="(\d+)"', page.read_text())
        == [
            ("About whole.svg.", "614", "461"),  # matplotlib's 6.4 by 4.8 inches, 96 pixels an inch
            *((f"About {name}.", "1280", "960") for name in sound[1:]),
        ]
    )


def test_text_is_escaped_and_only_web_addresses_become_links(tmp_path: Path, finished_run: Finish) -> None:
    evil = '<script>alert(1)</script> & "more"'
    claims = [Claim("C1", evil, evil, "speed", AtLeast(0), paper_text=evil, note=evil, unit=evil)]
    folder = finished_run(
        tmp_path, claims=claims, title=evil, paper=evil, summary=evil, url="javascript:alert(1)"
    )
    folder.write_config({"note": "</code></pre><script>alert(2)</script>"})
    page = write_report(tmp_path, pytest.fail)
    content = page.read_text()
    assert "<script" not in content
    assert "javascript:" not in content
    assert text_of(page).count('<script>alert(1)</script> & "more"') >= 8
    assert "</code></pre><script>alert(2)</script>" in text_of(page)


def test_runs_that_were_moved_aside_are_not_shown(tmp_path: Path, finished_run: Finish) -> None:
    finished_run(tmp_path, title="The present one")
    finished_run(tmp_path, scale="quick.old-1", title="The old one")
    (tmp_path / "empty" / "quick").mkdir(parents=True)
    text = text_of(write_report(tmp_path, pytest.fail))
    assert "The present one" in text
    assert "The old one" not in text
    assert "empty" not in text
    assert "Claims of 1 research paper, " in text


def test_a_run_in_progress_keeps_its_records(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "small" / "quick")
    folder.path.mkdir(parents=True)
    folder.records_file.write_text('{"half a rec')
    write_report(tmp_path, pytest.fail)
    assert folder.records_file.read_text() == '{"half a rec'


def test_without_results_the_error_says_what_to_run(tmp_path: Path, paper: Paper) -> None:
    for folder in (tmp_path / "results", tmp_path / "absent"):
        with pytest.raises(
            UsageError, match=r"no results in .*: run an experiment first \(tenfold run \w+\)"
        ):
            write_report(folder)
        assert not (folder / "index.html").exists()
