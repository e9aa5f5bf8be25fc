"""The layers that stand for a pack: what they read, carry along, and write.

Notation: h is the residual behind the last original block, n = LayerNorm(h) without gain and bias, x = gamma n + beta
the encoder's output. r1 and r2 are two quiet directions: n hardly varies along them (`calibration`), so they can carry
messages from layer to layer, and be wiped afterwards. Sizes of messages are in units of sigma, the usual spread of h.

A pack with a gate becomes three layers:

    1  attention  nothing
       FFN        reads x; features as in the pack; evidence of speech minus its threshold goes to r1
    2  attention  smooths r1 over neighbouring frames, result to r2
       FFN        wipes r2; where it was above 0, a flag goes to r2
    3  attention  the highest r2 of the window, so any flag, goes to r1, negative where there was none;
                  a large constant goes to one channel, for the FFN below
       FFN        wipes r1, r2 and the constant; where r1 was negative, writes the silent memory over the frame

A LayerNorm divides by the spread of its frame, which is sigma only roughly, and messages add to it. Attention and the
flag can live with that. The last FFN cannot, since what it wipes must come out even: the constant makes the spread the
same for all frames, whatever else they hold.

A pack without a gate becomes one layer: its FFN reads x and adds the change of the features.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from steer_asr.compiling.calibration import Residual
from steer_asr.compiling.layers import Attention, Ffn, layer_variables, rotary_amplitudes
from steer_asr.errors import PackMismatchError
from steer_asr.gate import Gate
from steer_asr.pack import SteerPack

EVIDENCE = 0.5
"""Size of one unit of log-odds on r1."""
SMOOTHED = 3.0
"""Size on r2 of what was 1 on r1."""
FLAG = 20.0
FLAG_RAMP = 1.0
"""The flag rises from 0 to 1 over this width on r2: a third of a unit on either side of the threshold."""
MAX_SHARPNESS = 3.0
VERDICT = 16.0
"""Size on r1 of what was 1 on r2."""
SILENT_BELOW = -70.0
"""The verdict in silent windows is -110 and below. On the few frames that are 20 times as large as others, which
every Whisper has, nature gets to -35."""
CONSTANT = 300.0
JUMP = 0.25
"""A JumpReLU's jump is a ramp of this share of its threshold."""
OVERWRITE = 200.0
"""Size of the silent memory at strength 1, at the least: what is left of the frame is half a per cent."""
OVERWRITE_SHARPNESS = 200.0
"""Makes its neuron large and what it writes small: beside large weights int8 would round those that wipe to 0."""
WIPE_KNOTS = (1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0)
MIN_SMOOTHING, MAX_SMOOTHING = 3, 31


def gated_layers(
    pack: SteerPack,
    gate: Gate,
    norm: tuple[np.ndarray, np.ndarray],
    residual: Residual,
    memory: np.ndarray,
    strength: float,
    first: int,
    heads: int,
) -> Iterator[dict[str, np.ndarray]]:
    """The variables of the three layers, to stand at `first` and after. `norm` is (gamma, beta) of the encoder's end,
    `memory` the silent memory, float [d], as the decoder is to see it.

    Raises `PackMismatchError` for a gate that cannot be built.
    """
    check_gate(pack.name, gate)
    width = len(norm[0])
    r1, r2 = residual.quiet
    plain = (np.ones(width), np.zeros(width))

    evidence = Ffn(*norm)
    slope, offset = gate.frame_calibration
    write = r1 * EVIDENCE * residual.sigma
    for j in np.flatnonzero(gate.coefficients):
        add_feature(evidence, pack, int(j), write * float(gate.coefficients[j]))
    evidence.constant += write * (gate.bias + offset / slope)
    yield layer_variables(first, Attention(width, heads), evidence)

    variance = (gate.smooth_frames**2 - 1) / 12
    smooth = Attention(
        width, heads, read=r1, write=r2 * SMOOTHED * residual.sigma, smoothing=variance if variance else 0.1
    )
    smooth.constant = -smooth_mean(residual) * r2
    flag = Ffn(*plain)
    _wipe(flag, r2, float(residual.means[1]), residual.sigma, knots=True)
    flag.step(r2, -float(residual.means[1]), FLAG_RAMP, r2 * FLAG * residual.sigma)
    yield layer_variables(first + 1, smooth, flag)

    seen = FLAG / np.sqrt(1 + FLAG**2 / width)
    verdict = Attention(width, heads, read=r2, write=r1 * VERDICT * residual.sigma, sharpness=MAX_SHARPNESS)
    constant = np.zeros(width)
    constant[np.abs(residual.quiet).sum(axis=0).argmin()] = CONSTANT * residual.sigma
    verdict.constant = constant - (seen + residual.means[1]) * VERDICT * residual.sigma * r1
    spread = np.sqrt(1 + CONSTANT**2 / width)
    silence = Ffn(
        np.where(constant > 0, 0.0, spread), plain[1], sharpness=1.0
    )  # int8 scales by the largest channel: hide this one
    for direction, mean in zip(residual.quiet, residual.means, strict=True):
        _wipe(silence, direction, float(mean), residual.sigma)
    silence.constant -= constant
    overwrite = memory_direction(memory, norm) * amount(strength) * residual.sigma
    if strength >= 1:
        silence.relu(-r1, SILENT_BELOW, overwrite / 40, OVERWRITE_SHARPNESS)  # -110 is 40 below
    else:
        silence.step(-r1, SILENT_BELOW, 10.0, overwrite, OVERWRITE_SHARPNESS)
    yield layer_variables(first + 2, verdict, silence)


def smooth_mean(residual: Residual) -> float:
    """What the smoothing layer would write for the natural mean along r1, in the residual's units."""
    return float(SMOOTHED * residual.sigma * residual.means[0])


def amount(strength: float) -> float:
    """How much silent memory is added to a frame of size 1: h + K v points to (1 - s) h + s v at K = s / (1 - s)."""
    return OVERWRITE if strength >= 1 else min(OVERWRITE, strength / (1 - strength))


def memory_direction(memory: np.ndarray, norm: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The frame, of mean 0 and spread 1, that the final LayerNorm turns into `memory`, or comes nearest to it."""
    gamma, beta = norm
    direction = (memory.astype(np.float64) - beta) / gamma
    direction -= direction.mean()
    return direction / direction.std()


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
    pack: SteerPack, norm: tuple[np.ndarray, np.ndarray], residual: Residual, strength: float, first: int, heads: int
) -> Iterator[dict[str, np.ndarray]]:
    """The variables of the one layer of a pack without a gate.

    The live edit adds to x = gamma n + beta, this one to h = sigma n, so it is divided by gamma and multiplied by the
    usual sigma: to first order it is the same where sigma is the usual one.
    """
    gamma, _ = norm
    ffn = Ffn(*norm)
    plan = pack.edit_plan
    for j in range(pack.features.n_features):
        out = pack.features.W_dec[j] / gamma * residual.sigma * strength
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
    yield layer_variables(first, Attention(len(gamma), heads), ffn)


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
    """Raises `PackMismatchError` for a gate that three layers cannot compute."""
    if gate.frame_calibration[0] <= 0:
        raise PackMismatchError(
            f"pack {name!r} cannot be compiled: its gate's slope is {gate.frame_calibration[0]}, so that evidence of "
            "speech does not lower the weight of the edit"
        )
    smooth = gate.smooth_frames
    if smooth != 1 and not MIN_SMOOTHING <= smooth <= MAX_SMOOTHING:
        raise PackMismatchError(
            f"pack {name!r} cannot be compiled: its gate smooths over {smooth} frames; 1 to {MAX_SMOOTHING} can be done"
        )
    rotary_amplitudes(max((smooth**2 - 1) / 12, 0.1))


def _wipe(ffn: Ffn, direction: np.ndarray, mean: float, sigma: float, *, knots: bool = False) -> None:
    """Takes away what lies along `direction`, down to its natural mean.

    A LayerNorm shows a message of size a as y = a / sqrt(1 + a^2 / d), since the message itself adds to the spread;
    with `knots`, the inverse, a = y / sqrt(1 - y^2 / d), is followed by straight pieces.
    """
    width, write = len(ffn.gamma), -direction * sigma
    ffn.linear(direction, -mean, write)
    if not knots:
        return
    edges = [k for k in WIPE_KNOTS if k < 0.75 * np.sqrt(width)]
    for knot, slope in zip(edges, _extra_slopes(edges, width), strict=True):
        for sign in (1.0, -1.0):
            ffn.relu(sign * direction, -sign * mean - knot, sign * slope * write)


def _extra_slopes(knots: list[float], width: int) -> np.ndarray:
    """How much steeper a = y / sqrt(1 - y^2 / d) gets at each knot than the line before it, beyond slope 1."""
    if not knots:
        return np.zeros(0)
    edges = np.array([*knots, min(knots[-1] + 2.0, 0.9 * np.sqrt(width))])
    inverse = edges / np.sqrt(1 - edges**2 / width)
    slopes = np.diff(inverse) / np.diff(edges)
    return np.diff(slopes, prepend=1.0)
