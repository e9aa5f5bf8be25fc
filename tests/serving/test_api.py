"""Models, health, errors and the schema."""

from __future__ import annotations

import httpx2
import openai
import pytest

from steer_asr.errors import PackError, SteerOptionError
from tests.serving.scripted_whisper import TEXT

pytestmark = pytest.mark.anyio


async def test_models(client) -> None:
    models = [model async for model in client(max_steer=0.75).models.list()]
    assert [(model.id, model.packs, model.max_steer) for model in models] == [
        ("scripted", ["quiet"], 0.75),
        ("polyglot", ["silence"], 0.75),
    ]
    assert (await client().models.retrieve("polyglot")).id == "polyglot"
    assert (await client().models.retrieve("whisper-1")).id == "scripted"
    with pytest.raises(openai.NotFoundError, match="served: scripted, polyglot"):
        await client().models.retrieve("gpt-5")


async def test_health_and_readiness(http, transcriber) -> None:
    assert (await http().get("/health")).json() == {"status": "ok"}
    assert (await http().get("/ready")).status_code == 200
    transcriber.is_ready = False
    starting = await http().get("/ready")
    assert (starting.status_code, starting.json()) == (503, {"status": "starting"})


async def test_wrong_urls_answer_in_the_envelope(http) -> None:
    missing, wrong_method = await http().get("/v1/nothing"), await http().get("/v1/audio/transcriptions")
    assert (missing.status_code, missing.json()["error"]["message"]) == (404, "there is nothing at GET /v1/nothing")
    assert (wrong_method.status_code, wrong_method.json()["error"]["type"]) == (405, "invalid_request_error")


async def test_schema_describes_the_forms(http) -> None:
    paths = (await http().get("/openapi.json")).json()["paths"]
    forms = {
        path: operation["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        for path, operation in paths.items()
        if "post" in operation and path.startswith("/v1/")
    }
    shared = {"file", "model", "prompt", "response_format", "temperature", "steer", "hotwords"}
    own = {"language", "timestamp_granularities[]", "include[]", "keywords[]", "stream", "chunking_strategy"}
    assert {path: set(form["properties"]) for path, form in forms.items()} == {
        "/v1/audio/transcriptions": shared | own,
        "/v1/audio/translations": shared,
    }
    assert all(form["required"] == ["file", "model"] for form in forms.values())
    strategies = forms["/v1/audio/transcriptions"]["properties"]["chunking_strategy"]["anyOf"]
    assert "silence_duration_ms" in strategies[1]["properties"]


async def test_schema_refers_to_nothing_that_is_missing(http) -> None:
    schema = (await http().get("/openapi.json")).json()

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for item in node for found in references(item)] if isinstance(node, list) else []

    found = references(schema)
    assert found
    assert {name.rpartition("/")[2] for name in found} <= set(schema["components"]["schemas"])


async def test_defaults_change_while_it_serves(app, wav) -> None:
    serving = app()
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=serving), base_url="http://test") as client:

        async def said(**fields: str) -> httpx2.Response:
            files = {"file": ("a.wav", wav)}
            return await client.post("/v1/audio/transcriptions", data={"model": "scripted"} | fields, files=files)

        assert (await said()).json()["text"] == TEXT
        serving.state.reconfigure({"steer": "0.9", "max_steer": 0.9})
        assert (await said()).json()["text"] == ""
        assert (await said(steer="1")).status_code == 400
        assert {model["max_steer"] for model in (await client.get("/v1/models")).json()["data"]} == {0.9}
        for bad in ({"steer": "loud"}, {"steer": "0.9", "max_steer": 0.5}, {"models": ["base"]}):
            with pytest.raises((SteerOptionError, PackError)):
                serving.state.reconfigure(bad)
        assert (await said()).json()["text"] == "", "nothing has changed"
