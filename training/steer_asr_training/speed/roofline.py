"""What the machine is, and how much of it a step uses: operations by formula, over the published peak."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from statistics import median
from typing import Any

import torch

PEAK_TFLOPS = {
    # NVIDIA's data sheets, dense, without sparsity: (TF32, bfloat16)
    "H200": (494.7, 989.4),
    "H100 PCIe": (378.0, 756.0),
    "H100": (494.7, 989.4),
    "A100": (156.0, 312.0),
    "L40S": (183.0, 362.05),
    "L4": (60.0, 121.0),
    "A10": (62.5, 125.0),
    "RTX 4090": (82.6, 165.2),
}
"""By part of the device's name; the first that fits counts."""


def step_flops(d_in: int, d_sae: int, k: float, batch: int, *, sparse: bool) -> float:
    """Floating-point operations of the matrix products of one training step.

    A dense step has six products of 2 * batch * d_in * d_sae: encoder, decoder, and the gradients of both weights, of
    the code and of the encoder's input. A sparse one has the first, and four over the kept entries.
    """
    full, kept = 2.0 * batch * d_in * d_sae, 2.0 * batch * d_in * k
    return full + 4 * kept if sparse else 6 * full


def roofline(
    device: str, d_in: int, d_sae: int, k: float, batch: int, contenders: list[dict[str, Any]]
) -> dict[str, Any]:
    """Share of the GPU's published peak that each contender reaches, or why that is not said."""
    if device != "cuda":
        return {"skipped": "no GPU: the peak of a processor depends on its clock, which is not published per core"}
    name = torch.cuda.get_device_name()
    peak = next((peaks for part, peaks in PEAK_TFLOPS.items() if part in name), None)
    if peak is None:
        return {"skipped": f"the peak of {name} is not in the table of steer_asr_training/speed/roofline.py"}
    flops = step_flops(d_in, d_sae, k, batch, sparse=False)
    shares = []
    for contender in contenders:
        per_s = flops / batch * median(measured["frames_per_s"] for measured in contender["rounds"])
        shares.append(
            {
                "name": contender["name"],
                "kind": contender["kind"],
                "tflops": per_s / 1e12,
                "share_of_tf32": per_s / 1e12 / peak[0],
                "share_of_bf16": per_s / 1e12 / peak[1],
            }
        )
    return {"gpu": name, "tf32_tflops": peak[0], "bf16_tflops": peak[1], "dense_step_flops": flops, "shares": shares}


def machine(device: str, threads: int) -> dict[str, Any]:
    """What a reader has to know of this computer."""
    found = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    return found | {"gpu": torch.cuda.get_device_name()} if device == "cuda" else found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
