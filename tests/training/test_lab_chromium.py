"""Reports and feature pages in a real Chromium, from a folder on the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from steer_asr_training.lab.browser_page import features_page, index_page
from steer_asr_training.lab.excerpts import Excerpt, mel_png, mp3
from steer_asr_training.lab.report import write_report
from tests.helpers import tone
from tests.serving.browser import browser, find_chromium
from tests.training.test_lab_report import EVIL, feature, write_run

if TYPE_CHECKING:
    import numpy as np
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium"),
]


@pytest.fixture
def page() -> Iterator[Page]:
    """A tab in which nothing may go wrong: no error in the console, no request beyond the disk."""
    pytest.importorskip("playwright.sync_api")
    with browser() as chromium:
        tab = chromium.new_page(color_scheme="dark")
        wrong: list[str] = []
        tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        tab.on("request", lambda request: None if request.url.startswith("file:") else wrong.append(request.url))
        yield tab
        assert wrong == []


def excerpt(trace: np.ndarray) -> Excerpt:
    return Excerpt(0, 0.0, 0.5, 2.0, trace, "a.png", "a.mp3", "", f"plain {EVIL}", (EVIL,), f"me, a.wav, {EVIL}")


def wait_for(page: Page, expression: str) -> None:
    """Playwright's own wait evaluates text inside the page, which the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


def test_features_can_be_sorted_found_seen_and_heard(page: Page, tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.png").write_bytes(mel_png(tone(1.0, 800.0)))
    (tmp_path / "media" / "a.mp3").write_bytes(mp3(tone(1.0, 800.0, 0.3)))
    rows = [feature(9, 0.1, 0.3, 0.7), feature(10, 0.3, 0.0, 0.9), feature(2, 0.2, 0.1, 0.8)]
    links = {9: "features-000.html#f9"}
    (tmp_path / "index.html").write_text(index_page(f"Features {EVIL}", [EVIL], rows, links), encoding="utf-8")
    trace = tone(1.0, 1.0)[::320].clip(0)
    text = features_page("Page", rows[:1], {9: [excerpt(trace)]}, before=None, after=None)
    (tmp_path / "features-000.html").write_text(text, encoding="utf-8")

    page.goto((tmp_path / "index.html").as_uri())
    first = lambda: page.locator("tbody tr:visible td:first-child").all_inner_texts()  # noqa: E731
    assert first() == ["9", "10", "2"]
    page.get_by_role("button", name="feature").click()
    assert first() == ["10", "9", "2"], "as numbers, the highest first"
    page.get_by_role("button", name="feature").click()
    assert first() == ["2", "9", "10"]
    page.get_by_role("button", name="F1").click()
    assert first() == ["10", "2", "9"]
    page.get_by_role("searchbox").fill("10.00 30.00")
    assert first() == ["9"]

    page.get_by_role("link", name="9").click()
    assert page.url.endswith("features-000.html#f9")
    picture = page.locator("figure img")
    wait_for(page, "document.querySelector('figure img').naturalWidth === 50")
    box, overlay = picture.bounding_box(), page.locator("figure svg").bounding_box()
    assert box == overlay, "the curve lies on the spectrogram"
    before = page.locator("line.at").get_attribute("x1")
    page.evaluate("const a = document.querySelector('audio'); a.muted = true; a.play()")
    wait_for(page, "document.querySelector('audio').currentTime > 0.3")
    assert page.evaluate("document.querySelector('audio').duration") == pytest.approx(1.0, abs=0.12)
    assert page.locator("line.at").get_attribute("x1") != before, "the line moves"
    assert page.locator("figcaption").inner_text().count(EVIL) == 3


def test_a_report_reads_in_the_dark(page: Page, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    page.goto(write_report(run, tmp_path / "report").as_uri())
    assert page.locator("figure svg").count() == 8
    colours = "getComputedStyle(document.querySelector(selector))"
    text = page.evaluate(f"selector => {colours}.fill", "figure svg text")
    background = page.evaluate(f"selector => {colours}.backgroundColor", "body")
    lightness = [sum(map(int, json.loads(f"[{c.split('(')[1].rstrip(')')}]")[:3])) for c in (text, background)]
    assert lightness[0] - lightness[1] > 450, "light text on a dark page"
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1], "nothing runs off the page"
