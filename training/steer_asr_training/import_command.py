"""`steer-asr-train import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steer_asr.errors import SteerOptionError, WeightsError

if TYPE_CHECKING:
    from steer_asr.sae import SaeFeatures
    from steer_asr_training.foreign.sae import ForeignSae


MODEL = {"model": "model_name", "model_sha256": "model_sha256"}
"""{in a store's header: in the metadata of a dictionary}, as `fit` has them."""


def import_command(
    source: Annotated[Path, typer.Argument(help="Folder of one dictionary, or the file with its weights.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the SAE, as fit leaves it.")],
    format: Annotated[
        str, typer.Option("--format", help="audiosae, dictionary_learning, sparsify or saelens; auto looks.")
    ] = "auto",
    activations: Annotated[
        Path | None, typer.Option(help="Folder written by collect: checks the reconstruction, calibrates thresholds.")
    ] = None,
    hook_point: Annotated[
        str | None, typer.Option(help="Instead of the source's, for example encoder.layers.5.")
    ] = None,
    max_fvu: Annotated[float, typer.Option(help="Refuse what leaves more of the variance unexplained.")] = 0.3,
) -> None:
    """Somebody else's sparse autoencoder (AudioSAE, dictionary_learning, sparsify, SAELens) to ours."""
    from steer_asr_training.foreign import load_foreign
    from steer_asr_training.foreign.check import check, other_layers, stored_frames
    from steer_asr_training.store import ActivationStore

    sae = load_foreign(source, format)
    k = f", k {sae.k}" if sae.k else ""
    typer.echo(f"{sae.format}: {sae.kind}{k}, {sae.d_in} wide, {sae.n_features} features")
    point = hook_point or sae.hook_point
    if point is None:
        raise SteerOptionError(f"{source} does not say its hook point; --hook-point encoder.layers.N, N from 0")
    if activations is None:
        if sae.normalization == "expected_average_only_in":
            raise SteerOptionError(
                f"{source} was trained on scaled inputs, and does not say by how much; --activations"
            )
        features, metadata = sae.features(), {}
        typer.echo("not checked: --activations measures what it reconstructs")
    else:
        store = ActivationStore(activations)
        features, report = check(sae, stored_frames(store, point), max_fvu=max_fvu)
        layers = other_layers(features, store, point)
        if (best := min(layers, key=lambda name: layers[name])) != point and hook_point is None:
            raise WeightsError(
                f"{source} says {point}, and reconstructs {best} better (FVU {layers[best]:.4f}, not "
                f"{layers[point]:.4f}); --hook-point {best} if that is where it belongs"
            )
        report["layers"] = layers
        metadata = {"check": report} | {name: store.header[name] for name in MODEL if name in store.header}
        for line in told(report):
            typer.echo(line)
    typer.echo(write(features, sae, out, point, metadata))


def told(report: dict[str, Any]) -> list[str]:
    """The check in words, one line for each fact."""
    tried = ", ".join(f"{name} {fvu:.4f}" for name, fvu in report["tried"].items())
    as_trained = report["fvu_as_trained"]
    return [
        f"FVU {report['fvu']:.4f}, L0 {report['l0']:.1f}, on {report['frames']} frames",
        *([] if as_trained is None else [f"FVU {as_trained:.4f} with the source's own rule"]),
        f"inputs: {report['inputs']} (FVU by inputs: {tried})",
        f"threshold: {report['threshold']}",
        "FVU by hook point: " + ", ".join(f"{name} {fvu:.4f}" for name, fvu in report["layers"].items()),
    ]


def write(features: SaeFeatures, sae: ForeignSae, out: Path, hook_point: str, metadata: dict[str, Any]) -> Path:
    """Our two files, with where they come from and what was checked. Raises `OutputError`."""
    from steer_asr._files import atomic_path
    from steer_asr.sae import save_features

    origin = {name: value for name, value in sae.origin.items() if name != "path" and value is not None}
    said = {"hook_name": hook_point, "imported": {"format": sae.format, "kind": sae.kind, "k": sae.k, **origin}}
    said |= {MODEL.get(name, name): value for name, value in metadata.items()}
    with atomic_path(out) as temporary:
        temporary.mkdir()
        save_features(temporary, features, said)
    return out
