"""Published and control steering methods: each finds one vector that is added to every frame of the encoder output.

    config = control_config("audiosae", k=100)
    shift = METHODS[config.method](config, store, dictionary, find_model("base"))
    shift.vector                                  # float32 [d_in]: what alpha = 1 adds to a frame

| method | vector at alpha = 1 | source |
| --- | --- | --- |
| `audiosae` | sum of -sign(beta_j) W_dec[j] over the k largest abs(beta_j) | arXiv 2602.05027, section 3.4 |
| `additive` | the same, each term times the feature's mean non-zero activation | arXiv 2606.07473 |
| `svector` | unit vector from the mean of label 1 to the mean of label 0 | arXiv 2602.05027, appendix H |
| `random` | a random unit vector; with a dictionary, k random features with random signs | control |

beta are the coefficients of a logistic regression on pooled feature activations. Nothing here looks at the decoder's
gradient, and without a gate nothing depends on the frame: that is what the learned edit is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MaxAbsScaler

from steer_asr._progress import Progress
from steer_asr.errors import HookPointError, SteerOptionError, unknown_name
from steer_asr.hooks import OUTPUT_HOOK_POINT
from steer_asr.models import ModelFiles
from steer_asr.sae import SaeFeatures
from steer_asr_training.learn import select
from steer_asr_training.stock_scores import Labels, window_labels
from steer_asr_training.store import ActivationStore

Method = Literal["audiosae", "additive", "svector", "random"]
Pool = Literal["mean", "nonzero_mean", "max"]
Penalty = Literal["l2", "l1"]


@dataclass(frozen=True)
class ControlConfig:
    """One method and its settings; `control_config` starts from the published ones."""

    method: Method
    k: int = 100
    """How many features, for `audiosae`, `additive`, and `random` with a dictionary."""
    alpha: float = 1.0
    """Strength: the vector is added so many times."""
    labels: Labels = "speech"
    """What the windows are contrasted by; see `stock_scores`."""
    pool: Pool = "mean"
    """How a window's frames become one number per feature."""
    penalty: Penalty = "l2"
    """Of the logistic regression, at C = 1."""
    hook_point: str = OUTPUT_HOOK_POINT
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("method", Method), ("pool", Pool), ("penalty", Penalty), ("labels", Labels)):
            if getattr(self, name) not in get_args(known):
                raise SteerOptionError(unknown_name(name, str(getattr(self, name)), get_args(known)))
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise SteerOptionError(f"alpha {self.alpha} steers nothing, or backwards; give a positive number")
        if self.k < 1:
            raise SteerOptionError(f"k {self.k}: at least one feature has to be steered")


PUBLISHED: Mapping[str, ControlConfig] = {
    "audiosae": ControlConfig("audiosae", k=100, alpha=1.0, labels="no_speech_prob", pool="mean"),
    "additive": ControlConfig("additive", k=25, alpha=3.0, labels="whisper_rule", pool="nonzero_mean"),
    "svector": ControlConfig("svector", alpha=3.0, labels="speech"),
    "random": ControlConfig("random", alpha=3.0),
}
"""Settings of the papers, for Whisper small where they differ by model. AudioSAE does not say how it pools."""


def control_config(method: str, **given: Any) -> ControlConfig:
    """The published settings of a method with those in `given` that are not None. Raises `SteerOptionError`."""
    if method not in PUBLISHED:
        raise SteerOptionError(unknown_name("method", method, PUBLISHED))
    return replace(PUBLISHED[method], **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True, eq=False)
class Shift:
    """A vector as features and what is added to each."""

    feature_ids: tuple[int, ...]
    features: SaeFeatures
    adds: np.ndarray
    """float32 [n_features], per unit of alpha."""
    from_dictionary: bool
    """False for the one constant feature that carries a plain vector."""
    windows: tuple[int, ...] = ()
    """Windows that it was found on."""
    found: Mapping[str, Any] = field(default_factory=dict)
    """What a person may want to know of how it was found: JSON values."""

    @property
    def vector(self) -> np.ndarray:
        """float32 [d_in]: what is added to every frame at alpha = 1."""
        return self.adds @ self.features.W_dec


def audiosae(config: ControlConfig, store: ActivationStore, dictionary: SaeFeatures | None, model: ModelFiles) -> Shift:
    """AudioSAE: `z'_j = z_j - alpha sign(beta_j)` on the k features with the largest coefficients, on every frame.

    scikit-learn's logistic regression, features as they are. Raises `SteerOptionError` without a dictionary, for
    windows of one sort, and when fewer than k features have a coefficient.
    """
    contrast = _contrast(config, store, _needed(config, dictionary), model)
    return contrast.shift(-np.sign(contrast.beta), config)


def additive(config: ControlConfig, store: ActivationStore, dictionary: SaeFeatures | None, model: ModelFiles) -> Shift:
    """arXiv 2606.07473: `z'_j = z_j - alpha sign(beta_j) m_j`, m_j being the feature's mean non-zero activation.

    Features are scaled to at most 1 before the regression, and pooled by the mean of their non-zero values. Raises as
    `audiosae` does.
    """
    contrast = _contrast(config, store, _needed(config, dictionary), model)
    return contrast.shift(-np.sign(contrast.beta) * contrast.typical, config)


def svector(config: ControlConfig, store: ActivationStore, dictionary: SaeFeatures | None, model: ModelFiles) -> Shift:
    """Unit vector from the mean activation of label 1 to that of label 0; every window weighs the same.

    With labels "speech" it points from speech to non-speech; with "no_speech_prob" it is AudioSAE's baseline. Raises
    `SteerOptionError` when given a dictionary, which it would not use, and when the two means coincide.
    """
    if dictionary is not None:
        raise SteerOptionError("svector works on the activations themselves; leave the dictionary (--sae) out")
    windows, labels = window_labels(config.labels, store, model)
    means = np.stack([real_frames(store, i, config.hook_point).mean(axis=0, dtype=np.float64) for i in windows])
    difference = means[labels == 0].mean(axis=0) - means[labels == 1].mean(axis=0)
    norm = float(np.linalg.norm(difference))
    if norm == 0.0:
        raise SteerOptionError("svector: both sorts of windows have the same mean activation")
    shift = constant_shift(difference / norm)
    return replace(shift, windows=tuple(map(int, windows)), found={"difference": norm, **_counts(labels)})


def random_direction(
    config: ControlConfig,
    store: ActivationStore,
    dictionary: SaeFeatures | None,
    model: ModelFiles,  # noqa: ARG001  (one signature for all methods)
) -> Shift:
    """A random unit vector, or, with a dictionary, k of its features with random signs. Depends on the seed alone."""
    rng = np.random.default_rng(config.seed)
    if dictionary is None:
        direction = rng.standard_normal(width(store, config.hook_point))
        return constant_shift(direction / np.linalg.norm(direction))
    if config.k > dictionary.n_features:
        raise SteerOptionError(f"k {config.k}: the dictionary has {dictionary.n_features} features")
    ids = tuple(map(int, rng.choice(dictionary.n_features, config.k, replace=False)))
    signs = rng.choice([-1.0, 1.0], config.k).astype(np.float32)
    return Shift(ids, select(dictionary, ids), signs, from_dictionary=True)


METHODS: Mapping[str, Callable[[ControlConfig, ActivationStore, SaeFeatures | None, ModelFiles], Shift]] = {
    "audiosae": audiosae,
    "additive": additive,
    "svector": svector,
    "random": random_direction,
}


def constant_shift(direction: np.ndarray) -> Shift:
    """A plain vector [d_in] as a feature that reads nothing, fires at 1 on every frame, and writes along it."""
    d_in = len(direction)
    one_feature = SaeFeatures(
        W_enc=np.zeros((d_in, 1), np.float32),
        b_enc=np.ones(1, np.float32),
        threshold=np.zeros(1, np.float32),
        W_dec=direction.astype(np.float32)[None],
        b_dec=np.zeros(d_in, np.float32),
    )
    return Shift((0,), one_feature, np.ones(1, np.float32), from_dictionary=False)


class Pooled(NamedTuple):
    """Feature activations of some windows, over the frames that hear audio."""

    values: np.ndarray
    """float32 [window, n_features]"""
    typical: np.ndarray
    """float32 [n_features]: mean over all frames on which a feature fires; 0 for one that never does."""


def pool_features(
    store: ActivationStore, dictionary: SaeFeatures, windows: np.ndarray, point: str, pool: Pool
) -> Pooled:
    """Encodes the windows and pools each over time."""
    values = np.empty((len(windows), dictionary.n_features), np.float32)
    sums, counts = np.zeros(dictionary.n_features), np.zeros(dictionary.n_features)
    with Progress(total=len(windows), unit="window", label="pool features") as progress:
        for row, i in enumerate(windows):
            z = dictionary.encode(real_frames(store, i, point))
            total, fired = z.sum(axis=0), (z > 0).sum(axis=0)
            sums, counts = sums + total, counts + fired
            by_pool = {"mean": total / len(z), "nonzero_mean": total / np.maximum(fired, 1), "max": z.max(axis=0)}
            values[row] = by_pool[pool]
            progress.advance()
    return Pooled(values, (sums / np.maximum(counts, 1)).astype(np.float32))


def real_frames(store: ActivationStore, i: int, point: str) -> np.ndarray:
    """The frames of a window that hear audio, at least one: float32 [frame, d_in]."""
    return store.window(int(i), point)[: max(1, store.n_real_frames(int(i)))].astype(np.float32)


def width(store: ActivationStore, point: str) -> int:
    """d_in at a hook point; raises `HookPointError` when the store lacks it."""
    known = store.header.get("hook_points", [OUTPUT_HOOK_POINT])
    if point not in known:
        raise HookPointError(f"{store.folder}: {unknown_name('hook point', point, known)}")
    return store.window(0, point).shape[1]


@dataclass(frozen=True, eq=False)
class _Contrast:
    """The features that tell two sorts of windows apart."""

    dictionary: SaeFeatures
    windows: np.ndarray
    labels: np.ndarray
    beta: np.ndarray
    """float64 [d_sae]"""
    typical: np.ndarray

    def shift(self, adds: np.ndarray, config: ControlConfig) -> Shift:
        """`adds` [d_sae] on the k features with the largest coefficients."""
        ids = top_coefficients(self.beta, config.k)
        found = {"coefficients": [round(float(self.beta[i]), 6) for i in ids], **_counts(self.labels)}
        chosen = adds[list(ids)].astype(np.float32)
        windows = tuple(map(int, self.windows))
        return Shift(ids, select(self.dictionary, ids), chosen, from_dictionary=True, windows=windows, found=found)


def _contrast(config: ControlConfig, store: ActivationStore, dictionary: SaeFeatures, model: ModelFiles) -> _Contrast:
    if config.k > dictionary.n_features:
        raise SteerOptionError(f"k {config.k}: the dictionary has {dictionary.n_features} features")
    windows, labels = window_labels(config.labels, store, model)
    pooled = pool_features(store, dictionary, windows, config.hook_point, config.pool)
    beta = logistic_coefficients(pooled.values, labels, config)
    return _Contrast(dictionary, windows, labels, beta, pooled.typical)


def logistic_coefficients(values: np.ndarray, labels: np.ndarray, config: ControlConfig) -> np.ndarray:
    """Coefficients for label 1, float64 [n_features], with the scaling and the solver of the method's paper."""
    scaled = values.astype(np.float64)
    if config.method == "additive":
        scaled = MaxAbsScaler().fit_transform(scaled)
    solver = "saga" if config.method == "additive" else {"l2": "lbfgs", "l1": "liblinear"}[config.penalty]
    l1_ratio = {"l2": 0.0, "l1": 1.0}[config.penalty]
    model = LogisticRegression(l1_ratio=l1_ratio, solver=solver, max_iter=10_000, random_state=config.seed)
    return model.fit(scaled, labels).coef_[0]


def top_coefficients(beta: np.ndarray, k: int) -> tuple[int, ...]:
    """Indices of the k largest absolute coefficients, largest first; raises `SteerOptionError` if fewer are not 0."""
    usable = int(np.count_nonzero(beta))
    if k > usable:
        raise SteerOptionError(
            f"k {k}: only {usable} of the dictionary's {len(beta)} features tell the windows apart at all; "
            "lower k, or collect more windows"
        )
    return tuple(int(i) for i in np.argsort(-np.abs(beta), kind="stable")[:k])


def _counts(labels: np.ndarray) -> dict[str, int]:
    return {"windows_label_0": int((labels == 0).sum()), "windows_label_1": int((labels == 1).sum())}


def _needed(config: ControlConfig, dictionary: SaeFeatures | None) -> SaeFeatures:
    if dictionary is None:
        raise SteerOptionError(f"{config.method} needs a dictionary (--sae): the sae folder written by fit")
    return dictionary
