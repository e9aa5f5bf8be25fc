"""The layers that stand for a pack.

A pack with a gate becomes two decoder layers behind the last one; the encoder stays as it is. h is the decoder's
residual, r a direction along which it hardly varies:

    1  cross-attention  reads the log-odds of speech off the encoder's output (`readout`), adds them to h along r
       FFN              sees r only; where they are negative, adds a large answer to h: "the text ends here"
    2  cross-attention  the same once more, subtracted
       FFN              nothing

In windows with speech the first FFN adds nothing at all, and what the two attentions add cancels: queries are constant,
so both compute the same number. What the decoder says there is what it would have said. In windows without, the answer
outweighs h, at every position and after every prompt.

A pack without a gate becomes one encoder layer: its FFN reads the encoder's output and adds the change of the features.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from steer_asr.compiling.calibration import DecoderResidual
from steer_asr.compiling.layers import Ffn, Pooling, in_float32, no_attention
from steer_asr.compiling.readout import Readout
from steer_asr.errors import PackMismatchError
from steer_asr.gate import Gate
from steer_asr.pack import SteerPack

JUMP = 0.25
"""A JumpReLU's jump is a ramp of this share of its threshold."""
EVIDENCE = 8.0
"""Size on r of one unit of log-odds, in spreads of the residual, which has about a tenth of one there by itself."""
SILENT_BELOW, RAMP = -0.5, 1.0
"""Where on r the answer begins, and how soon it is all there: log-odds of -0.06 to -0.19."""
OUTWEIGHS = 200.0
"""Size of the answer at strength 1, in spreads of the residual: what is left of the residual is half a per cent."""


def gated_layers(
    readout: Readout, residual: DecoderResidual, answer: np.ndarray, strength: float, first: int
) -> Iterator[dict[str, np.ndarray]]:
    """The variables of the two decoder layers, to stand at `first` and after.

    `answer` is float [d_model], of mean 0 and spread 1: what the residual is to become (`steer_asr.compiling.answer`).
    """
    width = readout.keys.shape[1]
    evidence = Pooling(readout.keys, readout.values, residual.quiet * EVIDENCE * residual.sigma, readout.bias)
    back = Pooling(readout.keys, readout.values, -evidence.write, readout.bias)
    decide = Ffn((residual.quiet != 0).astype(float), np.zeros(width))
    decide.step(
        -residual.quiet, residual.mean + SILENT_BELOW - RAMP / 2, RAMP, answer * amount(strength) * residual.sigma
    )
    for number, (pooling, ffn) in enumerate(((evidence, decide), (back, Ffn(np.ones(width), np.zeros(width))))):
        scope = f"decoder/layer_{first + number}"
        yield in_float32(
            no_attention(f"{scope}/self_attention", width, readout.heads)
            | pooling.variables(f"{scope}/attention")
            | ffn.variables(f"{scope}/ffn")
        )


def amount(strength: float) -> float:
    """How much of the answer is added to a residual of size 1: h + K a points to (1 - s) h + s a at K = s / (1 - s)."""
    return OUTWEIGHS if strength >= 1 else min(OUTWEIGHS, strength / (1 - strength))


def add_feature(ffn: Ffn, pack: SteerPack, j: int, write: np.ndarray, step_write: np.ndarray | None = None) -> None:
    """Adds z_j * write, and, if given, [z_j > 0] * step_write, for feature column j, to an FFN that reads x.

    z = ReLU(h - threshold) + threshold * step(h - threshold); the step is a ramp around the threshold.
    """
    features = pack.features
    read, threshold = features.W_enc[:, j], float(features.threshold[j])
    offset = float(features.b_enc[j]) - threshold
    ffn.relu(read, offset, write)
    jump = threshold * write + (0 if step_write is None else step_write)
    if np.any(jump):
        ffn.step(read, offset, max(JUMP * threshold, 0.05), jump)


def frame_local_layer(
    pack: SteerPack, norm: tuple[np.ndarray, np.ndarray], sigma: float, strength: float, first: int, heads: int
) -> Iterator[dict[str, np.ndarray]]:
    """The variables of the one encoder layer of a pack without a gate. `norm` is (gamma, beta) of the encoder's end.

    The live edit adds to x = gamma n + beta, this one to h = sigma n, so it is divided by gamma and multiplied by the
    usual sigma: to first order it is the same where sigma is the usual one.
    """
    gamma, _ = norm
    ffn = Ffn(*norm)
    plan = pack.edit_plan
    for j in range(pack.features.n_features):
        out = pack.features.W_dec[j] / gamma * sigma * strength
        if not np.isnan(plan.clamp[j]):
            ffn.constant += out * float(plan.clamp[j])
            add_feature(ffn, pack, j, -out)
        elif np.isfinite(plan.cap[j]):
            _add_cap(ffn, pack, j, float(plan.cap[j]), out)
        elif plan.scale[j] != 1 or plan.add[j] != 0:
            ffn.constant += out * float(plan.add[j])
            if plan.scale[j] != 1:
                add_feature(ffn, pack, j, out * float(plan.scale[j] - 1))
    ffn.constant -= ffn.constant.mean()
    scope = f"encoder/layer_{first}"
    yield in_float32(no_attention(f"{scope}/self_attention", len(gamma), heads) | ffn.variables(f"{scope}/ffn"))


def _add_cap(ffn: Ffn, pack: SteerPack, j: int, cap: float, out: np.ndarray) -> None:
    """min(z, cap) - z."""
    threshold = float(pack.features.threshold[j])
    if cap < 0:  # min(0, cap) = cap also where the feature is silent
        ffn.constant += out * cap
        add_feature(ffn, pack, j, -out)
    elif cap <= threshold:
        add_feature(ffn, pack, j, -out, step_write=out * cap)
    else:
        ffn.relu(pack.features.W_enc[:, j], float(pack.features.b_enc[j]) - cap, -out)


def check_gate(name: str, gate: Gate) -> None:
    """Raises `PackMismatchError` for a gate in which evidence of speech does not lower the weight of the edit."""
    if gate.frame_calibration[0] <= 0:
        raise PackMismatchError(
            f"pack {name!r} cannot be compiled: its gate's slope is {gate.frame_calibration[0]}, so that evidence of "
            "speech does not lower the weight of the edit"
        )
