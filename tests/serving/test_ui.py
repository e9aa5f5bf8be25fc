"""The page's routes: what is served to whom, what a recording turns into, what is kept of it and for how long."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx2
import pytest

import steer_asr_serving.ui
from steer_asr_serving.deployment import TranscriberReplica
from steer_asr_serving.ui.routes import POLICY
from tests.helpers import noise
from tests.serving.conftest import Recorder, as_wav
from tests.serving.scripted_whisper import PARTS, TEXT
from tests.serving.test_auth import KEYS, configured

pytestmark = pytest.mark.anyio

STATIC = Path(steer_asr_serving.ui.__file__).parent / "static"
Connect = Callable[..., httpx2.AsyncClient]


def bearer(who: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[who]}"}


async def analyze(client: httpx2.AsyncClient, sound: bytes, model: str = "scripted", **options: Any) -> httpx2.Response:
    files = {"file": ("a.wav", sound)}
    return await client.post("/ui/api/analyze", data={"model": model}, files=files, **options)


async def resteer(client: httpx2.AsyncClient, session: str, strength: float, **options: Any) -> httpx2.Response:
    return await client.post("/ui/api/resteer", json={"id": session, "strength": strength}, **options)


class Tags(HTMLParser):
    """Every element of a page: [(tag, attributes)]."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


async def test_the_page_asks_for_no_key_and_runs_only_its_own_files(http: Connect) -> None:
    async with http(**configured()) as client:
        page = await client.get("/ui")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["content-security-policy"] == POLICY
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "no-referrer"
        for attribute, name in re.findall(r'(src|href)="([^"]*)"', page.text):
            assert name.startswith("ui/"), (attribute, name)
            part = await client.get(f"/{name}")
            assert part.status_code == 200
            assert part.headers["content-security-policy"] == POLICY


def test_the_policy_allows_no_other_origin_and_nothing_inline() -> None:
    rules = {name: rest for name, _, rest in (rule.strip().partition(" ") for rule in POLICY.split(";"))}
    assert rules["default-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"
    assert "unsafe" not in POLICY
    assert not {"script-src", "style-src", "connect-src"} & rules.keys(), "default-src holds for them"


def test_nothing_in_the_page_is_inline_or_from_elsewhere() -> None:
    for tag, attributes in Tags((STATIC / "index.html").read_text(encoding="utf-8")).found:
        assert tag != "style"
        assert tag != "script" or attributes.get("src")
        assert not [name for name in attributes if name == "style" or name.startswith("on")], (tag, attributes)
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), file


def test_every_control_has_a_label() -> None:
    tags = Tags((STATIC / "index.html").read_text(encoding="utf-8")).found
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = {attributes.get("for") for tag, attributes in tags if tag == "label"}
    for tag, attributes in tags:
        if tag in ("input", "select"):
            assert attributes["id"] in labelled, attributes
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert {*(attributes.get(name) or "").split()} <= {*ids}, attributes


@pytest.mark.parametrize("name", ["none.js", "..%2froutes.py", "%2e%2e%2froutes.py", "app.js%00", "__init__.py"])
async def test_only_the_page_s_own_files_are_served(http: Connect, name: str) -> None:
    async with http() as client:
        answer = await client.get(f"/ui/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_the_page_can_be_switched_off(http: Connect, wav: bytes) -> None:
    async with http(ui=False) as client:
        assert (await client.get("/ui")).status_code == 404
        assert (await analyze(client, wav)).status_code == 404


async def test_the_page_learns_models_packs_and_limits(http: Connect) -> None:
    async with http(max_steer=0.8, steer="0.5", ui_max_audio_s=90, max_upload_bytes=5000) as client:
        offered = (await client.get("/ui/api/settings")).json()
    assert (offered["max_audio_s"], offered["max_upload_bytes"]) == (90, 5000)
    assert [(model["id"], model["packs"]) for model in offered["models"]] == [
        ("scripted", ["quiet"]),
        ("polyglot", ["silence"]),
    ]
    assert {(model["strength"], model["max_steer"]) for model in offered["models"]} == {(0.5, 0.8)}


async def test_a_recording_is_seen_and_steered(http: Connect, wav: bytes) -> None:
    async with http() as client:
        seen = (await analyze(client, wav)).json()
        assert (seen["model"], seen["language"], seen["duration"]) == ("scripted", "en", 0.5)
        assert seen["stock"]["text"] == TEXT
        assert [line["text"] for line in seen["stock"]["segments"]] == list(PARTS)
        assert [line["nobody_speaks"] for line in seen["stock"]["segments"]] == [None, None]
        mel = seen["mel"]
        assert (mel["bins"], mel["columns"], mel["column_s"]) == (80, 50, 0.01)
        assert len(base64.b64decode(mel["levels"])) == 80 * 50

        full = (await resteer(client, seen["id"], 1)).json()
        assert (full["text"], full["speech_detected"]) == ("", False)
        assert (full["pack"], full["strength"]) == ("quiet", 1.0)
        assert full["nobody_speaks"] == pytest.approx(1)
        assert base64.b64decode(full["edit"]) == bytes([255] * 25), "20-ms frames, all of them edited"
        [window] = full["windows"]
        assert (window["start"], window["end"]) == (0.0, 0.5)
        [track] = full["features"]
        assert (track["feature"], track["peak"]) == (7, 1.0)
        assert base64.b64decode(track["levels"]) == bytes([255] * 25)

        none = (await resteer(client, seen["id"], 0)).json()
        assert none["text"] == TEXT
        assert set(base64.b64decode(none["edit"])) == {0}
        assert none["features"] == full["features"], "the same features at any strength"


async def test_another_strength_costs_no_encoding(
    http: Connect, replica: TranscriberReplica, wav: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    model = replica._models["polyglot"].model

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def encode(self, *args: Any, **kwargs: Any) -> Any:
            encoded.append(1)
            return model.encode(*args, **kwargs)

    monkeypatch.setattr(replica._models["polyglot"], "model", Counting())
    async with http() as client:
        seen = (await analyze(client, wav, "polyglot")).json()
        assert seen["language"] == "fr"
        assert encoded
        encoded.clear()
        answers = [(await resteer(client, seen["id"], strength)).json() for strength in (0, 0.3, 1)]
        assert not encoded
        assert [answer["encoder"] for answer in answers] == ["kept"] * 3
        assert answers[0]["text"] == TEXT != answers[2]["text"]
        monkeypatch.setattr(replica._studies, "_heard", type(replica._studies)(2**20)._heard)  # another replica
        again = (await resteer(client, seen["id"], 1)).json()
        assert (again["encoder"], again["text"]) == ("ran", answers[2]["text"])
        assert len(encoded) == 1, "once, without detecting the language again"


async def test_the_page_writes_what_the_api_writes(http: Connect, wav: bytes) -> None:
    """Also after other strengths: no edit gets into what is kept."""
    async with http() as client:
        seen = (await analyze(client, wav)).json()
        for strength in (1, 0.5, 0, 1, 0.5):
            data = {"model": "scripted", "steer": str(strength), "response_format": "verbose_json"}
            plain = await client.post("/v1/audio/transcriptions", data=data, files={"file": ("a.wav", wav)})
            answer = (await resteer(client, seen["id"], strength)).json()
            assert answer["text"] == plain.json()["text"]
            assert answer["edited_share"] == plain.json()["steer"]["edited_share"]


async def test_a_recording_belongs_to_the_key_that_sent_it(http: Connect, wav: bytes) -> None:
    ann, bob = list(KEYS)[:2]
    async with http(**configured()) as client:
        assert (await client.get("/ui/api/settings")).status_code == 401
        assert (await analyze(client, wav)).status_code == 401
        seen = (await analyze(client, wav, headers=bearer(ann))).json()
        assert (await resteer(client, seen["id"], 1)).status_code == 401
        stolen = await resteer(client, seen["id"], 1, headers=bearer(bob))
        guessed = await resteer(client, "guess", 1, headers=bearer(bob))
        assert stolen.status_code == guessed.status_code == 404
        assert stolen.json() == guessed.json(), "which does not tell that it is there"
        assert stolen.json()["error"]["code"] == "recording_not_kept"
        assert (await resteer(client, seen["id"], 1, headers=bearer(ann))).status_code == 200


async def test_the_key_s_limits_hold(http: Connect, wav: bytes) -> None:
    async with http(requests_per_minute=2) as client:
        seen = (await analyze(client, wav)).json()
        assert (await resteer(client, seen["id"], 1)).status_code == 200
        refused = await resteer(client, seen["id"], 0.5)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert (await client.get("/ui/api/settings")).status_code == 200, "it is no audio request"


async def test_old_recordings_make_room(http: Connect) -> None:
    sound = as_wav(noise(6.0))  # 384 kB as samples
    async with http(ui_memory_bytes=2**20) as client:
        first, second, third = [(await analyze(client, sound)).json()["id"] for _ in range(3)]
        assert (await resteer(client, first, 1)).status_code == 404
        assert (await resteer(client, second, 1)).status_code == 200
        assert (await resteer(client, third, 1)).status_code == 200


async def test_the_page_takes_short_recordings_only(http: Connect, transcriber: Recorder) -> None:
    async with http(ui_max_audio_s=1) as client:
        assert (await analyze(client, as_wav(noise(1.0)))).status_code == 200
        refused = await analyze(client, as_wav(noise(1.1)))
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "audio_too_long")
    assert "up to 1 s of sound, and this is 1.1 s" in refused.json()["error"]["message"]
    assert len(transcriber.jobs) == 1


@pytest.mark.parametrize(
    ("sound", "model", "status", "param"),
    [
        (b"", "scripted", 400, "file"),
        (b"not a sound" * 100, "scripted", 415, "file"),
        (None, "huge", 404, "model"),
    ],
)
async def test_bad_recordings(
    http: Connect, wav: bytes, sound: bytes | None, model: str, status: int, param: str
) -> None:
    async with http() as client:
        refused = await analyze(client, wav if sound is None else sound, model)
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param)


async def test_bad_questions(http: Connect, wav: bytes) -> None:
    async with http(max_steer=0.5) as client:
        seen = (await analyze(client, wav)).json()

        async def asked(**body: Any) -> tuple[int, str | None]:
            answer = await client.post("/ui/api/resteer", json={"id": seen["id"], "strength": 0.5} | body)
            return answer.status_code, (answer.json().get("error") or {}).get("param")

        assert await asked() == (200, None)
        assert await asked(strength=0.6) == (400, "steer")
        assert await asked(strength=1.5) == (422, "strength")
        assert await asked(pack="/etc") == (400, "steer")
        assert await asked(loud=True) == (422, "loud")
        assert (await client.post("/ui/api/analyze", json={})).status_code == 415


async def test_text_is_json_and_never_markup(http: Connect, wav: bytes) -> None:
    async with http() as client:
        answer = await analyze(client, wav)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["cache-control"] == "no-store"
        shown = await client.get("/ui/<script>alert(1)</script>")
        assert shown.headers["content-type"] == "application/json"
        assert shown.headers["x-content-type-options"] == "nosniff"
