from __future__ import annotations

import inspect

import pytest

from steer_asr_serving.settings import Settings

# Ray Serve's own models are written in a way that pydantic deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")


def test_serve_run_can_make_the_settings() -> None:
    from steer_asr_serving.app import build_app

    assert inspect.signature(build_app).parameters["settings"].annotation is Settings
