"""Frozen audio encoders: waveforms in, activations at named hook points out. Whisper and HuBERT.

encoder = load_encoder("base")
[window] = encoder.capture([wave], ["encoder.layers.3", "encoder.output"])
window.activations["encoder.output"]      # float32 [frame, d_in]; window.n_real_frames of them hear the audio
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from steer_asr._files import sha256_of
from steer_asr.errors import ModelError, SteerOptionError
from steer_asr.hooks import OUTPUT_HOOK_POINT, hooked
from steer_asr.models import find_model
from steer_asr.weights.convert import hf_from_ct2, read_json

SAMPLES_PER_FRAME = 320  # 20 ms at 16 kHz, for Whisper and HuBERT alike
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Window:
    """What one window of audio looked like inside the encoder."""

    activations: dict[str, np.ndarray]
    """Hook point to float32 [frame, d_in]."""
    n_real_frames: int
    """The first so many frames hear the audio; the rest is padding."""


class AudioEncoder(Protocol):
    """What `collect` needs of an encoder."""

    name: str
    sha256: str
    front_end: str

    def hook_points(self) -> list[str]: ...

    def capture(self, waves: Sequence[np.ndarray], points: Sequence[str]) -> list[Window]: ...


def load_encoder(model: str, *, precision: str = "auto", device: str = "auto") -> AudioEncoder:
    """A Whisper by name or CTranslate2 directory, or a HuBERT by transformers directory.

    `precision` is "float32", "bfloat16" (about twice as fast where the CPU or GPU supports it, 1 % error) or "auto",
    which takes bfloat16 where it is native. Raises `ModelError` when the model is not found.
    """
    if precision != "auto" and precision not in PRECISIONS:
        raise SteerOptionError(f"precision {precision!r}: choose auto, {', '.join(PRECISIONS)}")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if precision == "auto":
        precision = "bfloat16" if native_bfloat16(device) else "float32"
    config = Path(model) / "config.json"
    if config.is_file() and read_json(config).get("model_type") == "hubert":
        return HubertEncoder(Path(model), PRECISIONS[precision], device)
    return WhisperEncoder(model, PRECISIONS[precision], device)


def native_bfloat16(device: str) -> bool:
    """True when `device` multiplies bfloat16 matrices in hardware."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    capabilities: dict[str, Any] = dict(found)
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


class _TorchEncoder:
    """Hooks every point at once, runs the encoder once, hands the activations back in float32."""

    def __init__(self, module: nn.Module, dtype: torch.dtype, device: str) -> None:
        self.module: Any = module.to(device).eval()
        self.dtype, self.device = dtype, device

    def _run(self, inputs: torch.Tensor, points: Sequence[str]) -> dict[str, np.ndarray]:
        caught: dict[str, torch.Tensor] = {}

        def catch(point: str) -> Any:
            return lambda x: caught.__setitem__(point, x.detach().float().cpu())

        mixed = torch.autocast(self.device, dtype=self.dtype, enabled=self.dtype != torch.float32)
        with torch.inference_mode(), mixed, hooked(self.module, {point: catch(point) for point in points}):
            self._forward(inputs.to(self.device))
        return {point: caught[point].numpy() for point in points}

    def _forward(self, inputs: torch.Tensor) -> None:
        raise NotImplementedError


class WhisperEncoder(_TorchEncoder):
    """A Whisper encoder behind the mel front-end of faster-whisper, whose padding differs from transformers'."""

    front_end = "faster-whisper"

    def __init__(self, model: str, dtype: torch.dtype, device: str) -> None:
        from faster_whisper.feature_extractor import FeatureExtractor

        files = find_model(model)
        self.name, self.sha256 = files.name, files.sha256
        whisper = hf_from_ct2(files.path)
        super().__init__(whisper.model, dtype, device)
        self.extractor = FeatureExtractor(feature_size=whisper.config.num_mel_bins)
        self.n_layers = whisper.config.encoder_layers

    def hook_points(self) -> list[str]:
        return [f"encoder.layers.{i}" for i in range(self.n_layers)] + [OUTPUT_HOOK_POINT]

    def capture(self, waves: Sequence[np.ndarray], points: Sequence[str]) -> list[Window]:
        caught = self._run(torch.from_numpy(np.stack([self._mel(wave) for wave in waves])), points)
        return [
            Window({point: caught[point][i] for point in points}, min(1500, -(-len(wave) // SAMPLES_PER_FRAME)))
            for i, wave in enumerate(waves)
        ]

    def _mel(self, wave: np.ndarray) -> np.ndarray:
        """Log-mel window as faster-whisper serves it: float32 [n_mels, 3000], padded with 0.0 and not with silence."""
        from faster_whisper.audio import pad_or_trim

        return pad_or_trim(self.extractor(wave)[:, :-1]).astype(np.float32)

    def _forward(self, inputs: torch.Tensor) -> None:
        self.module.encoder(inputs)


class HubertEncoder(_TorchEncoder):
    """A HuBERT from a transformers directory; waveforms are normalised when its preprocessor says so."""

    front_end = "waveform"

    def __init__(self, folder: Path, dtype: torch.dtype, device: str) -> None:
        from transformers import HubertModel

        try:
            hubert = HubertModel.from_pretrained(os.fspath(folder), local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder}: cannot be loaded as a HuBERT ({error})") from error
        super().__init__(hubert, dtype, device)
        self.name = folder.name
        self.sha256 = sha256_of(*sorted(folder.glob("*.safetensors")))
        preprocessor = folder / "preprocessor_config.json"
        self.normalize = preprocessor.is_file() and bool(read_json(preprocessor).get("do_normalize"))
        self.n_layers = hubert.config.num_hidden_layers

    def hook_points(self) -> list[str]:
        return [f"encoder.layers.{i}" for i in range(self.n_layers)]

    def capture(self, waves: Sequence[np.ndarray], points: Sequence[str]) -> list[Window]:
        windows = []
        for wave in waves:  # one at a time: HuBERT has no padding mask at this size, so nothing is ever padded
            wave = np.pad(wave, (0, max(0, 2 * SAMPLES_PER_FRAME - len(wave))))
            if self.normalize:
                wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
            caught = self._run(torch.from_numpy(wave[None]), points)
            windows.append(Window({p: caught[p][0] for p in points}, caught[points[0]].shape[1]))
        return windows

    def _forward(self, inputs: torch.Tensor) -> None:
        self.module(inputs)
