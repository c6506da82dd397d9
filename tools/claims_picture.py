"""Take the README's picture: the top of the page of claims, made of the published runs, as docs/claims.png.

    python tools/claims_picture.py       # after tools/publish_results.py

Needs Chromium (apt-get install chromium, or playwright install chromium).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tenfold.report import report_page

DOCS = Path(__file__).resolve().parent.parent / "docs"


def main() -> None:
    """Draw the page and photograph what fits the window."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "index.html"
        page.write_text(report_page(DOCS / "results", sys.exit), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": 1200, "height": 1000}, color_scheme="light")
        window.goto(page.as_uri(), timeout=300_000)
        window.screenshot(path=DOCS / "claims.png")
        browser.close()


if __name__ == "__main__":
    main()
