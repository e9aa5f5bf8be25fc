"""The page in a real, headless Chromium."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from steer_asr_serving.api import create_api
from steer_asr_serving.deployment import Job, LocalTranscriber, Outcome, Piece, TranscriberReplica
from steer_asr_serving.served import Catalogue
from steer_asr_serving.settings import Settings
from tests.helpers import noise
from tests.serving.browser import WAIT_MS, browser, find_chromium, served, wait_until
from tests.serving.conftest import as_wav
from tests.serving.scripted_whisper import TEXT
from tests.serving.test_auth import KEYS, configured

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("playwright.sync_api", reason="needs Playwright (the dev dependencies have it)")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="needs a Chromium: apt-get install chromium"),
]

SOUND = {"name": "sound.wav", "mimeType": "audio/wav", "buffer": as_wav(noise(3.0))}
MARKUP = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
NOTHING = "(writes nothing)"


@dataclass
class Saying:
    """Says `text` instead of what the model wrote, if there is one."""

    real: LocalTranscriber
    text: str | None = None
    jobs: list[Job] = field(default_factory=list)

    async def transcribe(self, job: Job) -> Outcome:
        self.jobs.append(job)
        outcome = await self.real.transcribe(job)
        if self.text is None:
            return outcome
        segments = tuple(replace(segment, text=self.text) for segment in outcome.transcription.segments[:1])
        said = replace(outcome.transcription, text=self.text, segments=segments)
        return replace(outcome, transcription=said)

    def stream(self, job: Job) -> AsyncGenerator[Piece | Outcome, None]:
        return self.real.stream(job)

    async def ready(self) -> bool:
        return True


@dataclass
class Visit:
    """A page that is open, and what came of it."""

    page: Page
    transcriber: Saying
    address: str
    asked: list[str]
    complaints: list[str]

    def text(self, name: str) -> str:
        return self.page.locator(f"#{name}").inner_text()

    def upload(self, **changes: Any) -> None:
        self.page.set_input_files("#file", files=[SOUND | changes])  # pyright: ignore[reportArgumentType]

    def wait_for(self, name: str, text: str) -> None:
        self.page.locator(f"#{name}").filter(has_text=text).wait_for(state="attached")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as launched:
        yield launched


@pytest.fixture
def visit(
    chromium: Browser, replica: TranscriberReplica, served_settings: dict[str, Any]
) -> Iterator[Callable[..., Visit]]:
    """`visit(text, **settings)` opens the page. No request may leave its origin, and no rule of its policy break."""
    open_ones: list[Any] = []
    visits: list[Visit] = []

    def go(text: str | None = None, **settings: Any) -> Visit:
        checked = Settings(**served_settings | settings)
        transcriber = Saying(LocalTranscriber(replica), text)
        serving = served(create_api(checked, Catalogue.find(checked), transcriber))
        address = serving.__enter__()
        page = chromium.new_page(color_scheme="light")
        open_ones.append((page, serving))
        page.set_default_timeout(WAIT_MS)
        visit = Visit(page, transcriber, address, [], [])
        visits.append(visit)
        page.on("request", lambda request: visit.asked.append(request.url))
        page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        page.on("console", lambda said: visit.complaints.append(said.text) if said.type == "error" else None)
        page.goto(f"{address}/ui")
        wait_until(page, "document.querySelector('#model').length || !document.querySelector('#key-form').hidden")
        return visit

    yield go
    for page, serving in open_ones:
        page.close()
        serving.__exit__(None, None, None)
    for visit in visits:
        for url in visit.asked:
            assert url.startswith((f"{visit.address}/ui", f"blob:{visit.address}/")), url
        assert not [said for said in visit.complaints if not said.startswith("Failed to load resource")]


def test_a_file_is_shown_and_the_slider_steers_it_again(visit: Callable[..., Visit]) -> None:
    seen = visit()
    seen.upload()
    seen.wait_for("summary", "Steering left out 5 of 5 words. Nobody speaks: 100 %.")
    assert seen.page.locator("#stock del").inner_text() == TEXT
    assert seen.text("steered") == NOTHING
    assert seen.text("error") == ""

    seen.page.locator("#strength").focus()
    seen.page.keyboard.press("Home")
    seen.wait_for("summary", "Both write the same words.")
    assert (seen.text("steered"), seen.text("strength-said")) == (TEXT, "0 %")
    assert seen.page.locator("#stock del").count() == 0
    assert "encoder output kept" in seen.text("took")
    assert '"steer": "0"' in seen.text("python")
    assert [job.session is not None for job in seen.transcriber.jobs] == [True] * 3
    assert len([url for url in seen.asked if url.endswith("/ui/api/analyze")]) == 1, "the file was sent once"


def test_the_timeline_is_drawn_and_a_click_plays_from_there(visit: Callable[..., Visit]) -> None:
    seen = visit()
    seen.upload()
    seen.wait_for("summary", "Steering left out")
    labels = seen.page.locator("#timeline .label").all_inner_texts()
    assert labels == ["log-mel", "edit", "nobody speaks", "feature 7", "stock", "steered", "seconds"]
    drawn = seen.page.evaluate(
        """[...document.querySelectorAll("#timeline canvas")].map((canvas) => new Uint32Array(
        canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer)
        .reduce((colours, colour) => colours.add(colour), new Set())).map((colours) => [...colours])"""
    )
    assert [sum(map(bool, colours)) > 0 for colours in drawn] == [True] * 5 + [False, True], "steered writes nothing"
    assert len(drawn[0]) > 50, "noise has many colours"
    box = seen.page.locator("#scrub").bounding_box()
    assert box is not None
    seen.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)
    wait_until(seen.page, "document.querySelector('#player').currentTime >= 1.5")
    value = float(seen.page.locator("#scrub").get_attribute("aria-valuenow") or "nan")
    assert 1.4 <= value <= 3.0
    assert "nobody speaks 100 %" in (seen.page.locator("#scrub").get_attribute("aria-valuetext") or "")


def test_segments_are_in_the_table(visit: Callable[..., Visit]) -> None:
    seen = visit(steer="0")
    seen.upload()
    seen.wait_for("summary", "Both write the same words.")
    rows = seen.page.locator("#segment-rows tr")
    assert [row.split("\t")[:3] for row in rows.all_inner_texts()] == [
        ["0.0–0.2", "both", "Good morning."],
        ["0.2–0.4", "both", "Who is there?"],
    ]
    rows.nth(1).get_by_role("button").click()
    wait_until(seen.page, "document.querySelector('#player').currentTime >= 0.2")


def test_errors_are_told_in_words(visit: Callable[..., Visit]) -> None:
    seen = visit(max_upload_bytes=200_000, ui_max_audio_s=4)
    seen.upload(buffer=b"this is no sound at all" * 50)
    seen.wait_for("error", "audio")
    assert seen.page.locator("#error").get_attribute("role") == "alert"
    assert seen.page.locator("#results").is_hidden()
    seen.upload(buffer=bytes(300_000))
    seen.wait_for("error", "This file has 293 KB; the server takes up to 195 KB.")
    seen.upload(buffer=as_wav(noise(5.0)))
    seen.wait_for("error", "This is 5 s long; the page takes up to 4 s.")
    assert not seen.transcriber.jobs
    seen.upload()
    seen.wait_for("summary", "Steering left out")
    assert seen.text("error") == ""


def test_markup_in_texts_and_names_stays_text(visit: Callable[..., Visit]) -> None:
    seen = visit(text=MARKUP)
    title = seen.page.title()
    seen.upload(name=f"{MARKUP.replace('/', '')}.wav")
    seen.wait_for("summary", "Both write the same words.")
    assert (seen.text("stock"), seen.text("steered")) == (MARKUP, MARKUP)
    assert seen.page.locator("#segment-rows td.text").all_inner_texts() == [MARKUP]
    assert seen.page.locator("main img, main script").count() == 0
    assert seen.page.title() == title


def test_inline_script_cannot_run(visit: Callable[..., Visit]) -> None:
    """Even if markup got into the page."""
    seen = visit()
    seen.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title = 1\">')")
    seen.page.wait_for_timeout(500)
    assert seen.page.title() != "1"
    assert any("Content Security Policy" in said for said in seen.complaints)
    seen.complaints.clear()
    seen.asked[:] = [url for url in seen.asked if not url.endswith("/x")]


def test_everything_is_reached_with_the_keyboard(visit: Callable[..., Visit]) -> None:
    seen = visit()
    seen.page.on("filechooser", lambda _: None)  # whoever listens first turns it on, and is not told when it is on

    def tab_to(name: str) -> None:
        for _ in range(30):
            seen.page.keyboard.press("Tab")
            if seen.page.evaluate("document.activeElement.id") == name:
                return
        raise AssertionError(f"the keyboard does not get to {name}")

    tab_to("theme")
    tab_to("file")
    with seen.page.expect_file_chooser() as chooser:
        seen.page.keyboard.press("Enter")
    chooser.value.set_files(files=[SOUND])  # pyright: ignore[reportArgumentType]
    seen.wait_for("summary", "Steering left out 5 of 5 words.")
    tab_to("strength")
    seen.page.keyboard.press("Home")
    seen.wait_for("summary", "Both write the same words.")
    tab_to("scrub")
    seen.page.keyboard.press("ArrowRight")
    seen.page.keyboard.press("ArrowRight")
    assert seen.page.locator("#scrub").get_attribute("aria-valuenow") == "2.0"
    seen.page.keyboard.press("Home")
    assert seen.page.locator("#scrub").get_attribute("aria-valuenow") == "0.0"
    tab_to("copy-curl")
    tab_to("copy-python")


def test_the_key_is_asked_for_and_stays_out_of_addresses(visit: Callable[..., Visit]) -> None:
    key = next(iter(KEYS.values()))
    seen = visit(**configured())
    assert seen.page.locator("#key").is_visible()
    assert "API key" in seen.text("error")
    seen.page.fill("#key", "a-key-that-nobody-has")
    seen.page.keyboard.press("Enter")
    seen.wait_for("error", "a valid API key is needed")
    seen.page.fill("#key", key)
    seen.page.check("#keep-key")
    seen.page.click("#key-form button")
    seen.page.locator("#key-form").wait_for(state="hidden")
    seen.upload()
    seen.wait_for("summary", "Steering left out")
    assert "$STEER_ASR_API_KEY" in seen.text("curl")
    assert 'os.environ["STEER_ASR_API_KEY"]' in seen.text("python")
    assert key not in seen.page.content()
    assert not [url for url in seen.asked if key in url]
    assert key not in seen.page.evaluate("JSON.stringify(localStorage)")
    seen.page.reload()
    wait_until(seen.page, "document.querySelector('#model').length")
    assert seen.page.locator("#key-form").is_hidden()


def test_a_recording_that_is_gone_is_sent_again(visit: Callable[..., Visit]) -> None:
    seen = visit(ui_memory_bytes=2**20)
    seen.upload()
    seen.wait_for("summary", "Steering left out")
    seen.page.evaluate(
        """async (sound) => {
          const body = new FormData();
          body.append("model", "scripted");
          body.append("file", new Blob([Uint8Array.from(sound)]), "other.wav");
          return (await fetch("ui/api/analyze", {method: "POST", body})).status;
        }""",
        list(as_wav(noise(15.0))),
    )
    seen.page.locator("#strength").focus()
    seen.page.keyboard.press("Home")
    seen.wait_for("summary", "Both write the same words.")
    assert len([url for url in seen.asked if url.endswith("/ui/api/analyze")]) == 3
    assert seen.text("error") == ""


def test_the_microphone_is_recorded(visit: Callable[..., Visit]) -> None:
    seen = visit()
    seen.page.click("#record")
    wait_until(seen.page, "document.querySelector('#record').textContent === 'Stop'")
    seen.wait_for("recorded", "2 s")
    seen.page.click("#record")
    seen.wait_for("summary", "Steering left out 5 of 5 words.")
    assert seen.text("name").startswith("recording.")
    assert len(seen.transcriber.jobs[0].audio) > 16_000


def test_light_and_dark(visit: Callable[..., Visit]) -> None:
    """As the system is set, unless chosen otherwise; texts have a contrast of at least 4.5 to 1 (WCAG AA)."""
    seen = visit()
    paper = "getComputedStyle(document.body).backgroundColor"
    light = seen.page.evaluate(paper)
    seen.page.emulate_media(color_scheme="dark")
    dark = seen.page.evaluate(paper)
    assert light != dark
    seen.page.select_option("#theme", "light")
    assert seen.page.evaluate(paper) == light
    seen.page.reload()
    assert seen.page.evaluate(paper) == light, "the choice is kept"
    for theme in ("light", "dark"):
        seen.page.select_option("#theme", theme)
        for name in ("ink", "faint", "kept", "removed", "added", "error"):
            for ground in ("paper", "band"):
                assert contrast(colour(seen, name), colour(seen, ground)) >= 4.5, (theme, name, ground)
        assert contrast(colour(seen, "on-primary"), colour(seen, "kept")) >= 4.5, theme


def colour(seen: Visit, name: str) -> list[int]:
    text = seen.page.evaluate(
        """(name) => {
          const context = document.createElement("canvas").getContext("2d");
          context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
          return context.fillStyle;
        }""",
        name,
    )
    return [int(text[at : at + 2], 16) for at in (1, 3, 5)]


def contrast(one: list[int], other: list[int]) -> float:
    """WCAG 2's contrast ratio of two sRGB colours."""

    def luminance(channels: list[int]) -> float:
        linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
