"""The demo: its parts on made-up segments, and the whole of it on Whisper tiny.en."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_whisper.transcribe import Segment
from PIL import Image

from steer_asr.errors import ModelError, PackError, SteerOptionError
from steer_asr.manifest import Clip
from steer_asr.models import find_model
from steer_asr.pack import find_pack, save_pack
from steer_asr.transcription import FeatureActivity, SteerReport, WindowReport
from steer_asr_benchmarks.demo.__main__ import CLIPS, demo, main, pick_for_picture
from steer_asr_benchmarks.demo.compare import Comparison, dropped_by_rule
from steer_asr_benchmarks.demo.page import render_page
from steer_asr_benchmarks.demo.picture import DARK, LIGHT, draw, text_blocks
from steer_asr_benchmarks.demo.summary import summarize
from steer_asr_benchmarks.demo.table import NOTHING, render_table, shortened
from tests.steer_asr.packs import open_gate, random_pack

HOSTILE = " <script>alert('&')</script> $x_1$"


def said(text: str, start: float = 0.0, end: float = 1.0, **values: Any) -> Segment:
    given = {"no_speech_prob": 0.1, "avg_logprob": -0.2} | values
    return Segment(0, 0, start, end, text, [], compression_ratio=1.0, words=None, temperature=0.0, **given)


def window(start_s: float, weights: Sequence[float], nobody_speaks: float = 0.75) -> WindowReport:
    array = np.array(weights, np.float32)
    features = (FeatureActivity(41, 2.0, start_s, start_s + 0.1), FeatureActivity(7, 1.0, start_s, start_s + 0.1))
    return WindowReport(start_s, start_s + 0.02 * len(array), nobody_speaks, float(array.mean()), array, features)


def comparison(stock: Sequence[Segment] = (), steered: Sequence[Segment] = (), **values: Any) -> Comparison:
    kind, text = values.pop("kind", "nonspeech"), values.pop("text", "")
    report = SteerReport("pack", 1.0, "ct2", values.pop("windows", [window(0.0, [0.0] * 25 + [1.0] * 25)]))
    mel = np.random.default_rng(0).standard_normal((80, 100)).astype(np.float32)
    clip = Clip(Path(CLIPS.parent / "clips/speech-short.flac"), 1.0, text, kind, label="A <clip>")
    return Comparison(clip, 1.0, mel, tuple(stock), tuple(steered), report)


class TestCompare:
    def test_weights_of_overlapping_windows_are_the_later_ones(self) -> None:
        windows = [window(0.0, [0.25] * 40), window(0.4, [0.75] * 60)]  # 0 to 0.8 s, and on from 0.4 s past the end
        weights = comparison(windows=windows).edit_weights
        assert weights.tolist() == [0.25] * 20 + [0.75] * 30

    def test_left_out_is_found_by_words_and_not_by_time(self) -> None:
        spoken, phantom = said(" He might even have been amiable.", 0, 3), said(" He might be able to do it.", 30, 32)
        found = comparison([spoken, phantom], [said(" He might even have been, amiable", 0, 35)])
        assert [found.only_in_stock(segment) for segment in found.stock] == [False, True]

    def test_a_changed_word_is_not_left_out(self) -> None:
        found = comparison([said(" all in his power")], [said(" all in its power")])
        assert not found.only_in_stock(found.stock[0])

    @pytest.mark.parametrize(
        ("no_speech_prob", "avg_logprob", "dropped"), [(0.7, -1.2, True), (0.7, -0.9, False), (0.5, -1.2, False)]
    )
    def test_rule_is_faster_whispers(self, no_speech_prob: float, avg_logprob: float, dropped: bool) -> None:
        segments = [said("a"), said("b", no_speech_prob=no_speech_prob, avg_logprob=avg_logprob)]
        assert dropped_by_rule(segments) is dropped


class TestTable:
    def test_a_row_says_it_all(self) -> None:
        table = render_table([comparison([said(" Thank you.")])], width=120)
        [row] = [line for line in table.splitlines() if line.startswith("A <clip>")]
        assert re.split(r" {2,}", row) == ["A <clip>", "Thank you.", NOTHING, "0.75", "50%", "41, 7"]

    def test_wraps_to_the_width(self) -> None:
        table = render_table([comparison([said(" word" * 40)])], width=100)
        assert max(map(len, table.splitlines())) <= 100
        assert table.count("word") == 40

    def test_a_pack_without_a_gate_has_no_probability(self) -> None:
        table = render_table([comparison(windows=[window(0.0, [1.0], float("nan"))])], width=120)
        assert "–" in table
        assert "nan" not in table

    def test_what_the_default_rule_drops_is_marked_and_explained(self) -> None:
        table = render_table([comparison([said(" You", no_speech_prob=0.9, avg_logprob=-2)])], width=120)
        assert "You †" in table
        assert table.splitlines()[-1].startswith("† ")

    def test_loops_are_cut(self) -> None:
        assert shortened("la " * 200) == "la " * 79 + "la … (600 characters)"


def test_summary_counts_words_and_not_dots() -> None:
    quiet = [comparison([said(" Thank you.")], [said(" .")]), comparison([said(" . .")])]
    spoken = comparison([said(" red green grey you")], [said(" Red, green")], kind="mixed", text="red green blue")
    assert summarize([*quiet, spoken]) == [
        "Nobody speaks in 2 of the clips: stock Whisper writes words on 1 of them, steered Whisper on none.",
        "Somebody speaks 3 words in the others: stock Whisper makes 2 word errors (wrong, missing or added), "
        "steered Whisper 1.",
    ]


def test_picture_shows_speech_with_pauses_and_a_noise() -> None:
    speech, mixed, noise = (comparison(kind=kind) for kind in ("speech", "mixed", "nonspeech"))
    assert pick_for_picture([speech, noise, mixed, noise]) == [mixed, noise]
    assert pick_for_picture([speech]) == [speech]


def test_picture_changes_with_what_it_shows() -> None:
    plain = draw([comparison()], LIGHT, heading="h", kind="png")
    with_text = draw([comparison([said(HOSTILE)])], LIGHT, heading="h", kind="png")
    unedited = draw([comparison(windows=[window(0.0, [0.0] * 50)])], LIGHT, heading="h", kind="png")
    dark = draw([comparison()], DARK, heading="h", kind="png")
    assert draw([comparison()], LIGHT, heading="h", kind="png") == plain
    assert len({plain, with_text, unedited, dark}) == 4


def test_text_in_the_picture_keeps_to_its_time_or_joins_what_follows() -> None:
    near, far = said(" some words that need much room" * 3, 0.0, 0.2), said(" and more.", 0.2, 0.4)
    found = comparison([near, far, said(" Last.", 0.95, 1.0)], [near, far])
    [joined, last] = text_blocks(found.stock, found)
    assert joined.start_s == 0.0
    assert " ".join(joined.lines).endswith("much room and more.")
    assert (last.lines, last.removed) == (["Last."], True)
    assert last.start_s < 0.95  # moved to the left, so that it is not cut off at the edge


def test_page_escapes_what_models_write_and_loads_nothing() -> None:
    shown = [comparison([said(HOSTILE)], [said(" 1 < 2 & 3")])]
    pictures = {"light": b"light", "dark": b"dark"}
    page = render_page(shown, heading="<h>", setting="<s>", summary=["<sum>"], pictures=pictures)
    assert "<script" not in page
    assert escape(HOSTILE.strip()) in page
    assert "1 &lt; 2 &amp; 3" in page
    assert "A &lt;clip&gt;" in page
    assert {uri.split(":")[0] for uri in re.findall(r'(?:src|srcset|href)="([^"]*)"', page)} == {"data"}
    assert "default-src 'none'" in page


def test_steering_with_nothing_is_refused() -> None:
    with pytest.raises(SteerOptionError, match="nothing to compare"):
        demo(steer="off")


def test_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["demo", "--steer", "7"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("error: strength 7.0 is outside 0 to 1")


@pytest.fixture
def tiny_sha256() -> str:
    try:
        return find_model("tiny.en", local_files_only=True).sha256
    except ModelError as error:
        pytest.skip(f"no Whisper tiny.en: {error}")


def check_written(folder: Path, page_texts: Sequence[str]) -> None:
    with Image.open(folder / "demo.png") as image:
        pixels = np.asarray(image.convert("L"))
        assert image.format == "PNG"
        assert image.width > 1000
    assert len(np.unique(pixels)) > 50
    assert 0.01 < (pixels < 128).mean() < 0.9
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert [text for text in page_texts if escape(text) not in page] == []
    assert sorted(path.name for path in folder.iterdir()) == ["demo.png", "index.html"]


@pytest.mark.slow
def test_on_tiny_en_with_its_pack(tiny_sha256: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        find_pack("default", model_sha256=tiny_sha256)
    except PackError as error:
        pytest.skip(f"no default pack for tiny.en: {error}")
    demo(out=tmp_path / "demo")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Whisper tiny.en, stock and steered"
    labels = [json.loads(line)["label"] for line in CLIPS.read_text(encoding="utf-8").splitlines()]
    starts = [next(i for i, line in enumerate(lines) if line.startswith(label[:12])) for label in labels]
    assert starts == sorted(starts)
    assert lines[-2:] == [str(tmp_path / "demo" / name) for name in ("demo.png", "index.html")]
    spoken = "He might even have been made amiable himself."
    check_written(tmp_path / "demo", [*labels, spoken, "Thank you."])
    quiet = next(line for line in lines if line.startswith("Nobody speaks in 4 of the clips"))
    counts = [int(count.replace("none", "0")) for count in re.findall(r"on (\d+|none)", quiet)]
    assert counts[1] < counts[0]


@pytest.mark.slow
def test_on_tiny_en_with_any_pack(tiny_sha256: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = save_pack(random_pack(384, tiny_sha256, gate=open_gate(16)), tmp_path / "loud", card="")
    manifest = tmp_path / "clips.jsonl"
    frogs = next(json.loads(line) for line in CLIPS.read_text(encoding="utf-8").splitlines() if "frogs" in line)
    manifest.write_text(json.dumps(frogs | {"audio_filepath": str(CLIPS.parent / frogs["audio_filepath"])}) + "\n")
    demo(steer=f"{pack}@0.5", clips=manifest, out=tmp_path / "demo")
    printed = capsys.readouterr().out
    assert "Steer pack loud at strength 0.5; float32; greedy decoding" in printed
    [row] = [line for line in printed.splitlines() if line.startswith("Frogs")]
    assert "Thank you." in row
    assert "50%" in row  # an open gate gives every frame the whole edit, at half strength
    check_written(tmp_path / "demo", ["Frogs", "Thank you.", "loud"])
