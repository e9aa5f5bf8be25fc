"""Makes the screenshots of the page in docs/: frogs, of which stock Whisper writes words.

    PYTHONPATH=.:serving python -m tests.serving.ui_screenshots docs

Needs Playwright, Chromium, Pillow and the weights of tiny.en.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from steer_asr_serving.api import create_api
from steer_asr_serving.deployment import LocalTranscriber, TranscriberReplica
from steer_asr_serving.served import Catalogue
from steer_asr_serving.settings import Settings
from tests.serving.browser import browser, served, wait_until

CLIP = Path(__file__).parents[2] / "benchmarks" / "demo" / "clips" / "frogs.flac"
WIDTH, HEIGHT, COLOURS = 1200, 900, 255
WAIT_MS = 300_000


def make(folder: Path) -> None:
    """Writes ui-light.png and ui-dark.png into `folder`."""
    settings = Settings(models=("tiny.en",), decode_processes=0, log_requests=False)
    catalogue = Catalogue.find(settings)
    transcriber = LocalTranscriber(TranscriberReplica(settings, catalogue))
    with served(create_api(settings, catalogue, transcriber)) as address, browser() as chromium:
        page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(WAIT_MS)
        page.goto(f"{address}/ui")
        wait_until(page, "document.querySelector('#model').length")
        page.set_input_files("#file", CLIP)
        page.locator("#summary").filter(has_text="Nobody speaks").wait_for()
        page.evaluate("document.querySelector('#player').currentTime = 1.5")
        page.evaluate("document.querySelector('#took').textContent = ''")  # of this machine, whatever it is busy with
        for theme in ("light", "dark"):
            page.select_option("#theme", theme)
            page.evaluate("document.activeElement.blur()")
            taken = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
            taken.quantize(COLOURS).save(folder / f"ui-{theme}.png", optimize=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
