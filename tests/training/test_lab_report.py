"""Reports: planted results come out as planted, and nothing of them becomes markup."""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from steer_asr.errors import SteerOptionError
from steer_asr_training.cli import app
from steer_asr_training.lab.pictures import Line, Picture, heatmap, layer_lines, render
from steer_asr_training.lab.report import html_page, write_report
from steer_asr_training.lab.results import layer_order, read_results, selectivity, short, telling
from steer_asr_training.lab.sections import sections

EVIL = "<img src=x onerror=alert(1)>$\\frac{"
POINTS = ("encoder.layers.1", "encoder.layers.10", "encoder.output")


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def quality(point: str, explained: float) -> dict[str, Any]:
    part = {"frames": 300, "explained_variance": explained, "fvu": 1 - explained, "mse_per_frame": 1.0, "l0": 8.0}
    arm = {"changed_words": 0.25, "wer": 0.5, "newly_empty": 0.125, "nonspeech_with_text": 0.75}
    return {
        "dictionary": f"/somewhere/{EVIL}",
        "hook_point": point,
        "windows": 6,
        "n_features": 40,
        "d_in": 16,
        "all": part,
        "parts": {"domain:speech": part, "kind:speech": part},
        "l0": {"mean": 8.0, "p5": 2, "p50": 8, "p95": 15},
        "alive": 30,
        "alive_share": 0.75,
        "density": {"log10_edges": [-2.0, -1.0, 0.0], "counts": [10, 20], "never": 10, "on_over_10_percent": 20},
        "duplicates": {
            "decoder_cosine": {"over": 0.9, "features": 4, "pairs": 2},
            "iou": {"over": 0.5, "features": 3, "pairs": 2, "of_alive": 30},
        },
        "random_sae": {"made": "x", "explained_variance": 0.0625, "l0": 8.0, "gain": 0.1},
        "splice": {"windows": 6, "frames": "all", "plain": {"stock": arm, "sae": arm}, "timestamps": {"stock": arm}},
    }


def feature(i: int, speech: float, quiet: float, f1: float) -> dict[str, Any]:
    return {
        "feature": i,
        "fires": {"all": (speech + quiet) / 2, "kind:speech": speech, "kind:nonspeech": quiet},
        "mean_when_firing": 1.5,
        "max": 3.0,
        "end_of_text": None,
        "edits": None,
        "description": f"feature {i} {EVIL}",
        "top": [],
        "frame_rates": {},
        "best_labels": [{"label": f"label:{EVIL}", "f1": f1, "always": 0.5}],
        "acoustics": None,
    }


def features(point: str) -> dict[str, Any]:
    rows = [feature(0, 0.31, 0.1, 0.9), feature(1, 0.0, 0.2, 0.6), feature(2, 0.1, 0.1, 0.4), feature(3, 0.0, 0.0, 0.2)]
    counts = {"speech": 1, "music": 2, "sounds": None}
    keys = ("frames>0.2", "frames>0.1", "clips>0.5")
    head = {"dictionary": "d", "hook_point": point, "activations": "/somewhere/acts", "windows": 6, "frames": 300}
    return head | {"alive": 3, "specialised": dict.fromkeys(keys, counts), "features": rows}


def search() -> dict[str, Any]:
    best = {"feature": 7, "f1": 0.8125, "precision": 0.7, "recall": 0.9, "f1_where_chosen": 0.9, "threshold": 1.0}
    found = {"label": f"label:{EVIL}", "windows": 3, "of": 6, "best": [best], "f1_of_always": 0.25}
    return {"dictionary": "d", "windows": 6, "labels": [found, {"label": "label:rare", "windows": 1, "best": None}]}


def write_run(folder: Path) -> Path:
    """Results at three layers."""
    for n, point in enumerate(POINTS):
        write(folder / point / "quality.json", quality(point, 0.5 + n / 8))
        write(folder / point / "features.json", features(point))
    write(folder / POINTS[0] / "search.json", search())  # older ones do not say their layer
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("planted") / "run")


@pytest.fixture(scope="module")
def report(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report, through the command line, with a copy of the results."""
    out = tmp_path_factory.mktemp("planted") / "report"
    done = CliRunner().invoke(app, ["report", str(run), "-o", str(out), "--results"])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(out / "report.html")
    return out


class Page(HTMLParser):
    """Counts tags, ids and what is loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[str(value)] += 1
            if name in ("src", "href", "xlink:href") and not str(value).startswith("#"):
                self.loads.append(str(value))
            if name.startswith("on"):
                self.handlers.append(name)


def test_a_report_shows_what_was_planted_and_says_how_to_make_the_rest(run: Path, report: Path) -> None:
    html, markdown = ((report / f"report.{suffix}").read_text(encoding="utf-8") for suffix in ("html", "md"))
    made = {section.key: section for section in sections(read_results(run))}
    table = made["quality"].tables[0].rows
    assert [row[0] for row in table[1:]] == list(POINTS), "in the order of the model"
    assert table[1][1:3] == ("0.500", "0.500")
    assert table[3][1] == "0.750"
    assert table[1][3:] == ("-", "-", "0.062", "8.0", "75.0", "10.0", "10.0")
    assert made["splice"].tables[0].rows[1] == (POINTS[0], "plain", "stock", "25.0", "50.0", "12.5", "75.0")
    assert made["domains"].tables[0].rows[1] == (POINTS[0], "speech", "25.0", "25.0", "25.0")
    assert made["domains"].tables[0].rows[3] == (POINTS[0], "sounds", "-", "-", "-")
    assert made["search"].tables[0].rows[1][1:] == ("3", POINTS[0], "7", "0.81", "0.70", "0.90", "0.25")
    assert [row[1] for row in made["features"].tables[0].rows[1:3]] == ["0", "1"]
    assert len(made["features"].tables[0].rows) == 1 + 2 * len(POINTS), "features that beat always"
    for command in ("stability", "phonemes", "boundaries", "probe", "erase"):
        assert f"<code>steer-asr-train {command} " in html
        assert f"`steer-asr-train {command} " in markdown
    assert html.count("<svg") == sum(len(section.pictures) for section in made.values()) == 8


def test_the_page_loads_nothing_and_markup_in_results_stays_text(report: Path) -> None:
    html = (report / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.loads == page.handlers == []
    assert page.tags["img"] == page.tags["script"] == page.tags["link"] == page.tags["iframe"] == 0
    assert {name: n for name, n in page.ids.items() if n > 1} == {}
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "<img" not in html
    assert "default-src 'none'" in html


def test_markdown_has_its_pictures_beside_it(report: Path) -> None:
    markdown = (report / "report.md").read_text(encoding="utf-8")
    names = [line.split("](")[1].rstrip(")") for line in markdown.splitlines() if line.startswith("![")]
    assert len(names) == 8
    for name in names:
        with Image.open(report / name) as image:
            pixels = np.asarray(image.convert("L"))
        assert pixels.shape[1] > 400
        assert pixels[0, 0] == 255, "on white"
        assert (pixels < 128).mean() > 0.001, "something is drawn"


def test_published_results_hold_no_path_of_the_machine_and_make_the_same_report(run: Path, report: Path) -> None:
    copied = {str(path.relative_to(report)): path.read_text(encoding="utf-8") for path in report.rglob("*.json")}
    assert len(copied) == 7
    assert not any(str(run) in text or "/somewhere/acts" in text for text in copied.values())
    once, twice = ([(s.key, s.tables) for s in sections(read_results(folder))] for folder in (run, report))
    assert once == twice


def test_a_run_of_the_laboratory_says_how_it_was_made_and_why_something_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write(folder / "search.json", search() | {"hook_point": "encoder.output"})
    fit = {"kind": "batch_topk", "k": 4, "steps": 5, "batch_frames": 6, "lr": 0.5}
    recipe = {"name": "mine", "model": f"{folder.resolve()}/m", "seeds": {"0": ["all"]}, "fit": fit}
    recipe["train"] = {"manifests": ["/data/a/clips.jsonl"]}
    jobs = {"phonemes encoder.output": {"options": {}, "seconds": 60.0, "left_out": f"no alignment {EVIL}"}}
    write(folder / "lab.json", {"recipe": recipe, "jobs": jobs, "made_with": {"torch": "1"}})
    html = write_report(folder, tmp_path / "report", results_too=True).read_text(encoding="utf-8")
    assert "Left out: phonemes encoder.output: no alignment &lt;img" in html
    assert "<title>SAE report: mine</title>" in html
    assert "batch_topk, k 4, 5 steps of 6 frames" in html
    copied = json.loads((tmp_path / "report" / "lab.json").read_text(encoding="utf-8"))["recipe"]
    assert (copied["model"], copied["train"]["manifests"]) == ("m", ["clips.jsonl"])
    write(folder / "lab.json", {"jobs": {}})
    with pytest.raises(SteerOptionError, match="not written by steer-asr-train lab"):
        read_results(folder)


def test_broken_and_empty_folders_say_so(tmp_path: Path) -> None:
    with pytest.raises(SteerOptionError, match="is no folder"):
        read_results(tmp_path / "gone")
    with pytest.raises(SteerOptionError, match=r"holds no results \(quality.json"):
        read_results(tmp_path)
    (tmp_path / "quality.json").write_text("{", encoding="utf-8")
    with pytest.raises(SteerOptionError, match=r"quality.json: cannot be read as a result"):
        read_results(tmp_path)
    write(tmp_path / "quality.json", {"all": {}})
    with pytest.raises(SteerOptionError, match=r"not a result .*parts, l0"):
        read_results(tmp_path)
    write(tmp_path / "quality.json", [])
    with pytest.raises(SteerOptionError, match="a result is a JSON object"):
        read_results(tmp_path)


def test_two_dictionaries_at_one_layer_are_not_mixed_up(tmp_path: Path) -> None:
    for name, explained in (("a", 0.5), ("b", 0.9)):
        write(tmp_path / name / "quality.json", quality(POINTS[0], explained))
    results = read_results(tmp_path)
    assert results.of("quality")[POINTS[0]]["all"]["explained_variance"] == 0.5
    assert results.not_shown == ["b/quality.json"]
    assert "<code>b/quality.json</code>" in html_page("t", [], [], {}, results.not_shown)


def test_sides_and_telling_features() -> None:
    counts = selectivity(features("p"))
    assert sum(counts) == 3, "one never fires"
    assert [counts[0], counts[10], counts[15]] == [1, 1, 1]
    assert [row["feature"] for row in telling(features("p"), 5)] == [0, 1]
    assert selectivity({"selectivity": [1, 2]}) == [1, 2]


def test_layers_sort_by_number() -> None:
    points = ["encoder.output", "x", "encoder.layers.10", "encoder.layers.2"]
    assert sorted(points, key=layer_order) == ["encoder.layers.2", "encoder.layers.10", "encoder.output", "x"]
    assert [short(point) for point in points] == ["output", "x", "10", "2"]


def test_pictures_take_gaps_and_the_pages_colour() -> None:
    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        layer_lines(left, ["0", "1", "2"], [Line("with a gap", [0.1, None, 0.3]), Line("none", [None] * 3)], ylabel="y")
        assert len(left.lines) == 1, "a line without a value is not drawn"
        heatmap(figure, right, [[0.5, None], [None, None]], rows=["a", "b"], columns=["c", "d"], label="F1")

    picture = Picture("gaps", "caption", 'alt "quoted" <b>', draw)
    svg, png = render(picture)
    assert (svg, png) == render(picture), "the same every time"
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert 'aria-label="alt &quot;quoted&quot; &lt;b>"' in svg
    assert Page(svg).ids.most_common(1)[0][1] == 1
    assert all(name.startswith("gaps-") for name in Page(svg).ids)
    assert png.startswith(b"\x89PNG")
