"""`collect --ray` and `fit --ray`: a real cluster on this machine; what it makes is what one process makes."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from steer_asr._cluster import MAX_LOSSES, Losses
from steer_asr.errors import AudioError, SteerASRError, SteerOptionError, WorkerError
from steer_asr_training import cli, ray_collect, ray_fit
from steer_asr_training.collect import WINDOWS_PER_SHARD, CollectConfig, Collector, collect
from steer_asr_training.fit import CHECKPOINT_FILE, FitConfig, fit_layers
from steer_asr_training.ray_collect import RayCollector, collect_on_ray, description
from steer_asr_training.ray_fit import RayTrainer
from steer_asr_training.windows import DataConfig
from tests.own_ray import ray_workers
from tests.training.builders import POINT, planted_store, write_hubert, write_noises

# Ray Data warns of settings of its own, whenever it reads them.
pytestmark = [pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning"), pytest.mark.timeout(600)]
CLIPS_ALONE = DataConfig(
    varied_nonspeech=0, synthetic_nonspeech=0, noisy_speech=0, placed_speech=0, disguised_speech=0,
    disguised_nonspeech=0, only_shippable=False,
)  # fmt: skip
N_WINDOWS = WINDOWS_PER_SHARD + 3
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> CollectConfig:
    """Two shards of short windows, for a HuBERT that is tiny and random."""
    folder = tmp_path_factory.mktemp("audio")
    manifest = write_noises(folder, n=N_WINDOWS)
    hubert = write_hubert(folder / "hubert")
    return CollectConfig(str(hubert), (str(manifest),), ("encoder.layers.0", "encoder.layers.1"), CLIPS_ALONE)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_collected_on_ray_the_shards_are_the_same_bytes(config: CollectConfig, tmp_path: Path) -> None:
    one = collect(config, tmp_path / "one")
    two = collect_on_ray(config, tmp_path / "two", workers=2)
    names = sorted(path.name for path in one.iterdir())
    assert len(names) == 3
    assert sorted(path.name for path in two.iterdir()) == names
    for name in names:
        assert (two / name).read_bytes() == (one / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_what_a_worker_cannot_do_is_its_error(config: CollectConfig, tmp_path: Path) -> None:
    import ray

    losses: Any = ray.remote(num_cpus=0)(Losses).remote()
    expected = description(Collector(config))
    worker = RayCollector(config, str(tmp_path), expected, None, 1, os.getcwd(), losses)
    ray.get([losses.begin.remote("shard 1") for _ in range(MAX_LOSSES)])
    with pytest.raises(WorkerError, match="shard 1: 3 Ray workers died over it"):
        raise error_of(worker, 1)
    assert isinstance(worker.collector, Collector)
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"not audio")
    worker.collector.clips = [replace(clip, audio_path=broken) for clip in worker.collector.clips]
    with pytest.raises(AudioError, match="broken.wav"):
        raise error_of(worker, 0)
    assert not list(tmp_path.glob("shard*"))


def test_a_worker_that_is_set_up_otherwise_collects_nothing(config: CollectConfig, tmp_path: Path) -> None:
    expected = description(Collector(config)) | {"model_sha256": "0" * 64}
    worker = RayCollector(config, str(tmp_path), expected, None, 1, os.getcwd(), losses=None)
    with pytest.raises(SteerOptionError, match=f"worker on {socket.gethostname()} is not set up .* model_sha256 is"):
        raise error_of(worker, 0)


def error_of(worker: RayCollector, shard: int) -> SteerASRError:
    return pickle.loads(worker({"shard": shard})["error"])


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_fitted_on_ray_with_a_worker_killed_the_dictionaries_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ray Train starts the workers again, and they go on from the last checkpoint."""
    store = planted_store(tmp_path / "acts")
    settings = FitConfig(
        d_sae=48, k=3, k_start=8, steps=300, batch_frames=64, lr=1e-3, checkpoint_every=25, dead_after_frames=300
    )
    fit_layers(settings, store, tmp_path / "one", [POINT])
    killed: list[int] = []
    seen: set[int] = set()

    class Killing(ray_fit.Progress):
        def advance(self, n: int = 1, note: str = "") -> None:
            super().advance(n, note)
            seen.add((tmp_path / "two" / CHECKPOINT_FILE).stat().st_mtime_ns)
            if len(seen) > 1 and not killed:
                killed.append(ray_workers("RayTrainWorker")[0])
                os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(ray_fit, "Progress", Killing)
    monkeypatch.setattr(ray_fit, "LOOK_EVERY_S", 0.02)
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    exported = fit_layers(settings, store, tmp_path / "two", [POINT], on=RayTrainer("local", workers=2))
    said = capfd.readouterr().err
    assert killed
    assert int(said.partition("fit: a worker was lost; on from step ")[2].split()[0]) in range(25, 300, 25)
    one, two = (
        torch.load(tmp_path / name / CHECKPOINT_FILE, weights_only=True)["learners"][POINT]["sae"]
        for name in ("one", "two")
    )
    torch.testing.assert_close(two, one, rtol=TOLERANCE, atol=TOLERANCE)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted([CHECKPOINT_FILE, POINT])
    statistics = json.loads((exported[POINT] / "cfg.json").read_text())["metadata"]["statistics"]
    assert statistics["explained_variance"] > 0.5
    again = fit_layers(settings, store, tmp_path / "two", [POINT], on=RayTrainer("local", workers=2))
    assert again == exported, "nothing left to train"


def test_more_workers_than_frames_are_refused(tmp_path: Path) -> None:
    store, settings = planted_store(tmp_path / "acts"), FitConfig(d_sae=48, k=3, steps=2, batch_frames=3)
    with pytest.raises(SteerOptionError, match="--workers 4: a batch has 3 frames to share"):
        fit_layers(settings, store, tmp_path / "fit", [POINT], on=RayTrainer("local", workers=4))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("collect RECIPE -o out --ray", ("local", 0)),
        ("collect --ray RECIPE -o out", ("local", 0)),
        ("collect --ray host:6379 --workers 3 RECIPE -o out", ("host:6379", 3)),
        ("fit RECIPE ACTS -o out --ray auto", ("auto", 0)),
        ("fit --ray RECIPE ACTS -o out --workers 2", ("local", 2)),
    ],
)
def test_the_command_lines(
    words: str, expected: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, int]] = []
    monkeypatch.setattr(ray_collect, "collect_on_ray", lambda *_, address, workers: calls.append((address, workers)))
    monkeypatch.setattr(
        RayTrainer, "__call__", lambda self, *_, **__: calls.append((self.address, self.workers)) or stop()
    )
    planted_store(tmp_path / "acts")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: x\ncollect: {model: m, manifests: []}\nfit: {d_sae: 8, k: 2, k_start: 2, batch_frames: 16}\nlearn: {}"
    )
    names = {"RECIPE": str(recipe), "ACTS": str(tmp_path / "acts"), "out": str(tmp_path / "out")}
    monkeypatch.setattr(sys, "argv", ["steer-asr-train", *(names.get(word, word) for word in words.split())])
    with pytest.raises(SystemExit):
        cli.main()
    assert calls == [expected]


def stop() -> None:
    raise SteerOptionError("called")


def test_workers_of_a_fit_want_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    planted_store(tmp_path / "acts")
    words = ["fit", "--preset", "laptop", str(tmp_path / "acts"), "-o", str(tmp_path / "out"), "--workers", "2"]
    monkeypatch.setattr(sys, "argv", ["steer-asr-train", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: --workers is for --ray; without it, a fit is one process\n"
