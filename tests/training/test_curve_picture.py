"""What export says of a pack's strength curve: a table, a picture, how many words it stands on."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from steer_asr.pack import load_pack
from steer_asr_training.curve_picture import draw_curve
from steer_asr_training.evaluate import Outcome, summarize
from steer_asr_training.export import export
from tests.steer_asr.packs import build_pack

CURVE = (
    {"strength": 0.5, "text_rate": 0.5, "newly_empty_rate": 0.0, "changed_words": 0.0, "speech_words": 1200},
    {"strength": 1.0, "text_rate": 0.0, "newly_empty_rate": 0.01, "changed_words": 0.04, "speech_words": 1200},
)


def test_the_card_shows_the_curve(tmp_path: Path) -> None:
    folder = export(build_pack(calibration=CURVE), tmp_path / "pack")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "(strength.svg)" in card
    assert "(1,200 words)" in card
    assert "| 1.00 | 0.0% | 1.00% | 4.00% |" in card
    assert (folder / "strength.svg").read_bytes() == draw_curve(CURVE)
    assert load_pack(folder).calibration == CURVE, "a picture in the folder is no obstacle"

    bare = export(build_pack(), tmp_path / "bare")
    assert not (bare / "strength.svg").exists()
    assert "strength.svg" not in (bare / "README.md").read_text(encoding="utf-8")


def test_the_picture_has_the_points_where_they_belong() -> None:
    root = ET.fromstring(draw_curve(CURVE))
    markers = {line: _marker_places(root, line) for line in ("words changed on speech", "any text on non-speech")}
    (x0, y0), (x1, y1) = markers["words changed on speech"]
    assert x0 < x1, "by strength"
    assert y1 < y0, "more harm is higher up"
    (_, y0), (_, y1) = markers["any text on non-speech"]
    assert y1 > y0


def _marker_places(root: ET.Element, gid: str) -> list[tuple[float, float]]:
    group = next(element for element in root.iter() if element.get("id") == gid.replace(" ", "-"))
    uses = [element for element in group.iter() if element.tag.endswith("}use")]
    return [(float(use.attrib["x"]), float(use.attrib["y"])) for use in uses]


class _Store:
    windows = ({"kind": "nonspeech"}, {"kind": "speech"}, {"kind": "speech"})


def test_changed_words_are_counted_against_stock() -> None:
    def outcomes(*texts: str) -> list[Outcome]:
        return [Outcome(i, "plain", 1.0, text, 0.5, 0.5) for i, text in enumerate(texts)]

    stock = outcomes("thank you", "one two three four", "five six")
    found = summarize(outcomes("", "one too three", ""), stock, _Store())  # type: ignore[arg-type]
    assert found == {
        "text_rate": 0.0,
        "newly_empty_rate": 0.5,
        "changed_words": 4 / 6,  # too, four, five, six
        "deleted_words": 3 / 6,
        "speech_words": 6,
    }
