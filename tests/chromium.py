"""Pages in Chromium, where it is installed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    not CHROMIUM or not find_spec("playwright"),
    reason="needs Chromium and playwright: apt-get install chromium, pip install playwright",
)


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser."""
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@contextmanager
def page_from_disk(browser: Any, file: Path, width: int = 1280) -> Iterator[Any]:
    """A page of ours; it may say nothing on its console, and ask for nothing but itself."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda found: asked.append(found.url))
    page.goto(file.as_uri())
    yield page
    assert said == []
    assert asked == [file.as_uri()]
    page.close()


def figures_drawn(page: Any) -> int:
    """How many figures a page has, each of them drawn, and none wider than the screen."""
    width, figures = page.viewport_size["width"], page.locator("figure svg").all()
    for figure in figures:
        box = figure.bounding_box()
        assert box["height"] > 100
        assert 200 < box["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") == width
    return len(figures)


def check_report(file: Path) -> None:
    """The report of a run: figures are drawn, and transcripts of every kind can be searched."""
    from playwright.sync_api import expect

    with chromium() as browser:
        for width in (1280, 390):
            with page_from_disk(browser, file, width) as page:
                assert figures_drawn(page) > 5
                source = "JSON.parse(document.getElementById('transcripts-data').textContent)"
                counts, told = page.evaluate(f"{source}.counts"), page.locator("#told")
                assert counts
                for kind, (kept, _) in counts.items():
                    page.select_option("[name=kind]", kind)
                    expect(told).to_contain_text(f"{kept} found")
                    page.fill("[name=text]", "nobody wrote zyzzyvas")
                    expect(told).to_contain_text("0 found, 0 shown")
                    page.fill("[name=text]", "")
                    expect(told).to_contain_text(f"{kept} found")
