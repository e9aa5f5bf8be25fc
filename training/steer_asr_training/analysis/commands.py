"""`steer-asr-train evaluate`, `stability`, `features` and `search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steer_asr_training.analysis.concept_commands import register as register_concepts

if TYPE_CHECKING:
    from steer_asr_training.analysis.inputs import Dictionary, ManifestWindows, StoredWindows

SaeFolder = Annotated[Path, typer.Argument(help="The sae folder written by fit.")]
SaeOrPack = Annotated[str, typer.Argument(help="The sae folder written by fit, or a pack by folder or name.")]
Store = Annotated[Path, typer.Option("--activations", help="Folder written by collect.")]
OutFolder = Annotated[Path, typer.Option("--out", "-o", help="Folder for the report, JSON and Markdown.")]
HookPoint = Annotated[str | None, typer.Option(help="For an SAE whose files do not say where it reads.")]


def register(app: typer.Typer) -> None:
    """Adds these commands, and those of `concept_commands.py`, to the command line."""
    app.command("evaluate")(evaluate_command)
    app.command("stability")(stability_command)
    app.command("features")(features_command)
    app.command("search")(search_command)
    register_concepts(app)


def evaluate_command(
    sae: SaeFolder,
    activations: Store,
    out: OutFolder,
    model: Annotated[
        str | None, typer.Option(help="Also splice the reconstruction into this Whisper and decode.")
    ] = None,
    windows: Annotated[int, typer.Option(help="How many windows are decoded.")] = 64,
    splice_frames: Annotated[str, typer.Option(help="Replace all frames, or the real ones that hear audio.")] = "all",
    hook_point: HookPoint = None,
    seed: Annotated[int, typer.Option(help="Of the random SAE and of the windows that are decoded.")] = 0,
) -> None:
    """How good an SAE is: explained variance, L0, alive features, densities, duplicates, against a random SAE."""
    from steer_asr.errors import SteerOptionError
    from steer_asr.models import find_model
    from steer_asr_training.analysis import tables
    from steer_asr_training.analysis.inputs import load_dictionary, stored_windows
    from steer_asr_training.analysis.quality import quality
    from steer_asr_training.analysis.splice import check_splice, splice
    from steer_asr_training.store import ActivationStore

    dictionary = load_dictionary(sae, hook_point)
    if dictionary.pack is not None:
        raise SteerOptionError(f"{sae} is a pack: a few features that reconstruct nothing; give the sae folder of fit")
    files = None if model is None else find_model(model)
    stored = stored_windows(ActivationStore(activations), dictionary)
    report: dict[str, Any] = {
        "dictionary": dictionary.name,
        "hook_point": dictionary.hook_point,
        "activations": str(activations),
    }
    if files is not None:
        check_splice(stored, files, windows, splice_frames)
    measured = quality(stored, dictionary.features, control_seed=seed)
    report |= measured.report
    if files is not None:
        arms = {"sae": dictionary.features} | ({"random_sae": measured.control} if measured.control else {})
        report["splice"] = splice(stored, arms, files, n_windows=windows, frames=splice_frames, seed=seed)
    picture = tables.draw_density(report["density"], out / tables.DENSITY_PICTURE)
    text = tables.quality_markdown(report, picture)
    tables.write_report(out, "quality", report, text)
    typer.echo(text)


def stability_command(
    sae_a: SaeFolder,
    sae_b: SaeFolder,
    activations: Store,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the report, JSON and Markdown.")] = None,
) -> None:
    """Whether two SAEs, of two seeds say, hold the same features: by when they fire, and by direction."""
    from steer_asr_training.analysis import tables
    from steer_asr_training.analysis.inputs import load_dictionary
    from steer_asr_training.analysis.stability import stability
    from steer_asr_training.store import ActivationStore

    report = stability(ActivationStore(activations), load_dictionary(sae_a), load_dictionary(sae_b))
    text = tables.stability_markdown(report)
    if out is not None:
        tables.write_report(out, "stability", report, text)
    typer.echo(text)


def features_command(
    dictionary: SaeOrPack,
    activations: Store,
    out: OutFolder,
    model: Annotated[str | None, typer.Option(help="Instead of the model that the activations come from.")] = None,
    effect_windows: Annotated[
        int, typer.Option(help="Windows of non-speech for the effect on end of text; 0 leaves it out.")
    ] = 16,
    top: Annotated[int, typer.Option(help="Top windows per feature.")] = 5,
    audio: Annotated[bool, typer.Option(help="Listen to the top windows, where their audio is there.")] = True,
    hook_point: HookPoint = None,
    seed: Annotated[int, typer.Option(help="Of the windows of non-speech.")] = 0,
) -> None:
    """What each feature responds to and does: statistics, top windows, effect on end of text, a description."""
    from steer_asr.models import find_model
    from steer_asr_training.analysis import tables
    from steer_asr_training.analysis.acoustics import acoustics_of_tops
    from steer_asr_training.analysis.activations import clip_table
    from steer_asr_training.analysis.aligned import aligned_frames, has_alignments
    from steer_asr_training.analysis.end_of_text import end_of_text_effect
    from steer_asr_training.analysis.features import feature_report, top_windows
    from steer_asr_training.analysis.inputs import load_dictionary, stored_windows
    from steer_asr_training.analysis.phonemes import phones_of_features
    from steer_asr_training.store import ActivationStore

    loaded = load_dictionary(dictionary, hook_point)
    windows = stored_windows(ActivationStore(activations), loaded)
    effect = None
    if effect_windows > 0:
        files = find_model(model or windows.store.header["model"])
        effect = end_of_text_effect(windows, loaded.features.W_dec, files, n_windows=effect_windows, seed=seed)
    table = clip_table(windows, loaded.features)
    tops = top_windows(table, top)
    sounds = acoustics_of_tops(windows, [[pair[:2] for pair in pairs] for pairs in tops]) if audio else None
    phones = phones_of_features(aligned_frames(windows, loaded)) if has_alignments(windows) else None
    report: dict[str, Any] = {"activations": str(activations)}
    report |= feature_report(windows, loaded, table, effect=effect, sounds=sounds, tops=tops, phones=phones)
    tables.write_report(out, "features", report, tables.features_markdown(report))
    typer.echo(out / "features.md")


def search_command(
    dictionary: SaeOrPack,
    labels: Annotated[
        list[str] | None, typer.Argument(help="For example rain, category:water or source:esc10; all without one.")
    ] = None,
    activations: Annotated[Path | None, typer.Option(help="Folder written by collect.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Instead: a labelled manifest, encoded now.")] = None,
    model: Annotated[str | None, typer.Option(help="With --manifest: the model to encode with.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the report, JSON and Markdown.")] = None,
    best: Annotated[int, typer.Option(help="Features per label.")] = 5,
    hook_point: HookPoint = None,
) -> None:
    """The features that tell best, by F1 on held-out recordings, where a label, category or source sounds."""
    from steer_asr_training.analysis import tables
    from steer_asr_training.analysis.activations import clip_table
    from steer_asr_training.analysis.inputs import load_dictionary
    from steer_asr_training.analysis.labels import all_tags, find_tag
    from steer_asr_training.analysis.search import Peaks, search_label

    loaded = load_dictionary(dictionary, hook_point)
    windows = _searched(loaded, activations, manifest, model)
    tags = [find_tag(windows.labels, name) for name in labels] if labels else all_tags(windows.labels)
    peaks = Peaks.of(clip_table(windows, loaded.features))
    found = [search_label(peaks, windows.labels, tag, n_best=best, ids=loaded.ids) for tag in tags]
    report = {"dictionary": loaded.name, "hook_point": loaded.hook_point, "windows": len(windows), "labels": found}
    text = tables.search_markdown(report)
    if out is not None:
        tables.write_report(out, "search", report, text)
    typer.echo(text)


def _searched(
    dictionary: Dictionary, activations: Path | None, manifest: Path | None, model: str | None
) -> StoredWindows | ManifestWindows:
    from steer_asr.errors import SteerOptionError
    from steer_asr_training.analysis.inputs import ManifestWindows, stored_windows
    from steer_asr_training.store import ActivationStore

    if (activations is None) == (manifest is None):
        raise SteerOptionError("give either --activations or --manifest (with --model) to search in")
    if activations is not None:
        return stored_windows(ActivationStore(activations), dictionary)
    if manifest is None or model is None:
        raise SteerOptionError("--manifest needs --model: the clips have to be encoded")
    return ManifestWindows(manifest, model, dictionary)
