"""Other libraries, each in a virtual environment of its own: they pin what others cannot live with."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from steer_asr.errors import SteerASRError

OURS = "ours"


class SpeedError(SteerASRError):
    """An environment could not be made, or a contender failed in it."""


@dataclass(frozen=True)
class Peer:
    """A library to compare with."""

    package: str
    version: str
    kinds: tuple[str, ...]
    alone: bool = False
    """Installed without what it requires, save `beside`."""
    beside: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


PEERS = {
    # it requires nnsight 0.3 and 90 other packages, for language models and pictures; training needs two of them
    "dictionary_learning": Peer(
        "dictionary-learning", "0.1.0", ("batch_topk", "topk"), alone=True, beside=("numpy", "einops", "tqdm")
    ),
    "saelens": Peer("sae-lens", "6.54.12", ("batch_topk", "topk")),
    "sparsify": Peer("eai-sparsify", "1.3.3", ("topk",)),
}


def environment(name: str, folder: Path, torch_version: str) -> Path:
    """The interpreter of a peer's environment, which is made when it is not there yet. Needs a package index.

    It gets the PyTorch that runs here. Raises `SpeedError` when something cannot be installed.
    """
    peer, home = PEERS[name], folder / name
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    release = torch_version.split("+")[0]
    found = versions(python, [peer.package, "torch"]) if python.is_file() else {}
    if found.get(peer.package) == peer.version and found.get("torch", "").split("+")[0] == release:
        return python
    sys.stderr.write(f"speed: installing {peer.requirement} in {home}; this can take minutes\n")
    shutil.rmtree(home, ignore_errors=True)
    _call([sys.executable, "-m", "venv", str(home)])
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _call([*install, f"torch=={release}", "numpy"])
    _call([*install, f"torch=={release}", *(["--no-deps"] if peer.alone else []), peer.requirement])
    if peer.beside:
        _call([*install, *peer.beside])
    return python


def versions(python: Path, packages: list[str]) -> dict[str, str]:
    """Version of each of these packages that an interpreter has."""
    code = (
        "import json, sys, importlib.metadata as m\n"
        "names = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        "print(json.dumps({n: names[n] for n in sys.argv[1:] if n in names}))"
    )
    done = subprocess.run([str(python), "-c", code, *packages], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {}


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise SpeedError(
            f"`{' '.join(command)}` failed: {' '.join(last)}; without it: --peers with the others, or none"
        )
