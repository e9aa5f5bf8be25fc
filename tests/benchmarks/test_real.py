"""The whole benchmark on real weights (tiny.en) and the demo's real clips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steer_asr.errors import ModelError
from steer_asr.models import find_model
from steer_asr.pack import save_pack
from steer_asr_benchmarks.predictions import read_predictions
from steer_asr_benchmarks.report import build_report
from steer_asr_benchmarks.runner import RunOptions, run
from steer_asr_benchmarks.systems import ModelOptions
from tests.steer_asr.packs import open_gate, random_pack

DEMO = Path(__file__).parents[2] / "benchmarks" / "demo"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech, frogs and hum through stock and steered tiny.en; the pack's random edit is far too strong."""
    try:
        sha256 = find_model("tiny.en", local_files_only=True).sha256
    except ModelError as error:
        pytest.skip(f"needs the tiny.en wheel: {error}")
    folder = tmp_path_factory.mktemp("real")
    (folder / "clips").symlink_to(DEMO / "clips")
    rows = map(json.loads, (DEMO / "clips.jsonl").read_text(encoding="utf-8").splitlines())
    kept = [row for row in rows if Path(row["audio_filepath"]).stem in ("speech-short", "frogs", "hum")]
    (folder / "clips.jsonl").write_text("\n".join(map(json.dumps, kept)), encoding="utf-8")
    pack = save_pack(random_pack(384, sha256, gate=open_gate(16)), folder / "pack", card="")
    systems = ("stock", f"steered:{pack}@0", f"steered:{pack}", "stock+vad")
    options = RunOptions(
        (folder / "clips.jsonl",),
        systems=systems,
        model=ModelOptions("tiny.en", "cpu", "float32", 1),
        modes=("no_timestamps",),
    )
    run(options, folder / "out")
    return folder / "out"


@pytest.mark.slow
def test_report_on_real_audio(out: Path) -> None:
    report = build_report(out)
    stock, zero, strong, vad = report["systems"].values()
    assert stock["nonspeech"]["hallucination_rate"]["r"] == 1.0, "tiny.en writes something for frogs and for hum"
    assert vad["nonspeech"]["hallucination_rate"]["r"] == 0.0
    assert (stock["speech"]["wer"], stock["speech"]["words"]) == (0.0, 8)
    assert vad["speech"]["missed"] == 0
    assert report["progress"] == {"predictions": 12, "expected": 12, "complete": True}
    assert zero["steering"]["edited_share"] == {"nonspeech": 0.0, "speech": 0.0}
    assert strong["steering"]["edited_share"]["speech"] == pytest.approx(1.0, abs=1e-3)
    changes = list(report["differences"].values())
    assert changes[0]["changed_texts"] == 0
    assert changes[1]["changed_texts"] > 0
    assert strong["cost"]["rtf"] > 0


@pytest.mark.slow
def test_records_of_real_audio(out: Path) -> None:
    records = [record for _, record in read_predictions(out)]
    for record in records:
        assert len(record["windows"]) == (0 if record["system"] == "stock+vad" and record["kind"] == "nonspeech" else 1)
        assert (record["edited_share"] is not None) == record["system"].startswith("steered")
    [speech] = [r for r in records if r["system"] == "stock" and r["kind"] == "speech"]
    assert speech["text"] == "He might even have been made amiable himself."
    assert speech["windows"][0]["no_speech_prob"] < 0.5
