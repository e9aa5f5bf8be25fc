"""`steer-asr-train phonemes`, `probe`, `erase` and `boundaries`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from steer_asr_training.analysis.inputs import Dictionary, ManifestWindows, StoredWindows
    from steer_asr_training.analysis.probes import ProbeRows

SaeOrPack = Annotated[str, typer.Argument(help="The sae folder written by fit, or a pack by folder or name.")]
OutFolder = Annotated[
    Path, typer.Option("--out", "-o", help="Folder for the report: JSON, Markdown, and a picture with matplotlib.")
]
Store = Annotated[Path | None, typer.Option(help="Folder written by collect.")]
Manifest = Annotated[Path | None, typer.Option(help="Instead: a manifest, encoded now.")]
Model = Annotated[str | None, typer.Option(help="With --manifest: the model to encode with.")]
HookPoint = Annotated[str | None, typer.Option(help="For an SAE whose files do not say where it reads.")]
Seed = Annotated[int, typer.Option(help="Of the split of speakers, and of controls.")]
MaxWindows = Annotated[int, typer.Option(help="Look at so many aligned windows, speakers in turn; 0 is all.")]
Target = Annotated[
    str, typer.Argument(help="phone, a column of the manifest or store (gender, lang, treatment), or a tag label:rain.")
]
Classes = Annotated[
    list[str] | None, typer.Option("--class", help="Only these values of the label; repeatable. All without one.")
]
MaxRows = Annotated[int, typer.Option(help="At most so many clips, phones or frames, drawn by chance; 0 is all.")]
Frames = Annotated[bool, typer.Option("--frames", help="Of phones: one row per frame, not per phone said.")]
Pool = Annotated[str, typer.Option(help="Of clips: the mean activation of each feature, or its max.")]
Stress = Annotated[bool, typer.Option("--stress", help="Keep ARPAbet's stress marks: AH0 is not AH1.")]


def register(app: typer.Typer) -> None:
    """Adds the four commands to the command line."""
    app.command("phonemes")(phonemes_command)
    app.command("probe")(probe_command)
    app.command("erase")(erase_command)
    app.command("boundaries")(boundaries_command)


def phonemes_command(
    dictionary: SaeOrPack,
    out: OutFolder,
    activations: Store = None,
    manifest: Manifest = None,
    model: Model = None,
    max_windows: MaxWindows = 0,
    stress: Stress = False,
    hook_point: HookPoint = None,
    seed: Seed = 0,
) -> None:
    """Which features stand for which phone, on clips with a phone alignment: AudioSAE's accuracy, and F1."""
    from steer_asr_training.analysis import concept_tables
    from steer_asr_training.analysis.aligned import aligned_frames
    from steer_asr_training.analysis.inputs import load_dictionary
    from steer_asr_training.analysis.phonemes import phoneme_report

    loaded = load_dictionary(dictionary, hook_point)
    windows = _windows(loaded, activations, manifest, model)
    aligned = aligned_frames(windows, loaded, max_windows=max_windows, stress=stress)
    report = _of(loaded) | phoneme_report(aligned, ids=loaded.ids, seed=seed)
    _write(out, "phonemes", report, concept_tables.phonemes_markdown, concept_tables.draw_phonemes)


def probe_command(
    dictionary: SaeOrPack,
    target: Target,
    out: OutFolder,
    activations: Store = None,
    manifest: Manifest = None,
    model: Model = None,
    classes: Classes = None,
    k: Annotated[list[int] | None, typer.Option("--k", help="Numbers of features; repeatable. 1 to 2000.")] = None,
    folds: Annotated[int, typer.Option(help="Parts of the data, each held out once.")] = 5,
    max_rows: MaxRows = 10_000,
    frames: Frames = False,
    pool: Pool = "mean",
    max_windows: MaxWindows = 0,
    hook_point: HookPoint = None,
    seed: Seed = 0,
) -> None:
    """How few features tell a label: Fisher-ranked logistic probes on held-out speakers, with controls."""
    from steer_asr_training.analysis import concept_tables
    from steer_asr_training.analysis.inputs import load_dictionary
    from steer_asr_training.analysis.probes import KS, choose_classes, probe_report

    loaded = load_dictionary(dictionary, hook_point)
    windows = _windows(loaded, activations, manifest, model)
    rows = _rows(loaded, windows, target, manifest, pool=pool, frames=frames, max_windows=max_windows)
    rows = choose_classes(rows, classes or (), n_folds=folds, max_rows=max_rows, seed=seed)
    report = _of(loaded) | {"target": target, "pool": pool if rows.unit == "clip" else None}
    report |= probe_report(rows, ks=k or KS, n_folds=folds, ids=loaded.ids, seed=seed)
    _write(out, "probe", report, concept_tables.probe_markdown, concept_tables.draw_probe)


def erase_command(
    dictionary: SaeOrPack,
    target: Target,
    concept: Annotated[str, typer.Argument(help="The value of the label that is to be erased, for example AA.")],
    out: OutFolder,
    activations: Store = None,
    manifest: Manifest = None,
    model: Model = None,
    classes: Classes = None,
    removed: Annotated[
        list[int] | None, typer.Option(help="Numbers of features removed, rising; repeatable. 0 to 90 % without.")
    ] = None,
    penalty: Annotated[
        list[str] | None,
        typer.Option(help="none, or C, the inverse strength of an L2 penalty; repeatable. none, 1 and 0.01 without."),
    ] = None,
    folds: Annotated[int, typer.Option(help="Parts of the data, each held out once.")] = 3,
    max_rows: MaxRows = 1500,
    frames: Frames = False,
    pool: Pool = "mean",
    max_windows: MaxWindows = 0,
    hook_point: HookPoint = None,
    seed: Seed = 0,
) -> None:
    """How many features have to go before a value of a label cannot be told, and what else goes with them."""
    from steer_asr_training.analysis import concept_tables
    from steer_asr_training.analysis.erasure import PENALTIES, erasure_report
    from steer_asr_training.analysis.inputs import load_dictionary
    from steer_asr_training.analysis.probes import choose_classes

    penalties = [_penalty(text) for text in penalty] if penalty else PENALTIES
    loaded = load_dictionary(dictionary, hook_point)
    windows = _windows(loaded, activations, manifest, model)
    rows = _rows(loaded, windows, target, manifest, pool=pool, frames=frames, max_windows=max_windows)
    rows = choose_classes(rows, classes or (), n_folds=folds, max_rows=max_rows, seed=seed)
    report = _of(loaded) | {"label": target, "pool": pool if rows.unit == "clip" else None}
    report |= erasure_report(
        rows, concept, removed=removed, penalties=penalties, n_folds=folds, ids=loaded.ids, seed=seed
    )
    _write(out, "erasure", report, concept_tables.erasure_markdown, concept_tables.draw_erasure)


def boundaries_command(
    dictionary: SaeOrPack,
    out: OutFolder,
    activations: Store = None,
    manifest: Manifest = None,
    model: Model = None,
    tolerance: Annotated[float, typer.Option(help="Seconds that an edge may lie beside the event.")] = 0.1,
    min_pause: Annotated[float, typer.Option(help="Seconds of silence that part two stretches of speech.")] = 0.2,
    best: Annotated[int, typer.Option(help="Features per event.")] = 10,
    max_windows: MaxWindows = 0,
    hook_point: HookPoint = None,
    seed: Seed = 0,
) -> None:
    """Features that begin to fire where speech starts, or where it ends, on clips that say when somebody speaks."""
    from steer_asr.errors import SteerOptionError
    from steer_asr_training.analysis import concept_tables
    from steer_asr_training.analysis.aligned import aligned_frames
    from steer_asr_training.analysis.boundaries import boundary_report
    from steer_asr_training.analysis.inputs import load_dictionary

    if not min_pause >= 2 * tolerance > 0:
        raise SteerOptionError(
            f"min_pause {min_pause} s, tolerance {tolerance} s: a pause has to be at least twice as long as the "
            "tolerance, or one edge would be near two events"
        )
    loaded = load_dictionary(dictionary, hook_point)
    windows = _windows(loaded, activations, manifest, model)
    aligned = aligned_frames(windows, loaded, max_windows=max_windows, min_pause_s=min_pause, need_phones=False)
    report = _of(loaded) | {"min_pause_s": min_pause}
    report |= boundary_report(aligned, tolerance_s=tolerance, n_best=best, ids=loaded.ids, seed=seed)
    _write(out, "boundaries", report, concept_tables.boundaries_markdown, concept_tables.draw_boundaries)


def _windows(
    dictionary: Dictionary, activations: Path | None, manifest: Path | None, model: str | None
) -> StoredWindows | ManifestWindows:
    from steer_asr.errors import SteerOptionError
    from steer_asr_training.analysis.inputs import ManifestWindows, stored_windows
    from steer_asr_training.store import ActivationStore

    if (activations is None) == (manifest is None):
        raise SteerOptionError("give either --activations or --manifest (with --model)")
    if activations is not None:
        return stored_windows(ActivationStore(activations), dictionary)
    if manifest is None or model is None:
        raise SteerOptionError("--manifest needs --model: the clips have to be encoded")
    return ManifestWindows(manifest, model, dictionary)


def _rows(
    dictionary: Dictionary,
    windows: StoredWindows | ManifestWindows,
    target: str,
    manifest: Path | None,
    *,
    pool: str,
    frames: bool,
    max_windows: int,
) -> ProbeRows:
    from steer_asr_training.analysis.activations import clip_table
    from steer_asr_training.analysis.aligned import aligned_frames
    from steer_asr_training.analysis.inputs import StoredWindows
    from steer_asr_training.analysis.probes import check_pool, clip_rows, phone_rows
    from steer_asr_training.analysis.targets import target_values

    if target == "phone":
        aligned = aligned_frames(windows, dictionary, max_windows=max_windows)
        return phone_rows(aligned, per="frame" if frames else "token")
    check_pool(pool)
    manifests = windows.store.header.get("manifests", ()) if isinstance(windows, StoredWindows) else [str(manifest)]
    values = target_values(windows, target, manifests)
    groups = [labels.group for labels in windows.labels]
    return clip_rows(clip_table(windows, dictionary.features), values, groups, pool=pool)


def _penalty(text: str) -> float | None:
    from steer_asr.errors import SteerOptionError

    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise SteerOptionError(f"penalty {text!r}: give none, or a positive number") from None


def _of(dictionary: Dictionary) -> dict[str, Any]:
    return {"dictionary": dictionary.name, "hook_point": dictionary.hook_point}


def _write(
    out: Path,
    name: str,
    report: Mapping[str, Any],
    markdown: Callable[[Mapping[str, Any]], str],
    draw: Callable[[Mapping[str, Any], Path], str | None],
) -> None:
    from steer_asr_training.analysis.tables import write_report

    text = markdown(report)
    picture = draw(report, out / f"{name}.png")
    write_report(out, name, report, text + (f"\n![{name}]({picture})\n" if picture else ""))
    typer.echo(text)
