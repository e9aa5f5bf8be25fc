"""A torch encoder in front of CTranslate2's decoder: the `hybrid` executor.

    model = load_model("base", executor="hybrid")
    segments, info = model.transcribe("call.wav", steer="my-inner-layer-pack@0.5")

CTranslate2 shows its encoder's final output and nothing before it. So here the encoder is transformers', with the
weights of the same CTranslate2 directory, and a pack may edit the output of any of its layers. faster-whisper's
front-end, decoding and all of `steer_asr.ct2` stay as they are. Needs the `[torch]` extra.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import ctranslate2
import numpy as np
import torch

from steer_asr._ct2_run import Run
from steer_asr._torch_edit import edit_for, resolve_in_encoder
from steer_asr.ct2 import SteeredWhisperModel
from steer_asr.hooks import OUTPUT_HOOK_POINT, hooked
from steer_asr.models import ModelFiles
from steer_asr.pack import SteerPack
from steer_asr.steering import FrameReport, audio_frames
from steer_asr.weights.convert import hf_from_ct2

EXECUTOR = "hybrid"


class HybridWhisperModel(SteeredWhisperModel):
    """A `SteeredWhisperModel` that encodes with torch, in float32, on the device that CTranslate2 decodes on.

    `compute_type` and `cpu_threads` are the decoder's; torch has its own number of threads (`torch.set_num_threads`).
    Raises `WeightsError` for a CTranslate2 directory with int8 weights, whose original weights are gone.
    """

    executor = EXECUTOR

    def __init__(self, model: str | os.PathLike[str] | ModelFiles, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        on_gpu = self.model.device == "cuda"
        self._device = torch.device("cuda", self.model.device_index[0]) if on_gpu else torch.device("cpu")
        encoder = hf_from_ct2(self.files.path).model.encoder
        self._torch = torch.nn.ModuleDict({"encoder": encoder}).to(self._device)  # so that paths begin with "encoder."

    def encode(self, features: np.ndarray) -> ctranslate2.StorageView:
        """Encodes a window [n_mels, 3000] or a batch of them, and steers it when this model is bound to a steering."""
        mel = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(self._device)
        mel = mel[None] if mel.ndim == 2 else mel
        output = self._forward(mel) if self._run is None else self._steered(mel, audio_frames(features), self._run)
        return ctranslate2.StorageView.from_array(output)

    def _forward(self, mel: torch.Tensor) -> np.ndarray:
        """The encoder's output, float32 [batch, frame, d_model]."""
        with torch.inference_mode():
            return self._torch["encoder"](mel).last_hidden_state.cpu().numpy()

    def _steered(self, mel: torch.Tensor, heard: list[int], run: Run) -> np.ndarray:
        edit, this_thread = edit_for(run.pack, self._device), threading.get_ident()
        frames: list[FrameReport] = []

        def steer(x: torch.Tensor) -> torch.Tensor | None:
            if threading.get_ident() != this_thread:
                return None  # the encoder is shared: another thread runs it, with its own settings
            if run.keep_plain and run.pack.hook_point == OUTPUT_HOOK_POINT:
                run.plain = x.cpu().numpy().copy()
            edited, frames[:] = edit(x, [run.steering.strength] * len(x), heard)
            return edited

        if run.keep_plain and run.pack.hook_point != OUTPUT_HOOK_POINT:
            run.plain = self._forward(mel)
        with hooked(self._torch, {run.pack.hook_point: steer}):
            output = self._forward(mel)
        run.record(frames)
        return output

    def _check_hook_point(self, pack: SteerPack) -> None:
        resolve_in_encoder(self._torch, pack)
