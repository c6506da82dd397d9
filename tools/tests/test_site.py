"""The site has a page for every package, asks no other machine, and fits a phone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

import site_pages

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ViewportSize

ROOT = Path(__file__).resolve().parents[2]
WIDE: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def site() -> Path:
    """What `make docs` has built; its own tests are marked `site`."""
    folder = ROOT / "site"
    assert (folder / "index.html").exists(), "there is no site: run make docs"
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of the system, or the one that `playwright install chromium` brought."""
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = shutil.which("chromium") or (own if Path(own).exists() else None)
        if found is None:
            pytest.skip("no Chromium found (apt-get install chromium, or playwright install chromium)")
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
        browser = playwright.chromium.launch(executable_path=found, args=options)
        yield browser
        browser.close()


def test_the_reference_is_of_what_can_be_imported() -> None:
    (omnirl,) = (package for package in site_pages.packages() if package.name == "omnirl")
    sections = re.findall(r"^::: omnirl\.(\S+)", omnirl.reference(), flags=re.MULTILINE)
    assert {"data", "errors"} <= set(sections)
    assert not {"cli", "cli_environments", "cli_files", "terminal", "reproduce"} & set(sections)


@pytest.mark.site
def test_every_package_has_its_pages(site: Path) -> None:
    names = {path.parent.name for path in ROOT.glob("packages/*/pyproject.toml")}
    for folder in ("packages", "reference"):
        assert {path.stem for path in (site / folder).glob("*.html")} == names


@pytest.mark.site
def test_pages_ask_nobody_and_fit(site: Path, browser: Browser) -> None:
    page = browser.new_page(viewport=PHONE)
    page.set_default_timeout(600_000)  # the page of claims has all figures in it, and the machine may be busy
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    wide = []
    for html in sorted(site.rglob("*.html")):
        if html.name == "404.html":  # its links are absolute: it is shown for any address of a server
            continue
        page.goto(html.as_uri())
        for size in (PHONE, WIDE):  # the page is loaded once and has to fit both
            page.set_viewport_size(size)
            page.wait_for_load_state("load")
            if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
                wide.append((html.relative_to(site).as_posix(), size["width"]))
    page.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert errors == []
    assert wide == []


def test_links_of_a_readme_lead_to_the_pages_of_the_site() -> None:
    source = ROOT / "packages" / "lpa" / "README.md"
    targets = {ROOT / "packages" / "tenfold" / "README.md": "packages/tenfold.md"}
    text = (
        '[a](../tenfold/README.md#use) ![b](../../docs/floors.svg) <img src="../../docs/floors.svg">'
        " [c](https://arxiv.org/abs/1) [d](#here) [e](src/lpa/layers.py)"
        " [f](../../docs/results) [g](../../docs/benchmarks/lpa)"
    )
    assert site_pages.relink(text, source, "packages/lpa.md", targets) == (
        '[a](tenfold.md#use) ![b](../floors.svg) <img src="../floors.svg">'
        " [c](https://arxiv.org/abs/1) [d](#here) [e](src/lpa/layers.py)"
        " [f](../results/index.html) [g](../benchmarks.md#lpa)"
    )


@pytest.mark.site
def test_the_page_of_claims_has_every_paper(site: Path) -> None:
    html = (site / "results" / "index.html").read_text(encoding="utf-8")
    for paper in (ROOT / "docs" / "results").iterdir():
        assert f'id="paper-{paper.name}"' in html


def test_the_table_of_kernels_has_a_row_a_tile_and_a_column_a_target() -> None:
    row = {"kernel": "decode", "dtype": "bf16", "head_dim": 64, "regs": 70, "spill_bytes": 0}
    rows = [
        row | {"target": "sm_80", "shared": 20_480, "tensor_core": True},
        row | {"target": "gfx942", "shared": 0, "tensor_core": False},
        row | {"target": "sm_80", "shared": 41_984, "tensor_core": True, "head_dim": 128},
    ]
    assert site_pages.kernel_table(rows).splitlines() == [
        "| kernel | dtype | head_dim | sm_80 | gfx942 |",
        "|---|---|---|---|---|",
        "| `decode` | bf16 | 64 | 70 · 20 ▪ | 70 · 0 |",
        "| `decode` | bf16 | 128 | 70 · 41 ▪ |  |",
    ]
    with pytest.raises(ValueError, match="spills"):
        site_pages.kernel_table([rows[0] | {"spill_bytes": 4}])


@pytest.mark.site
def test_the_page_of_kernels_has_the_golden_tables(site: Path) -> None:
    html = (site / "kernels.html").read_text(encoding="utf-8")
    assert html.count("<code>decode_rotated</code>") == 8  # head_dim 32 to 256, bfloat16 and float32
    assert "<!-- kernels -->" not in html
