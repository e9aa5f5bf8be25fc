"""The edit on the GPU that CTranslate2 encodes on: its output is viewed as a torch tensor, nothing crosses to the host.

    if can_edit(output):                    # on a GPU, and torch can use it
        reports = edit_in_place(output, pack, strength, audio_frames)

CTranslate2 waits for its stream before it hands out an encoder output, and reads it on a stream of its own, so the edit
has to be finished before it is given back. Only the reports (weights and features, not activations) are copied.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from steer_asr.pack import SteerPack
from steer_asr.steering import FrameReport


def can_edit(output: Any) -> bool:
    """True for an encoder output (ctranslate2.StorageView) on a GPU that torch can use, in a type that it can view."""
    if output.device != "cuda" or output.dtype.name not in ("float32", "float16"):
        return False
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def view(output: Any) -> Any:
    """The output as a torch tensor [batch, frame, d_model] that shares its memory."""
    import torch

    return torch.as_tensor(output, device=torch.device("cuda", output.device_index))


def edit_in_place(output: Any, pack: SteerPack, strength: float, audio_frames: Sequence[int]) -> list[FrameReport]:
    """As `steer_frames` for every window of `output`, which `can_edit` allowed; float16 is edited in float32."""
    import torch

    from steer_asr._torch_edit import edit_for

    x = view(output)
    with torch.inference_mode():
        edited, reports = edit_for(pack, x.device)(x, [strength] * len(x), audio_frames)
        x.copy_(edited)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return reports
