"""The page as a reader sees it, in headless Chromium."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas
from matplotlib.image import imread
from playwright.sync_api import sync_playwright

from tenfold import AtLeast, Claim
from tenfold.environment import describe_environment
from tenfold.figures import save, style
from tenfold.report import write_report
from tenfold.results import FigureRecord, FiguresFile, RunFolder
from tenfold.storage import write_json

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, ViewportSize

Scheme: TypeAlias = Literal["light", "dark"]
LONG = "a_metric_with_a_name_that_is_far_longer_than_a_telephone_is_wide_" + "x" * 60
WIDE: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 360, "height": 740}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of the system, or the one that `playwright install chromium` brought."""
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = next(filter(None, map(shutil.which, NAMES)), own if Path(own).exists() else None)
        if found is None:
            pytest.skip("no Chromium found (apt-get install chromium, or playwright install chromium)")
        browser = playwright.chromium.launch(executable_path=found, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, finished_run: Callable[..., RunFolder]) -> str:
    """Two papers, one at two scales, with figures, long words and an unfinished run."""
    results = tmp_path_factory.mktemp("results of all papers")
    folder = finished_run(results)
    with style():
        canvas = Canvas(figsize=(9, 3))
        canvas.subplots().plot([1, 2, 3], [3, 1, 2])
    folder.figures.mkdir()
    record = FigureRecord(file=save(canvas, folder.figures, "curve").name, caption="A curve.")
    write_json(folder.figures / "figures.json", FiguresFile(figures=[record]))
    environment = describe_environment(Path(__file__), "0" * 64, [0, 1, 2])
    write_json(
        folder.environment_file, environment.model_copy(update={"command": ["tenfold", "run", "y" * 90]})
    )
    folder.write_config({"words": ["long"] * 80, "z" * 90: 1})
    finished_run(results, scale="laptop")
    claim = Claim("A-very-long-id", "u" * 90, "s" * 90, LONG, AtLeast(0), note="v" * 90, unit="w" * 40)
    finished_run(results, "other", claims=[claim], title="t" * 90, url="")
    finished_run(results, "other", "paper").claims_file.unlink()
    return write_report(results, pytest.fail).as_uri()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> Scheme:
    scheme: Scheme = request.param
    return scheme


def opened(
    browser: Browser,
    address: str,
    *,
    size: ViewportSize = WIDE,
    scheme: Scheme = "light",
    script: bool = True,
) -> Page:
    context = browser.new_context(viewport=size, color_scheme=scheme, java_script_enabled=script)
    page = context.new_page()
    page.goto(address)
    return page


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["desktop", "phone"])
def test_it_is_drawn_with_no_complaint_and_no_request(
    browser: Browser, address: str, size: ViewportSize, scheme: Scheme
) -> None:
    context = browser.new_context(viewport=size, color_scheme=scheme)
    page = context.new_page()
    complaints, requests = list[str](), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    pixels = imread(io.BytesIO(page.screenshot(full_page=True)))[..., :3]
    assert complaints == []
    assert [request for request in requests if not request.startswith("data:")] == [address]
    assert pixels.shape[1] == size["width"]
    corner = pixels[0, 0]
    assert (corner.mean() > 0.5) == (scheme == "light")
    drawn = (np.abs(pixels - corner).max(-1) > 0.25).mean()
    assert 0.01 < drawn < 0.9  # neither empty nor covered
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    context.close()


def test_nothing_sticks_out_of_a_phone(browser: Browser, address: str) -> None:
    page = opened(browser, address, size=PHONE)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    outside = page.evaluate(
        """[...document.querySelectorAll('body *')]
           .filter(part => !part.closest('.scroll, .plate, pre'))
           .filter(part => part.getBoundingClientRect().right > innerWidth + 1)
           .map(part => part.outerHTML.slice(0, 80))"""
    )
    assert outside == []


def test_every_link_leads_somewhere(browser: Browser, address: str) -> None:
    page = opened(browser, address)
    links = page.evaluate("[...document.querySelectorAll('a')].map(link => link.getAttribute('href'))")
    inside = {link for link in links if link.startswith("#")}
    assert set(links) - inside == {"https://example.org/1"}
    assert len(inside) > 8
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(part => part.id)")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in inside} <= set(ids)
    page.click('a[href="#claim-small-C2"]')
    assert page.evaluate("document.querySelector(':target h3').textContent").strip() == "C2 It is fast."
    assert page.locator("#claim-small-C2 h3").evaluate("part => part.getBoundingClientRect().top") < 400


def test_every_word_can_be_read(browser: Browser, address: str, scheme: Scheme) -> None:
    """WCAG 2, level AA: text has at least 4.5 times the luminance of what is behind it, or the reverse."""
    page = opened(browser, address, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    worst = page.evaluate(
        """(() => {
          const rgb = colour => colour.match(/[\\d.]+/g).map(Number);
          const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const behind = part => {
            for (; part; part = part.parentElement) {
              const colour = rgb(getComputedStyle(part).backgroundColor);
              if (colour.length < 4 || colour[3] > 0) return colour;
            }
          };
          const texts = [...document.querySelectorAll('body *')].filter(part =>
            [...part.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()));
          return texts.map(part => {
            const [ink, paper] = [light(rgb(getComputedStyle(part).color)), light(behind(part))];
            const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
            return [contrast, part.outerHTML.slice(0, 80)];
          }).sort((x, y) => x[0] - y[0])[0];
        })()"""
    )
    assert worst[0] >= 4.5, worst


def test_the_lists_choose_rows_with_no_script(browser: Browser, address: str) -> None:
    page = opened(browser, address, script=False)

    def shown() -> list[tuple[str, str]]:
        rows = page.locator(".claims tr[data-scale]").all()
        return [
            (row.get_attribute("data-verdict") or "", row.get_attribute("data-scale") or "")
            for row in rows
            if row.is_visible()
        ]

    every = shown()
    assert len(every) == 10
    page.select_option("#verdict", "held")
    assert shown() == [row for row in every if row[0] == "held"] != []
    page.select_option("#scale", "laptop")
    assert shown() == [("held", "laptop")]
    assert page.locator(".claims tr.paper").filter(visible=True).count() == 1  # no title without a row
    page.select_option("#verdict", "")
    assert shown() == [row for row in every if row[1] == "laptop"]
    page.select_option("#scale", "")
    page.select_option("#paper", "paper-other")
    assert len(shown()) == 2
    assert [part.is_visible() for part in page.locator("section.paper").all()] == [True, False]


def test_figures_stand_on_a_light_plate_in_both_schemes(
    browser: Browser, address: str, scheme: Scheme
) -> None:
    page = opened(browser, address, scheme=scheme)
    pixels = imread(io.BytesIO(page.locator(".plate").first.screenshot()))[..., :3]
    assert np.median(pixels) > 0.85  # dark ink is drawn on it


def test_it_prints_in_dark_ink_on_several_sheets(browser: Browser, address: str) -> None:
    page = opened(browser, address, scheme="dark")
    assert page.pdf(format="A4").count(b"/Type /Page\n") >= 3
    page.emulate_media(media="print")
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert max(int(part) for part in ink[4:-1].split(",")) < 80
    assert not page.locator(".filters").is_visible()
