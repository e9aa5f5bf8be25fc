from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steer_asr.errors import ManifestError, OutputError, SteerOptionError
from steer_asr_benchmarks import cli
from steer_asr_benchmarks.compare.folders import compare
from steer_asr_benchmarks.compare.matrix import markdown as matrix_markdown
from steer_asr_benchmarks.compare.matrix import matrix
from steer_asr_benchmarks.compare.paired import compare_scores
from steer_asr_benchmarks.compare.sides import Side
from steer_asr_benchmarks.compare.table import comparison_table, markdown
from steer_asr_benchmarks.metrics import difference_metrics
from steer_asr_benchmarks.predictions import PredictionLog
from steer_asr_benchmarks.scoring import ClipScore, TextCame, WordCounts
from steer_asr_benchmarks.stats import cluster_interval, wilson
from steer_asr_benchmarks.text import describe_normalizer
from tests.benchmarks.builders import quiet_score, record, segment, speech_score

ONLY_R = TextCame(r=True, w=True, p=False, d=False, f=False)


def by_clip(*scores: ClipScore) -> dict[str, ClipScore]:
    return {score.clip: score for score in scores}


def quiet_sides() -> tuple[dict[str, ClipScore], dict[str, ClipScore]]:
    """Eight non-speech clips of 6 s in four groups. Text in A: q0 to q5; in B: q5 and q6."""
    words_a, words_b = [1, 2, 1, 1, 1, 4, 0, 0], [0, 0, 0, 0, 0, 1, 3, 0]
    a = [quiet_score(f"q{i}", words, group=f"g{i // 2}") for i, words in enumerate(words_a)]
    b = [quiet_score(f"q{i}", words, group=f"g{i // 2}", seconds=1.5) for i, words in enumerate(words_b)]
    a[0] = replace(a[0], came=ONLY_R)
    return by_clip(*a), by_clip(*b)


def test_nonspeech_by_hand() -> None:
    a, b = quiet_sides()
    found = compare_scores(a, b, a)
    rate = found["nonspeech"]["hallucination_rate"]["r"]
    assert (rate["a"], rate["b"], rate["difference"]) == (6 / 8, 2 / 8, -4 / 8)
    assert (rate["clips"], rate["groups"], rate["only_a"], rate["only_b"]) == (8, 4, 5, 1)
    assert rate["p"] == pytest.approx(2 * (1 + 6) / 2**6), "0 or 1 of 6 fair coins, either way"
    assert rate["ci"] == cluster_interval([-2, -2, -1, 1], [2] * 4, ["g0", "g1", "g2", "g3"])
    by_f = found["nonspeech"]["hallucination_rate"]["f"]
    assert (by_f["a"], by_f["difference"], by_f["only_a"]) == (5 / 8, -3 / 8, 4)
    words = found["nonspeech"]["words_per_min"]
    assert (words["a"], words["b"], words["difference"]) == pytest.approx((12.5, 5.0, -7.5)), (
        "10 and 4 words in 0.8 min"
    )
    assert words["ci"] == pytest.approx(cluster_interval([-3, -2, -4, 3], [0.2] * 4, ["g0", "g1", "g2", "g3"]))
    assert found["nonspeech"]["minutes"] == pytest.approx(0.8)
    assert found["changed_texts"] == 7
    assert found["rtf"] == pytest.approx({"a": 0.5 / 6, "b": 1.5 / 6, "ratio": 3.0})


def speech_sides() -> tuple[dict[str, ClipScore], dict[str, ClipScore]]:
    a = [
        speech_score("s0", WordCounts(hits=9, substitutions=1)),
        speech_score("s1", WordCounts(hits=8, deletions=2)),
        speech_score("s2", None),
        speech_score("s3", WordCounts(deletions=5)),
    ]
    b = [
        speech_score("s0", WordCounts(hits=10, insertions=2)),
        speech_score("s1", WordCounts(deletions=10)),
        speech_score("s2", None, words=0),
        speech_score("s3", WordCounts(hits=5)),
    ]
    return by_clip(*a), by_clip(*b)


def test_speech_by_hand() -> None:
    found = compare_scores(*speech_sides(), ("s0", "s1", "s2", "s3"))["speech"]
    wer = found["wer"]
    assert (wer["a"], wer["b"], wer["difference"]) == (8 / 25, 12 / 25, 4 / 25)
    assert (wer["clips"], wer["groups"], wer["words"]) == (3, 3, 25)
    assert wer["ci"] == cluster_interval([1, 8, -5], [10, 10, 5], ["s0", "s1", "s3"])
    missed = found["missed_speech_rate"]
    assert (missed["a"], missed["b"], missed["only_a"], missed["only_b"], missed["p"]) == (1 / 4, 2 / 4, 1, 2, 1.0)
    assert found["newly_empty"] == {"count": 2, "rate": 0.5, "ci": wilson(2, 4), "clips": 4}


def test_the_report_says_the_same_of_two_systems_of_one_run() -> None:
    (quiet_a, quiet_b), (speech_a, speech_b) = quiet_sides(), speech_sides()
    a, b = quiet_a | speech_a, quiet_b | speech_b
    found, reported = compare_scores(a, b, a), difference_metrics(b, a)
    rate, wer = found["nonspeech"]["hallucination_rate"]["r"], found["speech"]["wer"]
    assert (rate["difference"], rate["ci"]) == (
        reported["hallucination_rate_r"]["difference"],
        reported["hallucination_rate_r"]["ci"],
    )
    assert (wer["difference"], wer["ci"]) == (reported["wer"]["difference"], reported["wer"]["ci"])


def test_the_other_way_round_everything_changes_sign() -> None:
    a, b = quiet_sides()
    there, back = (compare_scores(*sides, a)["nonspeech"]["hallucination_rate"]["r"] for sides in ((a, b), (b, a)))
    assert back["difference"] == -there["difference"]
    assert (back["only_a"], back["only_b"], back["p"]) == (there["only_b"], there["only_a"], there["p"])
    assert back["ci"] == pytest.approx((-there["ci"][1], -there["ci"][0]))


def test_a_system_against_itself_changes_nothing() -> None:
    a, _ = quiet_sides()
    found = compare_scores(a, a, a)
    rate = found["nonspeech"]["hallucination_rate"]["r"]
    assert (rate["difference"], rate["ci"], rate["p"], rate["only_a"]) == (0.0, (0.0, 0.0), 1.0, 0)
    assert (found["changed_texts"], found["rtf"]["ratio"]) == (0, 1.0)


def test_nothing_to_compare_is_null() -> None:
    found = compare_scores({}, {}, ())
    rate = found["nonspeech"]["hallucination_rate"]["r"]
    assert (rate["a"], rate["difference"], rate["ci"], rate["p"], rate["clips"]) == (None, None, None, None, 0)
    assert found["speech"]["wer"]["difference"] is None
    assert found["speech"]["newly_empty"]["rate"] is None
    assert found["rtf"] == {"a": None, "b": None, "ratio": None}


def test_clips_of_one_side_are_left_out_and_counted() -> None:
    a, b = quiet_sides()
    found = compare_scores(
        {clip: a[clip] for clip in ("q0", "q1", "q2", "q5")},
        {clip: b[clip] for clip in ("q1", "q2", "q5", "q6", "q7")},
        {"q1", "q5"},
    )
    assert found["clips"] == {"both": 2, "only_a": 1, "only_b": 2, "described_differently": 1}
    assert found["nonspeech"]["hallucination_rate"]["r"]["a"] == 1.0
    assert found["nonspeech"]["hallucination_rate"]["r"]["b"] == 0.5


def test_words_that_are_not_the_same_on_both_sides_have_no_say_in_wer() -> None:
    a, b = speech_sides()
    elsewhere = b | {"s0": replace(b["s0"], in_headline=False), "s1": replace(b["s1"], wer_counts=WordCounts(hits=3))}
    wer = compare_scores(a, elsewhere, a)["speech"]["wer"]
    assert (wer["clips"], wer["words"], wer["difference"]) == (1, 5, -1.0)


def write(folder: Path, records: list[dict[str, Any]], run: dict[str, Any] | None = None) -> Path:
    with PredictionLog(folder / "predictions.jsonl") as log:
        for one in records:
            log.append(one)
    if run is not None:
        (folder / "run.json").write_text(json.dumps(run))
    return folder


def predictions(system: str = "stock", *texts: str, **overrides: Any) -> list[dict[str, Any]]:
    """A non-speech clip q0, q1, ... for every text, each a group of its own."""
    return [
        record(*([segment(text)] if text else []), system=system, clip=f"q{i}", group=f"g{i}", **overrides)
        for i, text in enumerate(texts)
    ]


def described(**overrides: Any) -> dict[str, Any]:
    return {
        "git_sha": "abc",
        "versions": {"whisper_normalizer": describe_normalizer()["version"]},
        "model": {"name": "base", "sha256": "d" * 64, "shared_encoder": False},
        "decoding": {"beam_size": 1},
        "data": {"manifests": [{"name": "test.jsonl", "sha256": "1" * 64}]},
        "systems": {"stock": {"suppress_blank": True}},
    } | overrides


def sides(a: Path | str, b: Path | str) -> dict[str, Any]:
    return compare(Side.read(str(a)), Side.read(str(b)))


def test_two_folders(tmp_path: Path) -> None:
    both = ("timestamps", "no_timestamps")
    a = write(tmp_path / "a", [one for mode in both for one in predictions("stock", "you", "you", mode=mode)])
    b = write(tmp_path / "b", [one for mode in both for one in predictions("stock", "you", "", mode=mode)])
    found = sides(a, b)
    assert [(one["mode"], one["a"], one["b"]) for one in found["comparisons"]] == [(m, "stock", "stock") for m in both]
    assert [one["nonspeech"]["hallucination_rate"]["r"]["difference"] for one in found["comparisons"]] == [-0.5, -0.5]
    assert (found["warnings"], found["settings"], found["a"]["model"]) == ([], [], None)
    json.dumps(found, allow_nan=False)


def test_two_systems_of_one_folder(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "a:b", predictions("stock", "you", "you") + predictions("steered:0.5", "", "you") + predictions("x")
    )
    (found,) = sides(f"{folder}:stock", f"{folder}:steered:0.5")["comparisons"]
    assert (found["a"], found["b"]) == ("stock", "steered:0.5")
    assert found["nonspeech"]["hallucination_rate"]["r"]["only_a"] == 1


def test_single_systems_are_paired_whatever_their_names(tmp_path: Path) -> None:
    a = write(tmp_path / "a", predictions("stock", "you"))
    b = write(tmp_path / "b", predictions("steered", "") + predictions("stock", "you"))
    assert [(one["a"], one["b"]) for one in sides(a, b)["comparisons"]] == [("stock", "stock")]
    assert sides(a, b)["warnings"] == ["only B has the systems steered"]
    assert [(one["a"], one["b"]) for one in sides(a, f"{b}:steered")["comparisons"]] == [("stock", "steered")]


def test_what_stands_between_two_results_is_said(tmp_path: Path) -> None:
    a = write(tmp_path / "a", predictions("stock", "you", "you"), described())
    other = described(
        versions={"whisper_normalizer": "0.0.1"},
        model={"name": "tiny.en", "sha256": "e" * 64, "shared_encoder": True},
        data={"manifests": [{"name": "test.jsonl", "sha256": "2" * 64}, {"name": "more.jsonl", "sha256": "3" * 64}]},
        systems={"stock": {"suppress_blank": False}},
    )
    changed = predictions("stock", "you", "you", "you")
    changed[0]["kind"], changed[0]["reference"] = "speech", "you"
    b = write(tmp_path / "b", [*predictions("stock", "you", mode="no_timestamps"), *changed], other)
    found = sides(a, b)
    here = describe_normalizer()["version"]
    assert found["warnings"] == [
        "manifest test.jsonl is not the same: 111111111111 in A, 222222222222 in B",
        f"the report of B was made with whisper-normalizer 0.0.1; here {here} reads both",
        "only B has the modes no_timestamps",
        "clips of one name that are not the same clip are left out; they differ in kind (1), reference (1)",
        "times are not compared: systems shared one encoder pass",
    ]
    settings = {one["setting"]: (one["a"], one["b"]) for one in found["settings"]}
    assert settings["model.name"] == ("base", "tiny.en")
    assert settings["stock.suppress_blank"] == (True, False)
    assert "decoding.beam_size" not in settings
    (comparison,) = found["comparisons"]
    assert comparison["clips"] == {"both": 1, "only_a": 0, "only_b": 1, "described_differently": 1}
    assert comparison["rtf"]["ratio"] is None
    printed = markdown(found)
    assert '- model.name: "base" in A, "tiny.en" in B' in printed
    assert "**Warning: manifest test.jsonl is not the same" in printed
    assert "1 only in B, left out; 1 of one name but not the same clip, left out." in printed


def test_the_report_knows_its_normaliser_better_than_the_run(tmp_path: Path) -> None:
    a = write(tmp_path / "a", predictions("stock", "you"), described(versions={"whisper_normalizer": "0.0.1"}))
    assert Side.read(str(a)).normalizer == "0.0.1"
    (a / "report.json").write_text('{"scoring": {"normalizer": {"version": "0.0.2"}}}')
    assert Side.read(str(a)).normalizer == "0.0.2"


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    a = write(tmp_path / "a", predictions("stock", "you") + predictions("steered", ""))
    other = write(tmp_path / "other", predictions("x", "you") + predictions("y", "you"))
    later = write(tmp_path / "later", predictions("stock", "you", mode="no_timestamps"))
    renamed = write(tmp_path / "renamed", [record(clip="new")])
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    for arguments, error, message in (
        ((a, tmp_path / "nowhere"), SteerOptionError, "is neither a result folder nor FOLDER:SYSTEM"),
        ((a, f"{a}:sterd"), SteerOptionError, "unknown system 'sterd'; did you mean 'steered'"),
        ((a, other), SteerOptionError, "no system in common: .*; name one on each side: FOLDER:SYSTEM"),
        ((a, a), SteerOptionError, "are the same; name a system on each side"),
        ((f"{a}:stock", f"{a}/:stock"), SteerOptionError, "are the same"),
        ((a, later), SteerOptionError, "no decoding mode in common: .* has timestamps, .* has no_timestamps"),
        ((a, renamed), SteerOptionError, "no clip in common: .* has q0, .* new"),
        ((a, tmp_path / "empty"), ManifestError, "no predictions in it"),
        ((a, write(tmp_path / "bad", predictions("stock", "you"), {"systems": {}})), OutputError, r"run\.json"),
    ):
        with pytest.raises(error, match=message):
            sides(*arguments)


def noisy(system: str, errors: dict[float, int]) -> list[dict[str, Any]]:
    """Two clips of five words at every SNR, `errors` of them lost in the first one, each clip a group of its own."""
    five = ["all", "birds", "can", "sing", "well"]
    return [
        record(segment(" ".join(five[lost:])), kind="speech", lang="en", reference=" ".join(five), system=system,
               clip=f"s{snr}/{i}", group=f"g{i}", snr_db=snr)
        for snr, n in errors.items() for i, lost in enumerate((n, 0))
    ]  # fmt: skip


def test_by_stratum_by_hand(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "a",
        noisy("stock", {10.0: 1, 0.0: 2}) + noisy("steered", {10.0: 1, 0.0: 5}) + predictions("stock", "you"),
    )
    found = compare(Side.read(f"{folder}:stock"), Side.read(f"{folder}:steered"), ["snr", "lang", "label"])
    (comparison,) = found["comparisons"]
    by_snr = comparison["strata"]["snr"]
    assert list(by_snr) == ["0 dB", "10 dB"]
    assert by_snr["10 dB"]["speech"]["wer"]["difference"] == 0.0
    loud = by_snr["0 dB"]["speech"]
    assert (loud["wer"]["a"], loud["wer"]["b"], loud["wer"]["ci"]) == (0.2, 0.5, (0.0, 0.6))
    assert (loud["newly_empty"]["count"], loud["missed_speech_rate"]["difference"]) == (1, 0.5)
    assert (list(comparison["strata"]["lang"]), comparison["strata"]["label"]) == (["en"], {}), "nothing has a label"
    text = markdown(found)
    [row] = [line for line in text.splitlines() if line.startswith("| 0 dB")]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        *("0 dB", "0", "- : -", "-", "- : -", "2 (2)", "10", "20.00 : 50.00", "+30.00", "+0.00 to +60.00"),
        *("0.00 : 50.00", "+0.00 to +100.00", "1"),
    ]
    assert "By label" not in text
    with pytest.raises(SteerOptionError, match="unknown division 'snrs'; did you mean 'snr'"):
        compare(Side.read(f"{folder}:stock"), Side.read(f"{folder}:steered"), ["snrs"])


def test_matrix_by_hand(tmp_path: Path) -> None:
    names = {"stock": ("you", "you"), "steered": ("", ""), "stock+int8": ("you", "so"), "steered+int8": ("you", "")}
    folder = write(
        tmp_path / "a",
        [one for name, texts in names.items() for one in predictions(name, *texts)]
        + predictions("stock+vad", "you")
        + predictions("stockings", "you")
        + predictions("steered", "you", mode="no_timestamps"),
        described(systems={"steered": {"pack": {"name": "p", "sha256": "e" * 64}}}),
    )
    found = matrix([Side.read(str(folder))], "stock", "steered")
    assert list(found["rows"]) == ["timestamps, plain", "timestamps, +int8"], "no pair in the other mode, nor for +vad"
    rates = [row["nonspeech"]["hallucination_rate"]["r"] for row in found["rows"].values()]
    assert [(rate["a"], rate["b"], rate["clips"]) for rate in rates] == [(1.0, 0.0, 2), (1.0, 0.5, 2)]
    text = matrix_markdown(found)
    assert "pack p (eeeeeeeeeeeeeee)" in text
    assert "| timestamps, +int8 | 2 " in text
    assert "100.0 : 50.0" in text
    with pytest.raises(SteerOptionError, match="both have timestamps, plain"):
        matrix([Side.read(str(folder))] * 2, "stock", "steered")
    with pytest.raises(SteerOptionError, match="no condition under which both stock and gate were run"):
        matrix([Side.read(str(folder))], "stock", "gate")


def test_matrix_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = write(tmp_path / "a", predictions("stock", "you") + predictions("steered", ""))
    assert call(monkeypatch, folder, "-o", tmp_path / "out" / "matrix", command="matrix") == 0
    assert capsys.readouterr().out == (tmp_path / "out" / "matrix.md").read_text()
    rows = json.loads((tmp_path / "out" / "matrix.json").read_text())["rows"]
    assert rows["timestamps, plain"]["nonspeech"]["hallucination_rate"]["r"]["difference"] == -1.0


def test_table_by_eye() -> None:
    (quiet_a, quiet_b), (speech_a, speech_b) = quiet_sides(), speech_sides()
    table = comparison_table(compare_scores(quiet_a | speech_a, quiet_b | speech_b, quiet_a | speech_a))
    cells = {
        row[0]: row[1:] for line in table.splitlines() if (row := [cell.strip() for cell in line.split("|")[1:-1]])
    }
    assert cells["text, R %"][:3] == ["75.0", "25.0", "-50.0"]
    assert cells["text, R %"][4:] == ["5 : 1", "0.2188", "8", "4"]
    assert cells["text, F %"][:3] == ["62.5", "25.0", "-37.5"]
    assert cells["words/min"][:3] + cells["words/min"][4:] == ["12.5", "5.0", "-7.5", "-", "-", "8", "4"]
    assert cells["WER %"][:3] + cells["WER %"][6:] == ["32.00", "48.00", "+16.00", "3", "3"]
    assert cells["missed %"][:3] + cells["missed %"][4:] == ["25.00", "50.00", "+25.00", "1 : 2", "1.0000", "4", "4"]
    assert cells["newly empty %"] == ["-", "50.00", "-", "15.0 to 85.0", "-", "-", "4", "-"]
    assert cells["RTF"] == ["0.083", "0.194", "x 2.33", *"-----"]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object, command: str = "compare") -> int:
    monkeypatch.setattr(sys, "argv", ["steer-asr-bench", command, *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a = write(tmp_path / "a", predictions("stock", "you", "you"), described())
    b = write(tmp_path / "b", predictions("stock", "you", ""), described())
    assert call(monkeypatch, a, b, "-o", tmp_path / "out" / "change.md") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"# What changes from A to B\n\n- A is {a}: model base (ddddddddddddddd), commit abc\n")
    assert printed == (tmp_path / "out" / "change.md").read_text()
    assert call(monkeypatch, a, b, "--json", "-o", tmp_path / "change.json") == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "change.json").read_text()
    assert json.loads(printed)["comparisons"][0]["nonspeech"]["hallucination_rate"]["w"]["difference"] == -0.5


def test_bad_input_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(monkeypatch, tmp_path / "no", tmp_path, "-o", tmp_path / "out.md") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"error: '{tmp_path / 'no'}' is neither a result folder nor FOLDER:SYSTEM\n"
    assert not (tmp_path / "out.md").exists()
