"""`steer-asr-train learn`: a dictionary and a decoder to an edit of a few features, with its gate.

    learned = learn(LearnConfig(), store, "sae/base/sae", find_model("base"), "learned/base")

Four steps: features that tell speech from non-speech make a first gate; a short run over the whole dictionary shows
which features move the decoder towards silence; the best of both are kept and the gate is fitted again on them; their
scales are then learned by gradient through the frozen decoder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from steer_asr._files import atomic_path
from steer_asr._progress import Progress
from steer_asr.errors import SteerOptionError
from steer_asr.gate import Gate
from steer_asr.hooks import OUTPUT_HOOK_POINT
from steer_asr.models import ModelFiles
from steer_asr.sae import SaeFeatures, load_features
from steer_asr_training.answers import stock_answers
from steer_asr_training.decoder import FrozenDecoder
from steer_asr_training.encoders import native_bfloat16
from steer_asr_training.gate_fit import (
    discriminative_features,
    fit_gate,
    further_features,
    pooled_activations,
    source_weights,
)
from steer_asr_training.learn_config import LearnConfig, within_room
from steer_asr_training.objective import ObjectiveConfig, silence_loss, speech_loss
from steer_asr_training.scalars import Scalars
from steer_asr_training.store import ActivationStore
from steer_asr_training.watch import Watch

WATCH_EVERY = 20
"""Steps between two looks at the held-out windows."""
OTHER_LANGUAGES = ("de", "fr", "es", "ru", "zh", "ja", "pt", "it", "nl", "pl", "tr", "ko", "cy", "la")


@dataclass(frozen=True, eq=False)
class Learned:
    """Result of `learn`: what `export` needs."""

    feature_ids: tuple[int, ...]
    scales: np.ndarray
    """float32 [n_features]."""
    adds: np.ndarray
    """float32 [n_features]; z' = scale * z + add."""
    gate: Gate
    features: SaeFeatures
    """Just the chosen ones."""


def learn(
    config: LearnConfig,
    store: ActivationStore,
    sae: Path,
    model: ModelFiles,
    folder: str | Path,
    *,
    tensorboard: bool = False,
    held_out: ActivationStore | None = None,
) -> Learned:
    """Runs all four steps; finished ones are found in `folder` and not repeated.

    With `tensorboard`, the parts of the loss and the size of the edit become curves below `folder`/events (of the
    ranking run: `folder`/rank/events), and with `held_out` also what the edit does to those windows, see `Watch`.
    Neither changes what is learned.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dictionary = load_features(Path(sae))
    config = within_room(config, dictionary.d_in)
    run = LearningRun(config, store, dictionary, model, folder, tensorboard=tensorboard)
    gate_ids = run.rank_for_gate()
    effect = run.rank_for_effect(gate_ids)
    edited = gate_ids + [i for i in effect if i not in set(gate_ids)][: config.n_features - len(gate_ids)]
    ids = tuple(edited + run.further_for_gate(edited))
    gate, z = run.gate(ids)
    chosen, final = select(dictionary, ids), served(gate, config)
    watch = Watch(run.decoder, held_out, chosen, final) if tensorboard and held_out is not None else None
    scales, adds = run.learn_edits(ids, gate, z, n_edited=len(edited), watch=watch)
    learned = Learned(ids, scales, adds, final, chosen)
    save_learned(folder, config, learned)
    return learned


def served(gate: Gate, config: LearnConfig) -> Gate:
    """The gate as the pack holds it: it looks at the whole window, leans towards speech, and makes up its mind."""
    slope, offset = gate.frame_calibration
    calibration = (config.steepness * slope, config.steepness * (offset + config.protect_log_odds))
    return replace(gate, reach_frames=config.served_reach_frames, frame_calibration=calibration)


def select(features: SaeFeatures, ids: Sequence[int]) -> SaeFeatures:
    """The features with the given ids, in that order."""
    columns = list(ids)
    return SaeFeatures(
        features.W_enc[:, columns],
        features.b_enc[columns],
        features.threshold[columns],
        features.W_dec[columns],
        features.b_dec,
    )


class LearningRun:
    """The steps of one learning run over one store."""

    def __init__(
        self,
        config: LearnConfig,
        store: ActivationStore,
        dictionary: SaeFeatures,
        model: ModelFiles,
        folder: Path,
        *,
        tensorboard: bool = False,
    ) -> None:
        self.config, self.store, self.dictionary, self.model, self.folder = config, store, dictionary, model, folder
        self.tensorboard = tensorboard
        self.labels = np.array([int(w["kind"] == "speech") for w in store.windows])
        self.weights = source_weights([w["source"] + w["treatment"] for w in store.windows], self.labels)
        self.rng = np.random.default_rng(config.seed)
        self.decoder = FrozenDecoder(model.path, torch.bfloat16 if native_bfloat16("cpu") else torch.float32, "cpu")

    def rank_for_gate(self) -> list[int]:
        return discriminative_features(self._pooled(), self.labels, self.weights, self.config.n_gate_features)

    def further_for_gate(self, taken: Sequence[int]) -> list[int]:
        """What the gate reads besides the features `taken`."""
        return further_features(self._pooled(), self.labels, self.weights, self.config.n_heard - len(taken), taken)

    def _pooled(self) -> np.ndarray:
        return self._cached(
            "pooled", lambda: {"pooled": pooled_activations(self.store, self.dictionary, OUTPUT_HOOK_POINT)}
        )["pooled"]

    def gate(self, ids: Sequence[int]) -> tuple[Gate, list[np.ndarray]]:
        """The gate on the given features, and those features' activations on every window."""
        z = self.activations(ids)
        return self.fit_gate(z), z

    def activations(self, ids: Sequence[int]) -> list[np.ndarray]:
        """What the given features do on every window: float16 [frame, n_features] each."""
        features = select(self.dictionary, ids)
        z = []
        with Progress(total=len(self.store), unit="window", label="gate") as progress:
            for i in range(len(self.store)):
                x = self.store.window(i, OUTPUT_HOOK_POINT).astype(np.float32)
                z.append(features.encode(x).astype(np.float16))
                progress.advance()
        return z

    def fit_gate(self, z: Sequence[np.ndarray]) -> Gate:
        """The gate as it is while learning, on the features whose activations `z` are."""
        sources = [window["source"] for window in self.store.windows]
        return fit_gate(z, self.labels, self.weights, reach_frames=self.config.reach_frames, sources=sources)

    def rank_for_effect(self, gate_ids: Sequence[int]) -> list[int]:
        """All features, those first whose learned edit moves the encoder output most on non-speech."""

        def rank() -> dict[str, np.ndarray]:
            gate, z = self.gate(gate_ids)
            weights = [gate(window.astype(np.float32)).weights for window in z]
            everything = self.dictionary
            edit, typical = self._descend(
                everything,
                lambda _, x: everything.encode(x),
                weights,
                steps=self.config.rank_steps,
                label="rank features",
                objective=self.config.rank_objective,
                folder=self.folder / "rank",
                state=None,
            )
            return {"score": (edit.abs() * typical).sum(dim=0).numpy()}

        score = self._cached("rank", rank)["score"]
        return [int(i) for i in np.argsort(-score)]

    def learn_edits(
        self,
        ids: Sequence[int],
        gate: Gate,
        z: Sequence[np.ndarray],
        *,
        n_edited: int | None = None,
        watch: Watch | None = None,
        start: tuple[np.ndarray, np.ndarray] | None = None,
        steps: int | None = None,
        folder: Path | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(scales, adds), float32 [n_features] each, from `start` on (the identity without one).

        Only the first `n_edited` features change, or all. `steps` instead of the configuration's; the state to resume
        from lies in `folder`, else in the run's.
        """
        folder = folder or self.folder
        edit, _ = self._descend(
            select(self.dictionary, ids),
            lambda i, _: z[i].astype(np.float32),
            [gate(window.astype(np.float32)).weights for window in z],
            steps=self.config.steps if steps is None else steps,
            label="learn",
            objective=self.config.objective,
            folder=folder,
            state=folder / "state.pt",
            start=None if start is None else np.stack([start[0] - 1, start[1]]),
            n_edited=n_edited,
            watch=watch,
        )
        return (edit[0] + 1).numpy(), edit[1].numpy()

    def _descend(
        self,
        features: SaeFeatures,
        activations: Callable[[int, np.ndarray], np.ndarray],
        weights: Sequence[np.ndarray],
        *,
        steps: int,
        label: str,
        objective: ObjectiveConfig,
        folder: Path,
        state: Path | None,
        start: np.ndarray | None = None,
        n_edited: int | None = None,
        watch: Watch | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradient descent on an edit [2, n_features]: scale - 1, and what is added; zero is the identity.

        Returns it, and how far a unit of each part moves the average frame of non-speech, of the same shape.
        """
        config, answers = self.config, self._answers()
        speech, nonspeech = self._pools(answers)
        w_dec = torch.from_numpy(features.W_dec)
        edit = nn.Parameter(torch.zeros(2, features.n_features))
        if start is not None:
            edit.data.copy_(torch.from_numpy(start))
        if n_edited is not None:
            edit.register_hook(lambda gradient: gradient * (torch.arange(gradient.shape[1]) < n_edited))
        optimizer = torch.optim.Adam([edit], lr=config.lr, betas=(0.9, 0.98))
        typical = torch.zeros(2, features.n_features)
        rng = np.random.default_rng(config.seed + 1)
        first = 0
        if state is not None and state.is_file():
            saved = torch.load(state, weights_only=True)
            first, typical = saved["step"], saved["typical"]
            edit.data.copy_(saved["edit"])
            optimizer.load_state_dict(saved["optimizer"])
            rng.bit_generator.state = json.loads(saved["rng"])

        def steered(chosen: np.ndarray, *, track: bool) -> tuple[torch.Tensor, torch.Tensor]:
            x = np.stack([self.store.window(i, OUTPUT_HOOK_POINT) for i in chosen]).astype(np.float32)
            z = torch.from_numpy(np.stack([activations(i, x[row]) for row, i in enumerate(chosen)]))
            weight = torch.from_numpy(np.stack([weights[i] for i in chosen]))[:, :, None]
            gated = z * weight
            if track:
                now = torch.stack([gated.mean(dim=(0, 1)), weight.mean().expand(features.n_features)])
                typical.mul_(0.95).add_(now, alpha=0.05)
            plain = torch.from_numpy(x)
            return plain + (gated * edit[0] + weight * edit[1]) @ w_dec, plain

        with (
            Progress(total=steps, unit="step", label=label) as progress,
            Scalars(folder, enabled=self.tensorboard, first_step=first) as scalars,
        ):
            progress.advance(first)
            for step in range(first, steps):
                if watch is not None and step % WATCH_EVERY == 0:
                    scalars.add(step, "held_out", watch(edit.detach()), always=True)
                optimizer.param_groups[0]["lr"] = config.lr * min(1.0, (step + 1) / 10, 1.5 * (1 - step / steps))
                quiet = rng.choice(nonspeech[0], config.windows_per_step, p=nonspeech[1])
                spoken = rng.choice(speech[0], config.windows_per_step, p=speech[1])
                x_quiet, _ = steered(quiet, track=True)
                silence = silence_loss(self.decoder, x_quiet, objective, rng, self._langs(quiet, rng))
                x_spoken, plain = steered(spoken, track=False)
                harm = speech_loss(
                    self.decoder, x_spoken, plain, [answers[i] for i in spoken], self._langs(spoken, rng)
                )
                penalty = (edit.abs() * typical).sum()
                loss = silence + objective.speech * harm + objective.sparsity * penalty
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                parts = {"total": loss, "silence": silence, "speech": harm, "sparsity": penalty}
                scalars.add(step, "loss", {name: part.detach() for name, part in parts.items()})
                scalars.add(step, "edit", _sizes(edit.detach()) | {"lr": optimizer.param_groups[0]["lr"]})
                progress.advance(note=f"silence {silence.item():.3f} harm {harm.item():.4f} moved {penalty.item():.2f}")
                if state is not None and ((step + 1) % 25 == 0 or step + 1 == steps):
                    self._save_state(state, step + 1, edit, typical, optimizer, rng)
            if watch is not None:
                scalars.add(steps, "held_out", watch(edit.detach()), always=True)
        return edit.detach(), typical

    def _save_state(
        self,
        path: Path,
        step: int,
        edit: torch.Tensor,
        typical: torch.Tensor,
        optimizer: torch.optim.Optimizer,
        rng: np.random.Generator,
    ) -> None:
        state = {"step": step, "edit": edit.detach(), "typical": typical, "optimizer": optimizer.state_dict()}
        with atomic_path(path) as temporary:
            torch.save(state | {"rng": json.dumps(rng.bit_generator.state)}, temporary)

    def _pools(self, answers: dict[int, dict[str, list[int]]]) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """(indices, probabilities) of the speech and the non-speech windows to draw from."""
        spoken, quiet = np.array(sorted(answers)), np.flatnonzero(self.labels == 0)
        if not len(spoken) or not len(quiet):
            raise SteerOptionError("learning needs speech that stock Whisper can transcribe, and non-speech")
        return tuple((pool, self.weights[pool] / self.weights[pool].sum()) for pool in (spoken, quiet))

    def _langs(self, chosen: np.ndarray, rng: np.random.Generator) -> list[str]:
        """The language of each prompt: the clip's own, for non-speech mostly English."""
        if not self.decoder.multilingual:
            return ["en"] * len(chosen)
        own = [self.store.windows[i]["lang"] for i in chosen]
        return [lang or ("en" if rng.random() < 0.6 else str(rng.choice(OTHER_LANGUAGES))) for lang in own]

    def _answers(self) -> dict[int, dict[str, list[int]]]:
        path = self.folder / "answers.json"
        if not path.is_file():
            speech = np.flatnonzero(self.labels == 1)
            p = self.weights[speech] / self.weights[speech].sum()
            n = min(self.config.speech_windows, len(speech))
            chosen = np.random.default_rng(self.config.seed).choice(speech, n, replace=False, p=p)
            found = stock_answers(self.store, sorted(map(int, chosen)), self.model.path)
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(found), encoding="utf-8")
        return {int(i): answer for i, answer in json.loads(path.read_text(encoding="utf-8")).items()}

    def _cached(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        path = self.folder / f"{name}.npz"
        if not path.is_file():
            made = make()
            with atomic_path(path) as temporary:
                np.savez(temporary, **made)  # pyright: ignore[reportArgumentType]
        with np.load(path) as stored:
            return {key: stored[key] for key in stored.files}


def _sizes(edit: torch.Tensor) -> dict[str, float]:
    """How far an edit [2, n_features] is from the identity."""
    scales, adds = edit.abs()
    changed = (edit.abs() > 1e-3).any(dim=0).sum()
    return {
        "features": float(changed),
        "mean_abs_scale_change": float(scales.mean()),
        "mean_abs_add": float(adds.mean()),
    }


def save_learned(folder: Path, config: LearnConfig, learned: Learned) -> None:
    content = {
        "config": asdict(config),
        "feature_ids": list(learned.feature_ids),
        "scales": [float(scale) for scale in learned.scales],
        "adds": [float(add) for add in learned.adds],
        "gate": learned.gate.to_json(),
    }
    with atomic_path(folder / "learned.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
