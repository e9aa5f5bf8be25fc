"""`steer-asr-train readout`: the readout of a pack's gate, for compiled models, fitted on collected activations.

add_readout(load_pack("packs/base-quiet"), ActivationStore("runs/base/activations"))
"""

from __future__ import annotations

from pathlib import Path

from steer_asr._progress import Progress
from steer_asr.compiling.distil import Examples, fit_readout
from steer_asr.compiling.readout import save_readout
from steer_asr.errors import PackError, PackMismatchError
from steer_asr.models import find_model
from steer_asr.pack import SteerPack
from steer_asr.weights.ct2_format import read_model_bin
from steer_asr_training.store import ActivationStore


def add_readout(pack: SteerPack, store: ActivationStore) -> Path:
    """Fits the readout of `pack` on all windows of `store` and writes it into the pack's folder.

    Raises `PackError` for a pack that lies nowhere, `PackMismatchError` for one of another model than the store's or
    one whose gate silences all windows or none.
    """
    if pack.path is None:
        raise PackError(f"pack {pack.name!r} has no folder that a readout could be added to")
    if store.header["model_sha256"] != pack.base_sha256:
        raise PackMismatchError(
            f"pack {pack.name!r} was made for {pack.base_model!r}, {store.folder} was collected with "
            f"{store.header['model']!r}"
        )
    model = find_model(store.header["model"])
    heads = int(read_model_bin(model.path / "model.bin")["decoder/num_heads"])
    examples = Examples(pack)
    with Progress(total=len(store), unit="window", label="what the gate says") as progress:
        for i in range(len(store)):
            examples.add(store.window(i, pack.hook_point))
            progress.advance()
    return save_readout(pack.path, fit_readout(examples, heads))
