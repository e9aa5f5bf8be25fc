from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from steer_asr.errors import ManifestError, OutputError
from steer_asr_benchmarks import cli
from steer_asr_benchmarks.plots.labels import Label, place_labels
from steer_asr_benchmarks.plots.pareto import draw_pareto, front, points_of
from steer_asr_benchmarks.plots.pictures import PICTURES, draw_pictures, read_report
from steer_asr_benchmarks.plots.sources import draw_by_source
from steer_asr_benchmarks.plots.strata import draw_duration, draw_snr
from steer_asr_benchmarks.plots.style import NothingToDraw, looks, shortened, style
from steer_asr_benchmarks.predictions import PredictionLog
from steer_asr_benchmarks.stats import wilson
from tests.benchmarks.builders import record, segment


def quiet(count: int, clips: int) -> dict[str, Any]:
    return {
        "clips": clips,
        "clips_with_text": count,
        "hallucination_rate": {"r": count / clips if clips else None},
        "ci": {"r": wilson(count, clips)},
    }


def speech(wer: float | None, missed: int = 0, clips: int = 40) -> dict[str, Any]:
    interval = None if wer is None else (0.9 * wer, 1.2 * wer)
    rate = missed / clips if clips else None
    return {
        "clips": clips,
        "missed": missed,
        "missed_speech_rate": rate,
        "wer": wer,
        "wer_clips": clips,
        "ci": {"wer": interval},
    }


def system(count: int, clips: int = 120, wer: float | None = 0.1) -> dict[str, Any]:
    return {
        "nonspeech": quiet(count, clips),
        "speech": speech(wer),
        "by_source": {
            "rain": {"nonspeech": quiet(count // 2, clips // 2)},
            "a $fan$": {"nonspeech": quiet(0, 3)},
            "books": {"speech": speech(wer)},
        },
        "by_snr": {"-5 dB": {"speech": speech(0.4, 4)}, "20 dB": {"speech": speech(0.1)}},
        "by_duration": {"0-1 s": {"nonspeech": quiet(count // 6, 20), "speech": speech(0.2, 2)}, "5-30 s": {}},
    }


COUNTS = {"stock": 118, "steered": 3, "stock+vad": 24, "gate": 0}


def report(
    counts: dict[str, int] = COUNTS, modes: tuple[str, ...] = ("timestamps", "no_timestamps"), points: float = 1.0
) -> dict[str, Any]:
    """A made-up report: text on `counts` of 120 clips; WER changes by `points` more for every further system."""
    found = {
        "systems": {name: system(count) for name, count in counts.items()},
        "differences": {
            name: {
                "to": "stock",
                "wer": {"difference": i * points / 100, "ci": ((i - 0.5) * points / 100, i * points / 50)},
            }
            for i, name in enumerate(counts)
            if i
        },
    }
    return {"model": {"name": "base"}, "by_mode": dict.fromkeys(modes, found)}


def texts(figure: Figure) -> list[str]:
    """What an SVG of the figure says, from its comments."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg")
    return re.findall("<!-- (.*) -->", drawn.getvalue().decode())


@pytest.fixture(autouse=True)
def _styled() -> Any:
    with style():
        yield


def test_all_pictures_are_files_with_something_on_them(tmp_path: Path) -> None:
    drawn = draw_pictures(report(), tmp_path)
    assert drawn.skipped == {}
    assert drawn.written == [tmp_path / f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg")]
    assert sorted(tmp_path.iterdir()) == sorted(drawn.written)
    for path in drawn.written:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert min(image.size) > 400
                assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
            for name in COUNTS:
                assert f"<!-- {name} -->" in path.read_text()


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        draw_pictures(report({"stock": 118, "gate": 0}, ("timestamps",)), tmp_path / folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
        assert b"<dc:date>" not in path.read_bytes()


def test_what_the_report_lacks_is_skipped_and_an_old_picture_of_it_taken_away(tmp_path: Path) -> None:
    for name in PICTURES:
        (tmp_path / f"{name}.png").touch()
        (tmp_path / f"{name}.svg").touch()
    poor = report({"stock": 5})
    for one in poor["by_mode"]["timestamps"]["systems"].values():
        del one["by_snr"]
        one["by_duration"] = {"0-1 s": {}}
        one["by_source"] = {"books": {"speech": speech(0.1)}}
    drawn = draw_pictures(poor, tmp_path)
    assert drawn.written == []
    assert drawn.skipped == {
        "pareto": "it takes two systems, non-speech clips, and speech that counts in WER",
        "by_source": "no source has non-speech clips",
        "snr": "the report has no by_snr",
        "duration": "by_duration holds no clips",
    }
    assert list(tmp_path.iterdir()) == []


def test_pareto_points_by_hand() -> None:
    stock, steered, vad, gate = points_of(report(points=0.5)["by_mode"]["timestamps"])
    assert (stock.system, stock.change, stock.change_ends) == ("stock", 0.0, None)
    assert (steered.rate, steered.count, steered.clips) == (2.5, 3, 120)
    assert steered.change == pytest.approx(0.5)
    assert steered.change_ends == pytest.approx((0.25, 1.0))
    assert vad.rate_ends == pytest.approx(tuple(100 * end for end in wilson(24, 120) or ()))
    assert (gate.rate, gate.rate_ends[0]) == (0.0, 0.0)


def test_front_is_what_no_other_beats() -> None:
    points = points_of(report({"stock": 118, "bad": 119, "good": 9, "better": 9, "quiet": 0})["by_mode"]["timestamps"])
    assert [point.system for point in front(points)] == ["stock", "good", "quiet"]


def test_pareto_says_who_is_where() -> None:
    said = texts(draw_pareto(report()))
    assert said.count("stock+vad") == 2, "one label in each panel"
    assert "0 of 120, up to 3.1 %" in said
    assert {"0", "1 %", "100 %", "better", "with timestamps", "without timestamps"} <= set(said)
    some = texts(draw_pareto(report({"stock": 118, "steered": 3}, ("timestamps",))))
    assert "0 of 120, up to 3.1 %" not in some
    assert some.count("steered") == 1


def test_a_rate_of_zero_stands_under_all_others() -> None:
    (ax,) = draw_pareto(report(modes=("timestamps",))).axes
    markers = [line for line in ax.lines if line.get_marker() not in ("None", "")]
    *others, gate = [float(np.asarray(line.get_ydata())[0]) for line in markers]
    assert 0 < ax.get_ylim()[0] < gate < min(others)
    assert ax.get_yscale() == "log"


def test_small_changes_are_not_blown_up_and_large_ones_do_not_squeeze_them() -> None:
    (small,) = draw_pareto(report({"stock": 118, "steered": 3}, ("timestamps",), points=0.001)).axes
    assert small.get_xlim()[1] - small.get_xlim()[0] > 0.5
    (large,) = draw_pareto(report(modes=("timestamps",), points=10)).axes
    assert (small.get_xscale(), large.get_xscale()) == ("linear", "symlog")


def test_systems_without_a_wer_change_have_no_place_in_pareto() -> None:
    found = report()["by_mode"]["timestamps"]
    found["differences"]["steered"]["wer"] = {"difference": None, "ci": None}
    assert [point.system for point in points_of(found)] == ["stock", "stock+vad", "gate"]


def test_labels_overlap_nothing() -> None:
    figure = Figure((6, 5), dpi=100)
    ax = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    labels = [Label(0.45 + 0.05 * (i % 3), 0.4 + 0.04 * (i // 3), f"system {i}", "black") for i in range(12)]
    boxes = place_labels(ax, labels, lines=[(0.5, 0.1, 0.5, 0.9)])
    line = Bbox(ax.transData.transform([(0.5, 0.1), (0.5, 0.9)])).padded(0.5)
    markers = [Bbox([place, place]).padded(4) for place in ax.transData.transform([(one.x, one.y) for one in labels])]
    for i, box in enumerate(boxes):
        assert not box.overlaps(line)
        assert box.count_overlaps([*boxes[:i], *boxes[i + 1 :], *markers]) == 0
        assert ax.bbox.containsx(box.x0)
        assert ax.bbox.containsx(box.x1)
        assert ax.bbox.containsy(box.y0)
        assert ax.bbox.containsy(box.y1)
    drawn = [text.get_window_extent() for text in ax.texts]
    for box, text in zip(boxes, drawn, strict=True):
        assert box.p0 == pytest.approx(text.p0, abs=1), "where the text is drawn"


def test_a_label_alone_stands_beside_its_marker() -> None:
    figure = Figure((6, 5), dpi=100)
    ax = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    (box,) = place_labels(ax, [Label(0.5, 0.5, "stock", "black")])
    x, y = ax.transData.transform((0.5, 0.5))
    assert 0 < box.x0 - x < 30
    assert box.y0 < y < box.y1
    assert place_labels(ax, []) == []


def test_by_source_bars_by_hand() -> None:
    figure = draw_by_source(report({"stock": 118, "steered": 3}, ("timestamps",)))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["stock", "steered"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["rain  60", "a $fan$  3"]
    widths = [[bar.get_width() for bar in ax.patches] for ax in figure.axes]  # pyright: ignore[reportAttributeAccessIssue]
    assert widths == [pytest.approx([100 * 59 / 60, 0]), pytest.approx([100 / 60, 0])]


def test_many_sources_and_systems_wrap_and_say_so() -> None:
    many = report({f"system-{i}": i for i in range(12)}, ("timestamps",))
    for one in many["by_mode"]["timestamps"]["systems"].values():
        one["by_source"] = {f"s{i}": {"nonspeech": quiet(1, 100 - i)} for i in range(50)}
    figure = draw_by_source(many)
    assert len(figure.axes) == 12
    assert len({ax.get_position().y0 for ax in figure.axes}) == 3
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-1] == "s39  61"
    assert any("10 more are left out" in text.get_text() for text in figure.texts)


def test_strata_by_hand() -> None:
    figure = draw_snr(report({"stock": 118, "steered": 3}, ("timestamps",)))
    assert [ax.get_ylabel() for ax in figure.axes] == ["speech clips\nwithout a word, %", "word error rate, %"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["-5 dB\n40", "20 dB\n40"]
    stock = next(line for line in figure.axes[1].lines if line.get_marker() == "o")
    assert np.asarray(stock.get_ydata()) == pytest.approx([40, 10])
    assert figure.texts[0].get_text() == "Lost speech and WER by signal-to-noise ratio: Whisper base"
    assert [ax.get_ylabel() for ax in draw_duration(report()).axes[::2]] == [
        "non-speech clips\nwith any text (R), %",
        "speech clips\nwithout a word, %",
    ]


def test_strata_without_a_single_error_have_an_axis() -> None:
    perfect = report({"stock": 0}, ("timestamps",))
    for bucket in perfect["by_mode"]["timestamps"]["systems"]["stock"]["by_snr"].values():
        bucket["speech"] = speech(0.0) | {"ci": {"wer": (0.0, 0.0)}}
    assert draw_snr(perfect).axes[1].get_ylim() == (0.0, 1.0)


def test_many_lines_have_no_intervals_and_that_is_said() -> None:
    few, many = (draw_snr(report({f"s{i}": 1 for i in range(n)}, ("timestamps",))) for n in (3, 9))
    assert any("95 %" in text.get_text() for text in few.texts)
    assert len(few.axes[0].lines) == 3 * (1 + 2)
    assert any("Intervals are in report.json" in text.get_text() for text in many.texts)
    assert len(many.axes[0].lines) == 9


def test_a_title_is_never_wider_than_its_picture() -> None:
    long = report({"stock": 118, "steered": 3}, ("timestamps",))
    long["model"]["name"] = "/models/" + "W" * 60
    for draw in (draw_pareto, draw_by_source, draw_snr, draw_duration):
        figure = draw(long)
        title = figure.texts[0].get_window_extent(FigureCanvasAgg(figure).get_renderer())
        assert title.x1 < figure.bbox.x1, draw.__name__
        key = figure.legends[0].get_window_extent() if figure.legends else title
        assert key.x1 < figure.bbox.x1, draw.__name__


def test_a_key_of_many_systems_stays_above_the_panels() -> None:
    figure = draw_snr(report({f"system number {i}": 1 for i in range(14)}))
    renderer = FigureCanvasAgg(figure).get_renderer()
    key = figure.legends[0].get_window_extent(renderer)
    assert key.x1 < figure.bbox.x1
    assert key.y0 > max(ax.title.get_window_extent(renderer).y1 for ax in figure.axes)
    assert key.y1 < figure.texts[1].get_window_extent(renderer).y0


def test_no_two_systems_look_alike() -> None:
    found = looks([f"s{i}" for i in range(43)])
    assert len(set(found.values())) == 43


def test_long_names_lose_their_middle() -> None:
    assert shortened("steered") == "steered"
    assert shortened("http://127.0.0.1:8000/v1/audio") == "http://127.\N{HORIZONTAL ELLIPSIS}00/v1/audio"


@pytest.mark.parametrize("model", ["base", "tiny.en"])
def test_the_committed_reports(model: str, tmp_path: Path) -> None:
    found = read_report(Path(__file__).parents[2] / "benchmarks" / "results" / model)
    assert draw_pictures(found, tmp_path).written[:4] == [
        tmp_path / name for name in ("pareto.png", "pareto.svg", "by_source.png", "by_source.svg")
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "steer-asr-bench score .* makes it"), ("{", "is not JSON"), ("[]", "is not a report"), ("{}", "is not a")],
)
def test_a_missing_or_broken_report(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(ManifestError, match=message):
        read_report(tmp_path)


def test_a_report_with_other_keys_is_named(tmp_path: Path) -> None:
    other = report()
    del other["by_mode"]["timestamps"]["systems"]["stock"]["nonspeech"]["ci"]
    with pytest.raises(ManifestError, match="picture pareto: the report is not of this version .*'ci'"):
        draw_pictures(other, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        draw_pictures(report(), tmp_path / "file")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["steer-asr-bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_plot_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report({"stock": 3}, ("timestamps",))))
    assert call(monkeypatch, "plot", tmp_path) == 0
    printed = capsys.readouterr()
    names = [f"{name}.{kind}" for name in ("by_source", "snr", "duration") for kind in ("png", "svg")]
    assert printed.out.splitlines() == [str(tmp_path / name) for name in names]
    assert printed.err.startswith("no picture pareto: it takes two systems")
    assert call(monkeypatch, "plot", tmp_path / "no") == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'no' / 'report.json'}: cannot be read")


def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("steer_asr_benchmarks.plots.")]:
        if name != "steer_asr_benchmarks.plots.command":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def test_score_draws_where_it_can(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with PredictionLog(tmp_path / "predictions.jsonl") as log:
        log.append(record(segment(" you")))
    assert call(monkeypatch, "score", tmp_path) == 0
    assert {path.name for path in tmp_path.glob("*.svg")} >= {"by_source.svg"}
    assert capsys.readouterr().err == ""


def test_without_matplotlib_score_reports_and_plot_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with PredictionLog(tmp_path / "predictions.jsonl") as log:
        log.append(record(segment(" you")))
    with monkeypatch.context() as without:
        no_matplotlib(without)
        assert call(without, "score", tmp_path) == 0
        assert capsys.readouterr().err == "no pictures: they need matplotlib, pip install 'steer-asr[bench]'\n"
        assert (tmp_path / "report.md").exists()
        assert list(tmp_path.glob("*.svg")) == []
        assert call(without, "plot", tmp_path) == 2
    assert capsys.readouterr().err == "error: steer-asr-bench needs matplotlib: pip install 'steer-asr[bench]'\n"


def test_nothing_to_draw_is_not_an_error_of_the_user() -> None:
    with pytest.raises(NothingToDraw):
        draw_snr({"model": None, "by_mode": {"timestamps": {"systems": {"stock": {}}}}})
