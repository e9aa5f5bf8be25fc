"""Small folders of files on the Hugging Face Hub: fetched at a known commit, checked by hash; pushed as one commit.

    reference = Reference.parse("hf://owner/name@v1")
    folder = fetch(reference, required=("steer.json",), optional=("README.md",), max_bytes=1_000_000)
    commit = push("owner/name", {"steer.json": b"..."}, message="...")

Nothing but the files that are asked for is downloaded. What was fetched stays in the Hugging Face cache, and is found
there when the hub cannot be reached. `huggingface_hub` is imported when it is needed.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_asr.errors import HubError, HubNotFoundError, HubOfflineError, HubTokenError, PackError

logger = logging.getLogger(__name__)

SCHEME = "hf://"
TIMEOUT_S = 10.0
_REFERENCE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.-]+(?:/[\w.-]+)*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """One repository of models on the hub, at a branch, a tag or a commit."""

    repo: str
    """owner/name"""
    revision: str = "main"

    @classmethod
    def parse(cls, text: str) -> Reference:
        """From `hf://owner/name` or `hf://owner/name@revision`. Raises `HubError` for anything else."""
        found = _REFERENCE.fullmatch(text.removeprefix(SCHEME))
        if not text.startswith(SCHEME) or found is None or ".." in text:
            raise HubError(f"{text!r} names no repository; write hf://owner/name or hf://owner/name@revision")
        check_repo(found["repo"])
        return cls(found["repo"], found["revision"] or "main")

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo}@{self.revision}"


def is_reference(name: object) -> bool:
    return isinstance(name, str) and name.startswith(SCHEME)


def check_repo(repo: str) -> str:
    """`repo` again. Raises `HubError` unless it may be the name of a repository: owner/name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise HubError(f"{repo!r} is no repository name ({error}); write owner/name") from error
    if repo.count("/") != 1:
        raise HubError(f"{repo!r} is no repository name; write owner/name")
    return repo


def fetch(reference: Reference, *, required: Sequence[str], optional: Sequence[str], max_bytes: int) -> Path:
    """The folder in the Hugging Face cache that holds the files, at one commit, whose hash is the folder's name.

    `required` and `optional` are all that is downloaded, and only if they have at most `max_bytes` together. Each is
    checked against the hash that the commit has for it (SHA-256 for large files, git's SHA-1 for others). A commit that
    is cached is not asked for again; a branch or tag is, and if the hub cannot be reached, the cached state counts.

    Raises `HubNotFoundError`, `HubTokenError` (private, gated), `HubOfflineError` (and nothing is cached), or
    `PackError` for a repository without those files, with too large ones, or with damaged ones.
    """
    if _COMMIT.fullmatch(reference.revision) and (cached := _cached(reference, required, optional)):
        return cached
    try:
        with _translated(reference.repo, reference.revision):
            info = _api().model_info(
                reference.repo, revision=reference.revision, files_metadata=True, timeout=TIMEOUT_S
            )
    except HubOfflineError as error:
        if cached := _cached(reference, required, optional):
            logger.warning("%s; using the cached commit %s", error, cached.name)
            return cached
        raise HubOfflineError(f"{error}, and {reference} is not in the Hugging Face cache") from error
    files = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    if missing := [name for name in required if name not in files]:
        raise PackError(f"{reference} holds no steer pack: {missing[0]} is missing")
    wanted = [name for name in (*required, *optional) if name in files]
    _check_sizes(reference, {name: files[name].size for name in wanted}, max_bytes)
    folder = None
    for name in wanted:
        expected = files[name].lfs.sha256 if files[name].lfs else files[name].blob_id
        # The first at the branch, so that the cache knows where that points; all others at its commit.
        revision = reference.revision if folder is None else folder.name
        folder = _download(reference, name, revision, expected).parent
        if info.sha and folder.name != info.sha:
            raise HubError(f"{reference} changed while it was fetched; try again")
    assert folder is not None, "there are required files"
    return folder


def _check_sizes(reference: Reference, sizes: Mapping[str, int | None], max_bytes: int) -> None:
    if unknown := [name for name, size in sizes.items() if size is None]:
        raise PackError(f"{reference}: the hub does not say how large {unknown[0]} is, so it is not fetched")
    total = sum(size for size in sizes.values() if size is not None)
    if total > max_bytes:
        raise PackError(f"{reference}: {total} bytes; a steer pack has at most {max_bytes}, so it is not fetched")


def _download(reference: Reference, name: str, revision: str, expected: str | None) -> Path:
    """One file, in the cache; a damaged one is fetched once more."""
    for again in (False, True):
        with _translated(reference.repo, reference.revision):
            path = Path(_api().hf_hub_download(reference.repo, name, revision=revision, force_download=again))
        if expected is None or _has_hash(path, expected):
            return path
    raise PackError(f"{reference}: {name} is not the file that the commit names (hash {expected}); it was damaged")


def _cached(reference: Reference, required: Sequence[str], optional: Sequence[str]) -> Path | None:
    """The folder of the cache, if all required files are there. Raises `PackError` for a file that was damaged."""
    from huggingface_hub import try_to_load_from_cache

    found = {
        name: path
        for name in (*required, *optional)
        if isinstance(path := try_to_load_from_cache(reference.repo, name, revision=reference.revision), str)
    }
    if any(name not in found for name in required):
        return None
    for name, path in found.items():
        blob = Path(path).resolve()
        if blob != Path(path).absolute() and _BLOB.fullmatch(blob.name) and not _has_hash(blob, blob.name):
            raise PackError(f"{reference}: {name} was damaged in the cache; delete {blob} and fetch it again")
    return Path(found[required[0]]).parent


def _has_hash(path: Path, expected: str) -> bool:
    """Whether the content has this SHA-256, or, for 40 digits, this SHA-1 as a git blob."""
    content = path.read_bytes()
    if len(expected) == 64:
        return hashlib.sha256(content).hexdigest() == expected
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == expected


def push(repo: str, files: Mapping[str, bytes], *, message: str, private: bool | None, token: str | None) -> str:
    """Makes the repository if need be, and puts all files there in one commit. Returns its hash.

    `token` is the user's own if None is given (HF_TOKEN, or `hf auth login`). Raises `HubTokenError` when there is none
    or when it may not write there, `HubOfflineError`, `HubError` for what else the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd

    api = _api(token)
    with _translated(repo, "main", pushing=True):
        api.whoami()
        api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
        additions = [CommitOperationAdd(name, content) for name, content in files.items()]
        return api.create_commit(repo, additions, commit_message=message).oid


def _api(token: str | None = None) -> Any:
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="steer_asr")


@contextmanager
def _translated(repo: str, revision: str, *, pushing: bool = False) -> Iterator[None]:
    """What huggingface_hub raises, as one of our errors, which say what would work."""
    from huggingface_hub import errors

    try:
        yield
    except errors.LocalTokenNotFoundError as error:
        raise HubTokenError("no Hugging Face token; run `hf auth login`, or set HF_TOKEN") from error
    except errors.GatedRepoError as error:
        raise HubTokenError(f"{repo} is gated: ask for access on its page, then run `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        raise HubNotFoundError(
            f"there is no repository {repo} on the Hugging Face Hub, or it is private and your token may not see it "
            "(`hf auth login`, or HF_TOKEN)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubNotFoundError(f"{repo} has no branch, tag or commit {revision!r}") from error
    except errors.LocalEntryNotFoundError as error:
        raise HubOfflineError(f"the Hugging Face Hub cannot be reached ({_first_line(error)})") from error
    except errors.EntryNotFoundError as error:
        raise HubNotFoundError(f"{repo} at {revision!r} has lost a file while it was fetched; try again") from error
    except errors.OfflineModeIsEnabled as error:
        raise HubOfflineError("the Hugging Face Hub is not asked, since HF_HUB_OFFLINE is set") from error
    except errors.HfHubHTTPError as error:
        raise _refused(repo, error, pushing) from error
    except (errors.HTTPError, ConnectionError, TimeoutError) as error:  # pyright: ignore[reportPrivateImportUsage]
        raise HubOfflineError(f"the Hugging Face Hub cannot be reached ({_first_line(error)})") from error
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: the upload of one file, by whatever protocol
        reason = " ".join(str(error).split()) + (f" ({_first_line(error.__cause__)})" if error.__cause__ else "")
        raise HubError(f"{repo}: {reason}") from error


def _refused(repo: str, error: Any, pushing: bool) -> HubError:
    status, reason = error.response.status_code, error.server_message or _first_line(error)
    if status == 401:
        return HubTokenError(f"the Hugging Face token is not valid ({reason}); run `hf auth login`, or set HF_TOKEN")
    if status == 403:
        what = "write to" if pushing else "read"
        return HubTokenError(f"the Hugging Face token may not {what} {repo} ({reason})")
    if status >= 500 or status == 429:
        return HubOfflineError(f"the Hugging Face Hub does not answer now (HTTP {status}: {reason})")
    return HubError(f"the Hugging Face Hub refused {repo} (HTTP {status}: {reason})")


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
