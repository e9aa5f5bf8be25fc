"""A small Hugging Face Hub: a real HTTP server with the part of the API that huggingface_hub calls for packs.

    with HubServer() as hub:
        hub.url, hub.repos["owner/name"].commits, hub.requests

Answers follow what huggingface_hub 2.4 expects (`hf_api.py`, `_commit_api.py`, `lfs.py`, `file_download.py`): regular
files travel inside the commit, as base64 in NDJSON, `*.safetensors` through Git LFS; a file's ETag is its git blob's
SHA-1, or, for LFS, its SHA-256 in `X-Linked-Etag` of a redirect.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKENS = {"hf_writer": "owner", "hf_other": "other"}


def git_blob_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repo:
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """{commit: files}"""
    refs: dict[str, str] = field(default_factory=dict)
    """{branch or tag: commit}"""

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        digest = hashlib.sha1(repr((sorted(files.items()), len(self.commits))).encode()).hexdigest()
        self.commits[digest] = files
        self.refs[branch] = digest
        return digest

    def at(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


class HubServer:
    """`damage` replaces what is sent for a file; `status` makes every request fail with it."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.damage: dict[str, bytes] = {}
        self.status: int | None = None
        self.storage_is_full = False
        self.move_after_info: dict[str, dict[str, bytes]] = {}
        hub = self

        class Handler(_Handler):
            server_state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.cdn_url = self.url.replace("127.0.0.1", "localhost")
        self.tokens_at_cdn = 0
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def downloads(self) -> list[str]:
        """Names of the files whose content was sent."""
        return [line.rpartition("/")[2] for line in self.requests if re.match(r"GET /([^/]+/[^/]+/resolve|cdn)/", line)]


class _Handler(BaseHTTPRequestHandler):
    server_state: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: ARG002
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        hub, path = self.server_state, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.requests.append(f"{self.command} {path}")
        self.user = TOKENS.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))
        if hub.status is not None:
            self._send(hub.status, {"error": "broken for the test"})
            return
        for method, pattern, handle in _ROUTES:
            if self.command == method and (found := re.fullmatch(pattern, path)):
                handle(self, body, **found.groupdict())
                return
        self._send(404, {"error": f"the test's hub has no {self.command} {path}"})

    def _send(self, status: int, content: object = b"", headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str | None, message: str) -> None:
        self._send(status, {"error": message}, {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {}))

    def _readable(self, name: str) -> Repo | None:
        repo = self.server_state.repos.get(name)
        if repo is None or (repo.private and self.user != name.split("/")[0]):
            self._refuse(404 if self.user else 401, "RepoNotFound", "Repository not found")
            return None
        if repo.gated and self.user != name.split("/")[0]:
            self._refuse(403, "GatedRepo", "Access to this model is restricted")
            return None
        return repo

    def _writable(self, name: str) -> Repo | None:
        if self.user != name.split("/")[0]:
            self._refuse(403 if self.user else 401, None, "You don't have the rights to do this")
            return None
        return self._readable(name)

    def whoami(self, _: bytes) -> None:
        if self.user is None:
            self._refuse(401, None, "Invalid credentials in Authorization header")
        else:
            self._send(200, {"type": "user", "name": self.user})

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization'] or self.user}/{asked['name']}"
        if self.user != name.split("/")[0]:
            self._refuse(403, None, "You don't have the rights to create a model under the namespace")
        elif name in self.server_state.repos:
            self._send(409, {"error": "You already created this model repo", "url": f"{self.server_state.url}/{name}"})
        else:
            self.server_state.repos[name] = Repo(private=asked.get("visibility") == "private")
            self._send(200, {"url": f"{self.server_state.url}/{name}"})

    def validate_yaml(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        metadata = yaml.safe_load(content.split("---")[1])
        errors = [{"message": f'"{key}" is not allowed to be empty'} for key in ("license",) if not metadata.get(key)]
        if metadata.get("base_model") and metadata["base_model"].count("/") != 1:
            errors.append({"message": '"base_model" with value is not valid. Use a model id from the Hub'})
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        if (found := self._writable(repo)) is None:
            return
        head = found.commits.get(found.at(revision) or "", {})
        files = []
        for file in json.loads(body)["files"]:
            mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
            there = head.get(file["path"])
            oid = there and (hashlib.sha256(there).hexdigest() if mode == "lfs" else git_blob_sha1(there))
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send(200, {"files": files})

    def lfs_batch(self, body: bytes, repo: str) -> None:
        if self._writable(repo) is None:
            return
        asked = json.loads(body)
        assert asked["operation"] == "upload"
        assert asked["hash_algo"] == "sha256"
        objects = []
        for item in asked["objects"]:
            upload = {"href": f"{self.server_state.url}/lfs/{item['oid']}"}
            known = item["oid"] in self.server_state.lfs
            objects.append(item | ({} if known else {"actions": {"upload": upload}}))
        self._send(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if self.server_state.storage_is_full or hashlib.sha256(body).hexdigest() != oid:
            self._send(400, {"error": "no"})
            return
        self.server_state.lfs[oid] = body
        self._send(200)

    def commit(self, body: bytes, repo: str, revision: str) -> None:
        if (found := self._writable(repo)) is None:
            return
        lines = [json.loads(line) for line in body.splitlines()]
        assert lines[0]["key"] == "header"
        files = dict(found.commits.get(found.at(revision) or "", {}))
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert (line["key"], value["algo"]) == ("lfsFile", "sha256")
                files[value["path"]] = self.server_state.lfs[value["oid"]]
        oid = found.commit(files, revision)
        url = f"{self.server_state.url}/{repo}/commit/{oid}"
        self._send(200, {"success": True, "commitOid": oid, "commitUrl": url})

    def info(self, _: bytes, repo: str, revision: str = "main") -> None:
        if (found := self._readable(repo)) is None:
            return
        if (sha := found.at(revision)) is None:
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
            return
        siblings = []
        for name, content in found.commits[sha].items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git_blob_sha1(content)}
            if name.endswith(".safetensors"):
                sha256 = hashlib.sha256(content).hexdigest()
                entry |= {"lfs": {"sha256": sha256, "size": len(content), "pointerSize": 130}, "blobId": "f" * 40}
            siblings.append(entry)
        facts = {"id": repo, "modelId": repo, "sha": sha, "private": found.private, "tags": [], "downloads": 0}
        self._send(200, facts | {"siblings": siblings})
        if repo in self.server_state.move_after_info:
            found.commit(self.server_state.move_after_info.pop(repo))

    def resolve(self, _: bytes, repo: str, revision: str, file: str) -> None:
        if (found := self._readable(repo)) is None:
            return
        if (sha := found.at(revision)) is None:
            self._refuse(404, "RevisionNotFound", "Invalid rev id")
            return
        if (content := found.commits[sha].get(file)) is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        headers = {"X-Repo-Commit": sha}
        sent = self.server_state.damage.get(file, content)
        if file.endswith(".safetensors"):
            sha256 = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content)), "ETag": f'"{"f" * 40}"'}
            if self.command == "HEAD":
                # As on the hub: the content lies on another host, which must not see the token.
                self._send(302, headers=headers | {"Location": f"{self.server_state.cdn_url}/cdn/{sha}/{repo}/{file}"})
                return
        else:
            headers["ETag"] = f'"{git_blob_sha1(content)}"'
        self._send(200, sent, headers)

    def cdn(self, _: bytes, sha: str, repo: str, file: str) -> None:
        self.server_state.tokens_at_cdn += "Authorization" in self.headers
        content = self.server_state.repos[repo].commits[sha][file]
        self._send(200, self.server_state.damage.get(file, content))


_REPO, _REV = r"(?P<repo>[^/]+/[^/]+)", r"(?P<revision>[^/]+(?:/[^/]+)*?)"
_ROUTES = [
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate_yaml),
    ("POST", f"/api/models/{_REPO}/preupload/{_REV}", _Handler.preupload),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_put),
    ("POST", f"/api/models/{_REPO}/commit/{_REV}", _Handler.commit),
    ("GET", f"/api/models/{_REPO}", _Handler.info),
    ("GET", f"/api/models/{_REPO}/revision/{_REV}", _Handler.info),
    ("HEAD", f"/{_REPO}/resolve/{_REV}/(?P<file>[^/]+)", _Handler.resolve),
    ("GET", f"/cdn/(?P<sha>[0-9a-f]+)/{_REPO}/(?P<file>[^/]+)", _Handler.cdn),
    ("GET", f"/{_REPO}/resolve/{_REV}/(?P<file>[^/]+)", _Handler.resolve),
]
