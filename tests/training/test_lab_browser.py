"""The feature browser: what is shown, what may be heard, and that text stays text."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from steer_asr.audio import SAMPLE_RATE_HZ, decode_audio
from steer_asr.errors import SteerOptionError
from steer_asr_training.analysis.activations import clip_table
from steer_asr_training.analysis.features import feature_report, top_windows
from steer_asr_training.analysis.inputs import load_dictionary, stored_windows
from steer_asr_training.cli import app
from steer_asr_training.collect import CollectConfig, collect
from steer_asr_training.lab.browser import BrowseOptions, browse
from steer_asr_training.lab.excerpts import CutOptions, mel_png, mp3
from steer_asr_training.store import ActivationStore
from tests.helpers import tone
from tests.tiny_whisper import WIDTH
from tests.training.analysis_builders import PLAIN, orthonormal, tied, write_clips, write_sae
from tests.training.builders import POINT
from tests.training.test_lab_report import Page

EVIL = '"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def report(tiny_whisper_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """features.json of directions that mean nothing, on beeps that may be passed on and buzzes that may not."""
    folder = tmp_path_factory.mktemp("browse")
    manifest = write_clips(folder / "audio")
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        beep = row["label"] == "beep"
        row |= {"shippable": beep, "licence": "CC0" if beep else "GPL-2", "label": f"{row['label']} {EVIL}"}
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = CollectConfig(str(tiny_whisper_dir), (str(manifest),), (POINT,), PLAIN, precision="float32")
    store = ActivationStore(collect(config, folder / "store"))
    x = np.concatenate([store.window(i, POINT)[: store.n_real_frames(i)] for i in range(len(store))])
    features = tied(orthonormal(24, WIDTH), threshold=0.5, mean=x.astype(np.float32).mean(axis=0))
    sae = write_sae(folder / "sae", features, model_sha256=store.header["model_sha256"])
    dictionary = load_dictionary(sae)
    windows = stored_windows(store, dictionary)
    table = clip_table(windows, dictionary.features)
    content: dict[str, Any] = {"activations": str(folder / "store")}
    content |= feature_report(windows, dictionary, table, tops=top_windows(table, 4))
    content["features"][3]["description"] = EVIL
    path = folder / "features.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pages(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pages") / "out"
    options = ["--per-page", "10", "--seconds", "0.4", "--top", "4"]
    done = CliRunner().invoke(app, ["browse", str(report), "-o", str(out), *options])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(out / "index.html")
    return out


def html_of(pages: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(pages.glob("*.html")):
        yield path.name, path.read_text(encoding="utf-8")


def test_every_feature_that_fires_has_a_row_and_a_page(report: Path, pages: Path) -> None:
    rows = json.loads(report.read_text(encoding="utf-8"))["features"]
    alive = [row["feature"] for row in rows if row["top"]]
    assert len(alive) > 20
    index = (pages / "index.html").read_text(encoding="utf-8")
    assert index.count("<tr><td") == len(alive)
    shards = sorted(path.name for path in pages.glob("features-*.html"))
    assert shards == ["features-000.html", "features-001.html", "features-002.html"]
    for n, feature in enumerate(alive):
        page = shards[n // 10]
        assert f'href="{page}#f{feature}"' in index
        assert f'id="f{feature}"' in (pages / page).read_text(encoding="utf-8")


def test_pages_load_only_what_lies_beside_them(pages: Path) -> None:
    loaded = set()
    for name, text in html_of(pages):
        page = Page(text)
        assert page.handlers == []
        assert page.tags["script"] == 1
        assert {n for n in page.ids.values() if n > 1} == set(), name
        for target in page.loads:
            assert "://" not in target
            assert (pages / target.partition("#")[0]).is_file(), f"{target} in {name}"
            loaded.add(target)
    written = {f"media/{path.name}" for path in (pages / "media").iterdir()}
    assert written <= loaded, "nothing is written that no page shows"


def test_markup_in_labels_and_descriptions_stays_text(pages: Path) -> None:
    together = "".join(text for _, text in html_of(pages))
    assert "<script>alert" not in together
    assert "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in together


def test_only_what_may_be_passed_on_is_heard_and_credited(report: Path, pages: Path, tmp_path: Path) -> None:
    together = "".join(text for _, text in html_of(pages))
    figures = together.split("<figure")[1:]
    assert len(figures) > 60
    for figure in figures:
        heard, free = "<audio" in figure, ".wav, GPL-2" not in figure
        assert heard == free
        assert ("No sound: its licence does not say that it may be passed on (GPL-2)" in figure) == (not free)
    credits = (pages / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "- beepes, beep" in credits
    assert "synthetic: " in credits
    assert "GPL-2" not in credits

    every = browse(report, tmp_path / "every", BrowseOptions(CutOptions(0.4, all_audio=True), max_features=2))
    assert "No sound" not in "".join(text for _, text in html_of(every.parent))
    none = browse(report, tmp_path / "none", BrowseOptions(CutOptions(0.4, audio=False), max_features=2))
    assert "No sound: no sound was asked for" in "".join(text for _, text in html_of(none.parent))
    assert not list((none.parent / "media").glob("*.mp3"))
    assert len(list(none.parent.glob("features-*.html"))) == 1


def test_the_curve_is_the_activation(report: Path, pages: Path) -> None:
    content = json.loads(report.read_text(encoding="utf-8"))
    row = next(row for row in content["features"] if row["top"])
    dictionary = load_dictionary(content["dictionary"])
    windows = stored_windows(ActivationStore(content["activations"]), dictionary)
    top = row["top"][0]
    z = dictionary.features.encode(windows.frames(top["window"]))[:, row["feature"]]
    at, n = round(top["time_s"] / 0.02), 20
    first = max(0, min(at - n // 2, len(z) - n))
    section = (pages / "features-000.html").read_text(encoding="utf-8").split("<section")[1]
    points = section.split('points="')[1].split('"')[0].split()
    drawn = [(100 - float(point.split(",")[1])) / 96 for point in points]
    np.testing.assert_allclose(drawn, z[first : first + n] / z.max(), atol=0.006)
    line = float(section.split('x1="')[1].split('"')[0])
    assert line == pytest.approx(100 * (at - first + 0.5) / n, abs=0.1)


def test_excerpts_sound_and_look_like_the_audio(tmp_path: Path) -> None:
    wave = np.concatenate([np.zeros(SAMPLE_RATE_HZ // 2, np.float32), tone(0.5, 2000.0, 0.3)])
    path = tmp_path / "x.mp3"
    path.write_bytes(mp3(wave))
    heard = decode_audio(path)
    assert abs(len(heard) - len(wave)) < 0.12 * SAMPLE_RATE_HZ, "MP3 pads by a frame or two"
    spectrum = np.abs(np.fft.rfft(heard[-SAMPLE_RATE_HZ // 3 :]))
    assert spectrum.argmax() * 3 == pytest.approx(2000, abs=15)
    with Image.open(io.BytesIO(mel_png(wave))) as image:
        assert (image.mode, image.size) == ("P", (50, 80))
        pixels = np.asarray(image)
    assert pixels[:, :20].max() < pixels[:, 30:].max()
    brightest = 79 - pixels[:, 40].argmax()
    assert 42 < brightest < 55, "2 kHz lies a little above the middle of the mel scale"


def test_what_has_moved_or_is_of_others_is_refused(report: Path, tmp_path: Path) -> None:
    content = json.loads(report.read_text(encoding="utf-8"))
    moved = tmp_path / "features.json"
    moved.write_text(json.dumps(content | {"activations": str(tmp_path / "gone")}), encoding="utf-8")
    with pytest.raises(SteerOptionError, match=r"give --sae and --activations \(.*holds no activations"):
        browse(moved, tmp_path / "out")
    assert browse(
        moved, tmp_path / "out", BrowseOptions(CutOptions(audio=False), 1), activations=content["activations"]
    ).is_file()
    moved.write_text(json.dumps(content | {"windows": 5}), encoding="utf-8")
    with pytest.raises(SteerOptionError, match="is of 5 windows"):
        browse(moved, tmp_path / "other")
    moved.write_text("[]", encoding="utf-8")
    with pytest.raises(SteerOptionError, match="no report of steer-asr-train features"):
        browse(moved, tmp_path / "other")
    with pytest.raises(SteerOptionError, match="cannot be read"):
        browse(tmp_path / "gone.json", tmp_path / "other")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(SteerOptionError, match="was not made by browse"):
        browse(report, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").is_file()


def test_numbers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SteerOptionError, match="0.2 to 30 seconds"):
        CutOptions(seconds=31)
    with pytest.raises(SteerOptionError, match="per_page 0"):
        BrowseOptions(per_page=0)
    refused = CliRunner().invoke(app, ["browse", "x", "-o", "y", "--all-audio", "--no-audio"])
    assert isinstance(refused.exception, SteerOptionError)
