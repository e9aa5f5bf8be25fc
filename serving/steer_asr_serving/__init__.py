"""steer_asr_serving: an OpenAI-compatible transcription endpoint on Ray Serve, steered per request.

    steer-asr-serve --model base

The modules, outermost first: `cli` starts Ray and the app; `app` wires it; `api` is the HTTP side, with `observe` and
`limits` around it, `auth` in front, `metrics` and `logs` beside it; `audio_routes` uses `form`, `schemas`, `answers`,
`events` and `errors`; `deployment` holds the models, `tap` watches them; `settings` and `served` say what is served.
"""
