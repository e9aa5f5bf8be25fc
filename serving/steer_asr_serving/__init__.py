"""steer_asr_serving: an OpenAI-compatible transcription endpoint on Ray Serve, steered per request.

    steer-asr-serve --model base

The modules, outermost first: `cli` starts Ray and the app; `app` wires it; `api` speaks HTTP (with `schemas`, `errors`
and `limits`); `deployment` holds the model; `settings` and `served` say what is served and how.
"""
