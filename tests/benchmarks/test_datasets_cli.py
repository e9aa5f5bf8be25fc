"""The commands around datasets: `datasets`, `export`, and a whole run over dataset roots with a tiny random Whisper."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from steer_asr.errors import ManifestError, SteerOptionError
from steer_asr.manifest import read_manifest
from steer_asr_benchmarks import cli, runner
from steer_asr_benchmarks.clips import Shard
from steer_asr_benchmarks.export import export_open_asr, file_name
from steer_asr_benchmarks.predictions import PredictionLog, predictions_name, read_predictions
from tests.benchmarks.builders import record, segment
from tests.benchmarks.dataset_trees import demand, esc50, fleurs, fsd50k, librispeech, musan

KEYS = ["audio_filepath", "duration", "time", "text", "pred_text"]
CLEAN = "MODEL_steer_asr-unknown-stock-timestamps_DATASET_librispeech_test.clean.jsonl"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["steer-asr-bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def spoken(clip: str, text: str, **overrides: Any) -> dict[str, Any]:
    about = {"kind": "speech", "source": "librispeech/test-clean", "reference": "HE SAID", "lang": "en"}
    return record(segment(text), clip=clip, **(about | overrides))


def write_predictions(folder: Path, *records: dict[str, Any], shard: Shard | None = None) -> Path:
    with PredictionLog(folder / predictions_name(shard or Shard())) as log:
        for one in records:
            log.append(one)
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_layouts_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "datasets") == 0
    printed = capsys.readouterr().out
    blocks = {block.splitlines()[0]: block for block in printed.strip().split("\n\n")}
    assert list(blocks) == [
        *("LibriSpeech (librispeech)", "Common Voice (common_voice)", "FLEURS (fleurs)", "ESC-50 (esc50)"),
        *("UrbanSound8K (urbansound8k)", "FSD50K (fsd50k)", "MUSAN (musan)", "WHAM! noise (wham_noise)"),
        *("DEMAND (demand)", "AudioSet-style CSV (audioset)", "folder of audio (folder)"),
    ]
    for title, block in blocks.items():
        expected = ["looks like", "holds", "licence", *([] if "(folder)" in title else ["home"])]
        assert [line[2:13].strip() for line in block.splitlines()[1:]] == expected


def test_a_root_is_described(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = musan(tmp_path)
    assert call(monkeypatch, "datasets", root, f"{root}::noise") == 0
    assert capsys.readouterr().out == (
        f"{root}: MUSAN (musan), 3 clips, 0.0 min\n"
        "kind       category  split   clips  minutes\n"
        "nonspeech  music     music       1      0.0\n"
        "nonspeech  noise     noise       1      0.0\n"
        "speech     speech    speech      1      0.0\n"
        "left out: 1 (music with vocals)\n"
        "left out: 1 (music without an annotation on vocals)\n"
        f"\n{root}::noise: MUSAN (musan), 1 clips, 0.0 min\n"
        "kind       category  split  clips  minutes\n"
        "nonspeech  noise     noise      1      0.0\n"
    )


def test_a_root_with_missing_files_is_described_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = esc50(tmp_path)
    (root / "audio" / "1-100-A-0.wav").unlink()
    assert call(monkeypatch, "datasets", root) == 0
    printed = capsys.readouterr().out
    assert "2 clips" in printed
    assert "not on this disk: 1 of 3 clips" in printed


@pytest.mark.parametrize("command", [["datasets"], ["run", "-o", "out", "--manifest"]])
def test_no_dataset_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert call(monkeypatch, *command, "empty") == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {tmp_path / 'empty'}: no dataset that is known, and no audio in it. Known")
    assert len(printed.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_export_has_the_leaderboards_lines(tmp_path: Path) -> None:
    write_predictions(
        tmp_path,
        spoken("b", " IT was", seconds=0.25, duration_s=2.0),
        spoken("a", " He said."),
        spoken("a", " he", mode="no_timestamps"),
        spoken("a", "", system="steered:/packs/p@0.5"),
        spoken("c", " dog", source="fleurs/en/test"),
    )
    assert {path.name for path in export_open_asr(tmp_path, tmp_path / "out")} == {
        CLEAN,
        "MODEL_steer_asr-unknown-stock-no_timestamps_DATASET_librispeech_test.clean.jsonl",
        "MODEL_steer_asr-unknown-steered-packs-p@0.5-timestamps_DATASET_librispeech_test.clean.jsonl",
        "MODEL_steer_asr-unknown-stock-timestamps_DATASET_fleurs_en_test.jsonl",
    }
    rows = lines(tmp_path / "out" / CLEAN)
    assert rows == [
        {"audio_filepath": "a", "duration": 6.0, "time": 0.5, "text": "HE SAID", "pred_text": "He said."},
        {"audio_filepath": "b", "duration": 2.0, "time": 0.25, "text": "HE SAID", "pred_text": "IT was"},
    ]
    assert [list(row) for row in rows] == [KEYS, KEYS]


def test_only_what_counts_in_wer_is_exported(tmp_path: Path) -> None:
    write_predictions(
        tmp_path,
        record(segment(" you"), clip="noise"),
        spoken("inexact", " a", label="likely-verbatim"),
        spoken("without", " a", reference=""),
        spoken("mixed", " a", kind="mixed"),
    )
    with pytest.raises(ManifestError, match="no predictions of speech with an exact transcript"):
        export_open_asr(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_predictions(tmp_path, spoken("exact", " a"))
    assert [row["audio_filepath"] for path in export_open_asr(tmp_path, tmp_path / "out") for row in lines(path)] == [
        "exact"
    ]


def test_shards_are_exported_together_and_the_model_has_its_name(tmp_path: Path) -> None:
    for i in (1, 2):
        write_predictions(tmp_path, spoken(f"clip{i}", " a"), shard=Shard(i, 2))
    run: dict[str, Any] = {"data": {}, "decoding": {}, "systems": {}}
    (tmp_path / "run.json").write_text(json.dumps(run | {"model": {"name": "base", "shared_encoder": True}}))
    [path] = export_open_asr(tmp_path, tmp_path)
    assert path.name == CLEAN.replace("unknown", "base")
    assert [(row["audio_filepath"], row["time"]) for row in lines(path)] == [("clip1", None), ("clip2", None)]


def test_two_systems_cannot_share_a_file(tmp_path: Path) -> None:
    write_predictions(tmp_path, spoken("a", " a", system="steered:a/b"), spoken("a", " a", system="steered:a:b"))
    with pytest.raises(SteerOptionError, match="both be written to MODEL_steer_asr-unknown-steered-a-b-timestamps"):
        export_open_asr(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_broken_predictions_are_named(tmp_path: Path) -> None:
    broken = spoken("a", " a")
    del broken["reference"]
    write_predictions(tmp_path, broken)
    with pytest.raises(ManifestError, match=r"predictions\.jsonl:1: not a prediction \(KeyError"):
        export_open_asr(tmp_path, tmp_path / "out")


def test_names_work_on_every_file_system() -> None:
    name = file_name("my/model", "http://host:1/v1", "timestamps", 'a:b/"c"')
    assert name == "MODEL_steer_asr-my-model-http-host-1-v1-timestamps_DATASET_a-b_-c-.jsonl"


def test_export_of_results(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_predictions(tmp_path, spoken("a", " a"))
    assert call(monkeypatch, "export", tmp_path) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'open-asr' / CLEAN}\n"
    assert call(monkeypatch, "export", tmp_path, "-o", tmp_path / "there") == 0
    assert (tmp_path / "there" / CLEAN).read_bytes() == (tmp_path / "open-asr" / CLEAN).read_bytes()


def test_export_of_clips_is_a_manifest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "lists" / "clips.jsonl"
    sources = ("--manifest", f"{librispeech(tmp_path)}::test-clean", "--manifest", esc50(tmp_path))
    assert call(monkeypatch, "export", *sources, "--format", "open-asr", "-o", out) == 0
    assert capsys.readouterr().out == f"{out}: 2 clips\n"
    assert lines(out)[0] == {
        "audio_filepath": "../LibriSpeech/test-clean/61/9/61-9-0000.flac",
        "duration": 0.1,
        "time": None,
        "text": "HE SAID",
        "pred_text": "",
    }
    clips = read_manifest(out)
    assert [(clip.kind, clip.audio_path.is_file()) for clip in clips] == [("speech", True)] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: export takes a folder of results, or --manifest with -o FILE"),
        (["results", "--manifest", "a.jsonl", "-o", "b"], "error: export takes a folder of results, or --manifest"),
        (["--manifest", "a.jsonl"], "error: export takes a folder of results, or --manifest with -o FILE"),
        (["results", "--format", "open_asr"], "error: unknown export format 'open_asr'; did you mean 'open-asr'"),
        (["nowhere"], "error: nowhere: no predictions in it"),
    ],
)
def test_export_of_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert call(monkeypatch, "export", *arguments) == 2
    assert capsys.readouterr().err.startswith(message)


def test_an_unknown_format_shows_before_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(runner, "run", lambda *_: pytest.fail("ran"))
    assert call(monkeypatch, "run", "--manifest", "a", "--export", "nemo", "-o", tmp_path) == 2
    assert capsys.readouterr().err.startswith("error: unknown export format 'nemo'")


def test_a_run_exports_also_when_its_condition_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    predictions = (record(segment(" you"), clip="noise"), spoken("a", " a"))
    monkeypatch.setattr(runner, "run", lambda _, out: write_predictions(out, *predictions))
    monkeypatch.setattr(cli, "draw", lambda *_: None)
    condition = ("--fail-if", "stock.nonspeech.hallucination_rate.r > 0.5")
    command = ("run", "--manifest", "a", "--systems", "stock", *condition, "--export", "open-asr", "-o", tmp_path)
    assert call(monkeypatch, *command) == 1
    assert [row["audio_filepath"] for row in lines(tmp_path / "open-asr" / CLEAN)] == ["a"]


def test_a_run_over_roots(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_whisper_dir: Path
) -> None:
    monkeypatch.setattr(cli, "draw", lambda *_: None)  # pictures take longest and have tests of their own
    roots = [fsd50k(tmp_path), f"{librispeech(tmp_path)}::test-clean", demand(tmp_path), fleurs(tmp_path)]
    manifests = [argument for root in roots for argument in ("--manifest", root)]
    options = ("--systems", "stock", "--timestamps", "--device", "cpu", "--cpu-threads", 1, "--export", "open-asr")
    out = tmp_path / "out"
    command = ("run", *manifests, "--model", tiny_whisper_dir, *options, "-o", out)
    assert call(monkeypatch, *command) == 0
    clips = {found["clip"]: found for _, found in read_predictions(out)}
    assert [name.partition(":")[0] for name in clips] == ["fsd50k"] * 3 + ["librispeech"] * 2 + ["demand"] * 2 + [
        "fleurs"
    ] * 3
    assert clips["fsd50k:FSD50K.eval_audio/4.wav"]["category"] == "human"
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["systems"]["stock"]["nonspeech"]["clips"] == 5
    assert report["systems"]["stock"]["speech"]["clips"] == 5
    assert [(source["name"], source["clips"]) for source in report["data"]["manifests"]] == [
        *(("FSD50K", 3), ("LibriSpeech::test-clean", 2), ("DEMAND", 2), ("fleurs", 3))
    ]
    exported = {path.name.partition("_DATASET_")[2]: lines(path) for path in (out / "open-asr").iterdir()}
    assert {name: len(rows) for name, rows in exported.items()} == {
        "librispeech_test.clean.jsonl": 2,
        "fleurs_en_dev.jsonl": 2,
        "fleurs_zh_test.jsonl": 1,
    }
    before = (out / "predictions.jsonl").read_bytes()
    capsys.readouterr()
    assert call(monkeypatch, *command) == 0, "the same roots resume"
    assert (out / "predictions.jsonl").read_bytes() == before
    (tmp_path / "DEMAND" / "SCAFE" / "ch01.wav").write_bytes((tmp_path / "DEMAND/SCAFE/ch16.wav").read_bytes() + b"\0")
    assert call(monkeypatch, *command) == 2
    assert "data.manifests was" in capsys.readouterr().err
