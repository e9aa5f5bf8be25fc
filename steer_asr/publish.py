"""Steer packs to the Hugging Face Hub: checked, with licence and provenance in the card's metadata, in one commit.

push_pack("packs/my-pack", "owner/name")        # "hf://owner/name@4f1c..."
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from steer_asr._files import sha256_of
from steer_asr.errors import PackError
from steer_asr.hub import Reference, check_repo, push
from steer_asr.pack import CARD_FILE, MAX_PACK_BYTES, OPTIONAL_FILES, REQUIRED_FILES, SteerPack, find_pack, load_pack

LICENCES = ("mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-3.0",
            "cc-by-sa-3.0", "cc-by-nc-4.0", "gpl-3.0", "lgpl-3.0", "openrail", "odbl", "unlicense")  # fmt: skip
"""Identifiers that the hub knows; any other licence is "other" there, with its name beside it."""
OPENAI_NAMES = re.compile(r"(tiny|base|small|medium)(\.en)?|large(-v[123])?(-turbo)?")
TAGS = ("steer-asr", "whisper", "steering", "sparse-autoencoder")


def push_pack(
    pack: str | os.PathLike[str],
    repo: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    message: str | None = None,
) -> str:
    """Pushes a pack, by name or folder, to the repository `owner/name`, which is made if it does not exist.

    Only the pack's own files go there, in one commit. The card's metadata gets the licence and, below `steer_asr`, the
    base model's hash, the training data with their licences, the recipe's name and the SHA-256 of each file. Returns
    the reference that stays what it is: `hf://owner/name@COMMIT`. `private` is for a new repository; `token` is the
    user's own if None.

    Raises `PackError` for a pack that cannot be loaded, has no card, or does not say its licence; `HubTokenError`,
    `HubOfflineError` or `HubError` when the hub does not take it.
    """
    check_repo(repo)
    folder = find_pack(pack)
    loaded = load_pack(folder)
    files = {name: (folder / name).read_bytes() for name in REQUIRED_FILES}
    files |= {name: (folder / name).read_bytes() for name in OPTIONAL_FILES if (folder / name).is_file()}
    if CARD_FILE not in files:
        raise PackError(f"{folder} has no model card; write {CARD_FILE}, or export the pack again")
    files[CARD_FILE] = _with_metadata(loaded, folder, files[CARD_FILE].decode("utf-8")).encode("utf-8")
    if (size := sum(map(len, files.values()))) > MAX_PACK_BYTES:
        raise PackError(f"{folder}: {size} bytes with its card's metadata; a steer pack has at most {MAX_PACK_BYTES}")
    commit = push(repo, files, message=message or f"Steer pack for {loaded.base_model}", private=private, token=token)
    return str(Reference(repo, commit))


def _with_metadata(pack: SteerPack, folder: Path, card: str) -> str:
    """The card with its YAML block completed; what is there already and is not ours stays."""
    from huggingface_hub import ModelCard

    try:
        parsed = ModelCard(card)
    except Exception as error:  # whatever the YAML parser raises
        raise PackError(f"{folder / CARD_FILE}: the metadata at its top cannot be read ({error})") from error
    there = {key: value for key, value in parsed.data.to_dict().items() if key != "base_model"}
    metadata: dict[str, Any] = there | card_metadata(pack, folder)
    metadata["tags"] = list(dict.fromkeys([*TAGS, *there.get("tags", ())]))
    parsed.data = type(parsed.data)(**metadata)
    return str(parsed)


def card_metadata(pack: SteerPack, folder: Path) -> dict[str, Any]:
    """What the hub should know of a pack. Raises `PackError` when it does not say under which licence it is."""
    origin = pack.provenance
    licence = origin.get("licence")
    if not isinstance(licence, str) or not licence.strip():
        raise PackError(f"{folder} does not say its licence; put one into provenance.licence of steer.json")
    known = licence.strip().lower().replace(" ", "-")
    base = pack.base_model
    on_hub = base if base.count("/") == 1 else f"openai/whisper-{base}" if OPENAI_NAMES.fullmatch(base) else None
    return {
        **({"license": known} if known in LICENCES else {"license": "other", "license_name": licence}),
        **({"base_model": on_hub, "base_model_relation": "adapter"} if on_hub else {}),
        "library_name": "steer-asr",
        "pipeline_tag": "automatic-speech-recognition",
        "steer_asr": {
            "base_model_name": base,
            "base_model_sha256": pack.base_sha256,
            "hook_point": pack.hook_point,
            "features": len(pack.feature_ids),
            "training_data": list(origin.get("training_data", ())),
            "recipe": (origin.get("recipe") or {}).get("name"),
            "code": dict(origin.get("code") or {}),
            "sha256": {name: sha256_of(folder / name) for name in REQUIRED_FILES},
        },
    }
