"""A fit whose batches are spread over processes is the fit of one process, up to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from steer_asr.errors import SteerOptionError
from steer_asr_training.fit import CHECKPOINT_FILE, FitConfig, fit_layers, store_batches
from steer_asr_training.fit_run import FitRun
from steer_asr_training.ray_fit import Share, places
from steer_asr_training.sae_kinds import KINDS
from steer_asr_training.store import ActivationStore
from tests.training.builders import POINT, planted_store
from tests.training.shares import train_in_processes

CONFIG = FitConfig(
    d_sae=48, k=3, k_start=8, steps=40, batch_frames=65, lr=5e-3, checkpoint_every=15, dead_after_frames=300,
    windows_in_buffer=6, weights={"kind:speech": 1.5},
)  # fmt: skip
"""65 frames do not halve, and features die early, so that AuxK has something to do."""
DECODES = ("dense", "sparse")
TOLERANCE = 1e-4


def cases() -> Iterator[tuple[str, FitConfig]]:
    for kind in KINDS:
        for decode in DECODES:
            yield f"{kind}-{decode}", replace(CONFIG, kind=kind, decode=decode)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CASE/{one,two}/checkpoint.pt, made by one process and by two."""
    folder = tmp_path_factory.mktemp("shares")
    store, shares = planted_store(folder / "acts"), []
    for name, config in cases():
        fit_layers(config, store, folder / name / "one", [POINT])
        shares.append(started(config, store, folder / name / "two"))
    train_in_processes(shares, folder / "meeting-point")
    return folder


def started(config: FitConfig, store: ActivationStore, folder: Path) -> Share:
    """What a driver does before there are workers."""

    class Stop(Exception):
        pass

    def stop(run: FitRun, batches: Any, **_: Any) -> None:
        run.save(batches)
        raise Stop

    with pytest.raises(Stop):
        fit_layers(config, store, folder, [POINT], on=stop)
    return Share(config, str(store.folder), str(folder), (POINT,))


@pytest.mark.parametrize("case", dict(cases()))
def test_two_processes_train_what_one_does(trained: Path, case: str) -> None:
    one, two = (
        torch.load(trained / case / name / CHECKPOINT_FILE, weights_only=True, map_location="cpu")
        for name in ("one", "two")
    )
    assert two["step"] == one["step"] == CONFIG.steps
    assert two["batches"] == one["batches"]
    ours, theirs = two["learners"][POINT], one["learners"][POINT]
    assert torch.equal(ours["sae"]["frames_since_fired"], theirs["sae"]["frames_since_fired"])
    assert int((theirs["sae"]["frames_since_fired"] > CONFIG.dead_after_frames).sum()) or "jumprelu" in case
    torch.testing.assert_close(ours["sae"], theirs["sae"], rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(ours["optimizer"]["state"], theirs["optimizer"]["state"], rtol=TOLERANCE, atol=TOLERANCE)


def test_shares_make_up_the_batches(tmp_path: Path) -> None:
    store = planted_store(tmp_path / "acts")
    whole = store_batches(CONFIG, store, [POINT])
    shares = [store_batches(CONFIG, store, [POINT], (i, 3)) for i in range(3)]
    for _ in range(12):
        parts = [next(share)[POINT] for share in shares]
        assert [len(part) for part in parts] == [22, 22, 21]
        assert torch.equal(torch.cat(parts), next(whole)[POINT])


def node(cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus} | ({"GPU": gpus} if gpus else {})}


@pytest.mark.parametrize(
    ("nodes", "workers", "gpu", "expected"),
    [
        ([node(8), node(4)], 0, False, (2, 4)),
        ([node(8), node(4)], 1, False, (1, 8)),
        ([node(8), node(4)], 3, False, (3, 4)),
        ([node(8), node(4)], 12, False, (12, 1)),
        ([node(8), node(4, alive=False)], 0, False, (1, 8)),
        ([node(8, 2), node(8, 1)], 0, True, (3, 4)),
        ([node(8, 2), node(8)], 2, True, (2, 4)),
        ([node(8, 2)], 0, False, (1, 8)),
    ],
)
def test_workers_share_the_nodes(nodes: list[Any], workers: int, gpu: bool, expected: tuple[int, int]) -> None:
    assert places(nodes, workers, gpu=gpu) == expected


def test_more_workers_than_there_is_room_for() -> None:
    with pytest.raises(SteerOptionError, match="--workers 13: the Ray cluster has 12 CPUs"):
        places([node(8), node(4)], 13, gpu=False)
    with pytest.raises(SteerOptionError, match="the Ray cluster has 0 GPUs"):
        places([node(8)], 0, gpu=True)
