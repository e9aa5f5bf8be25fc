"""`steer-asr-train speed`: what is measured, how it is summed up, and what goes wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from steer_asr.errors import SteerOptionError
from steer_asr_training.cli import app
from steer_asr_training.speed import driver, environments, roofline
from steer_asr_training.speed.activations import write_planted, write_stored
from steer_asr_training.speed.environments import OURS, Peer, SpeedError, environment
from steer_asr_training.speed.run import Bench, SpeedConfig, loss, measure
from steer_asr_training.speed.summary import markdown, summary
from tests.training.builders import planted_store


def contender(name: str, kind: str, speeds: list[float], fvu: float = 0.5) -> dict[str, Any]:
    rest = {"ms_per_step": 10.0, "peak_mb": 700.0, "training_mb": 300.0}
    return {
        "name": name,
        "kind": kind,
        "long": {"mse": fvu, "fvu": fvu, "l0": 4.0},
        "rounds": [{"frames_per_s": s, "frames_per_cpu_s": s / 2, **rest} for s in speeds],
    }


RESULT: dict[str, Any] = {
    "settings": {
        "d_sae": 64, "k": 4, "batch": 32, "d_in": 16, "steps": 9, "warmup": 2, "rounds": 3,
        "loss_steps": 20, "lr": 1e-3, "kinds": ["topk"],
    },
    "activations": "planted",
    "machine": {"processor": "a processor", "threads": 1, "cores": 2, "torch": "2.13.0", "load_before": 0.5},
    "environments": {"fast": {"fast-lib": "1.2"}},
    "scaling": [
        {"d_sae": 64, "dense": {"ms_per_step": 30.0, "peak_mb": 9.0}, "sparse": {"ms_per_step": 10.0, "peak_mb": 5.0}}
    ],
    "roofline": {"skipped": "no GPU"},
}  # fmt: skip


def test_ratios_are_taken_within_rounds_and_against_the_fastest() -> None:
    contenders = [
        contender(OURS, "topk", [300.0, 100.0, 200.0], fvu=0.51),
        contender("fast", "topk", [150.0, 50.0, 80.0]),
        contender("slow", "topk", [30.0, 10.0, 10.0], fvu=0.1),
        contender("other", "batch_topk", [900.0, 900.0, 900.0]),
    ]
    [wall, cpu] = summary(contenders)
    assert wall["fastest"] == "fast"
    assert wall["ratios"]["fast"] == {"median": 2.0, "min": 2.0, "max": 2.5}
    assert wall["times_the_fastest"] == 2.0
    assert wall["loss_no_worse"] is True, "within 2 % of the fastest's; the slow one's is another matter"
    assert set(wall["ratios"]) == {"fast", "slow"}, "another kind is no match"
    assert cpu["clock"] == "frames_per_cpu_s"
    contenders[0] = contender(OURS, "topk", [300.0, 100.0, 200.0], fvu=0.52)
    assert summary(contenders)[0]["loss_no_worse"] is False


def test_the_page_says_what_was_measured() -> None:
    contenders = [contender(OURS, "topk", [300.0, 100.0, 200.0]), contender("fast", "topk", [150.0, 50.0, 80.0])]
    page = markdown(RESULT | {"contenders": contenders, "summary": summary(contenders)}, "steer-asr-train speed")
    assert "| ours | topk | 200 | 100 to 300 | 100 | 0.5000 | 0.5000 | 4.0 | 700 | 300 |" in page
    assert "| topk | by the wall clock | fast (fastest) | 2.00 | 2.00 to 2.50 |" in page
    assert "| 64 | 30 | 10 | 3.0 | 9 | 5 |" in page
    assert "not given (no GPU)" in page
    assert "fast-lib 1.2" in page
    alone = [contenders[0]]
    assert "No peer was measured." in markdown(RESULT | {"contenders": alone, "summary": summary(alone)}, "x")


def test_the_mean_explains_nothing_and_the_frames_everything() -> None:
    x = np.array([[1.0, 0.0], [3.0, 4.0]], np.float32)
    assert loss(x, np.broadcast_to(x.mean(axis=0), x.shape)) == {"mse": 2.5, "fvu": 1.0}
    assert loss(x, x) == {"mse": 0.0, "fvu": 0.0}
    assert loss(x, x + 1) == {"mse": 1.0, "fvu": 0.4}


def test_made_up_frames_are_the_same_for_a_seed_and_centred(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_planted(tmp_path / name, d_in=12, n_frames=300, n_held_out=100, seed=seed)
    a, b, c = (np.load(tmp_path / name / "train.npy") for name in "abc")
    assert a.shape == (300, 12)
    assert a.dtype == np.float32
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    both = np.concatenate([a, np.load(tmp_path / "a" / "held_out.npy")])
    np.testing.assert_allclose(both.mean(axis=0), 0, atol=1e-5)
    assert np.linalg.norm(both, axis=1).mean() == pytest.approx(12**0.5, rel=1e-5)


def test_frames_of_a_store(tmp_path: Path) -> None:
    store = planted_store(tmp_path / "acts", n_windows=40)
    source = write_stored(tmp_path, store.folder, "encoder.output", n_frames=500, n_held_out=100, seed=0)
    assert source.startswith("encoder.output of ")
    assert np.load(tmp_path / "train.npy").shape == (500, 32)
    with pytest.raises(SteerOptionError, match="1000100 are needed, or fewer --steps"):
        write_stored(tmp_path, store.folder, "encoder.output", n_frames=1_000_000, n_held_out=100, seed=0)


def test_the_clock_counts_the_steps_behind_the_warm_up(tmp_path: Path) -> None:
    """In this process; the loss falls with more steps, so something was trained."""
    write_planted(tmp_path, d_in=16, n_frames=640, n_held_out=128, seed=0)
    job = {
        "contender": OURS, "kind": "topk", "activations": str(tmp_path / "train.npy"), "d_sae": 128, "k": 4,
        "held_out": str(tmp_path / "held_out.npy"), "batch": 64, "warmup": 2, "lr": 3e-3, "seed": 0, "threads": 1,
        "device": "cpu", "tf32": False, "decode": "auto", "reconstruction": str(tmp_path / "x.npy"),
    }  # fmt: skip
    x, fvu = np.load(tmp_path / "held_out.npy"), []
    for steps in (3, 60):
        measured = driver.main(job | {"steps": steps})
        fvu.append(loss(x, np.load(tmp_path / "x.npy"))["fvu"])
        assert measured["l0"] == pytest.approx(4, abs=0.1)
        assert measured["frames_per_s"] == pytest.approx(64 / measured["ms_per_step"] * 1000)
        assert measured["frames_per_cpu_s"] > 0
    assert fvu[1] < 0.8 * fvu[0]


def test_contenders_take_turns_and_every_size_is_decoded_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []

    def train(_: Bench, name: str, kind: str, **changes: Any) -> dict[str, Any]:
        calls.append((name, kind, *(str(changes[key]) for key in ("d_sae", "decode") if key in changes)))
        return {"call": len(calls)}

    monkeypatch.setattr(Bench, "train", train)
    bench = Bench(SpeedConfig(rounds=2, peers=("saelens", "sparsify"), scaling=(64, 128)), tmp_path, {})
    records = bench.rounds()
    each = [(OURS, "batch_topk"), (OURS, "topk"), ("saelens", "batch_topk"), ("saelens", "topk"), ("sparsify", "topk")]
    assert [(record["name"], record["kind"]) for record in records] == each
    assert calls == [*each, *each[1:], each[0]], "another one starts each round"
    assert [measured["call"] for measured in records[0]["rounds"]] == [1, 10]
    calls.clear()
    bench.add_losses(records)
    assert calls == each
    assert records[1]["long"] == {"call": 2}
    calls.clear()
    assert [row["d_sae"] for row in bench.scaling()] == [64, 128]
    assert calls == [(OURS, "batch_topk", str(n), decode) for n in (64, 128) for decode in ("dense", "sparse")]


@pytest.mark.slow
def test_the_command_writes_json_and_a_page(tmp_path: Path) -> None:
    options = ["--peers", "none", "--kinds", "topk", "--d-in", "16", "--d-sae", "64", "--k", "3", "--batch", "64"]
    options += ["--steps", "4", "--warmup", "1", "--rounds", "1", "--loss-steps", "9", "--threads", "1"]
    options += ["--scaling", "none"]
    done = CliRunner().invoke(app, ["speed", "-o", str(tmp_path), *options], catch_exceptions=False)
    assert done.exit_code == 0
    last = json.loads(done.stdout.splitlines()[-1])
    result = json.loads((tmp_path / "speed.json").read_text())
    assert last["summary"] == result["summary"]
    assert [record["name"] for record in result["contenders"]] == [OURS]
    assert 0 < result["contenders"][0]["long"]["fvu"] < 1
    assert result["scaling"] == []
    assert "no GPU" in result["roofline"]["skipped"]
    assert "| ours | topk |" in (tmp_path / "speed.md").read_text()


def interpreter(folder: Path, name: str) -> Path:
    """What looks like an environment's interpreter, and is this one."""
    python = folder / name / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for the interpreter")
def test_an_environment_that_is_there_is_used_and_a_library_that_is_not_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    python = interpreter(tmp_path, "sparsify")
    installed = environments.versions(Path(sys.executable), ["numpy", "no-such-package"])
    assert installed == {"numpy": np.__version__}
    monkeypatch.setitem(environments.PEERS, "sparsify", Peer("numpy", np.__version__, ("topk",)))
    assert environment("sparsify", tmp_path, torch.__version__) == python
    tiny = SpeedConfig(
        kinds=("topk",), peers=("sparsify",), d_in=8, d_sae=32, k=2, batch=32, steps=3, warmup=1, rounds=1, threads=1,
        loss_steps=2, scaling=(),
    )  # fmt: skip
    with pytest.raises(SpeedError, match=r"sparsify \(topk\) failed: .*No module named 'sparsify'"):
        measure(tiny, tmp_path)


def test_a_failed_installation_says_what_to_leave_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments.sys, "executable", "/bin/false")
    with pytest.raises(SpeedError, match="`/bin/false -m venv .* failed.*--peers with the others, or none"):
        environment("saelens", tmp_path, "2.13.0")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peers": ("saelense",)}, "unknown peer 'saelense'; did you mean 'saelens'"),
        ({"kinds": ("jumprelu",)}, "unknown kind 'jumprelu'"),
        ({"kinds": ()}, "at least one kind"),
        ({"warmup": 20}, "warmup must lie between 0 and steps"),
        ({"batch": 0}, "batch must be positive"),
        ({"k": 3000}, "k cannot be more than the number of features"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SteerOptionError, match=message):
        SpeedConfig(**settings)


def test_operations_and_shares_of_the_roofline(monkeypatch: pytest.MonkeyPatch) -> None:
    assert roofline.step_flops(512, 4096, 32, 2048, sparse=False) == 6 * 2 * 512 * 4096 * 2048
    assert roofline.step_flops(512, 4096, 32, 2048, sparse=True) == 2 * 512 * 2048 * (4096 + 4 * 32)
    monkeypatch.setattr(roofline.torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    speed = 494.7e12 / 2 / (12 * 512 * 4096)  # half the peak
    found = roofline.roofline("cuda", 512, 4096, 32, 2048, [contender(OURS, "topk", [speed])])
    assert found["shares"][0]["share_of_tf32"] == pytest.approx(0.5)
    assert found["shares"][0]["share_of_bf16"] == pytest.approx(0.25)
    monkeypatch.setattr(roofline.torch.cuda, "get_device_name", lambda: "Another GPU")
    assert "Another GPU is not in the table" in roofline.roofline("cuda", 8, 8, 1, 1, [])["skipped"]
