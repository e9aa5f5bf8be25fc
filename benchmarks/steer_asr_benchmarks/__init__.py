"""steer_asr_benchmarks: how often Whisper writes text when nobody speaks, and what silencing it costs in words.

    steer-asr-bench run --manifest test_nonspeech.jsonl --manifest test_speech.jsonl --model base -o results/base

The main path: `cli` -> `runner.run` (audio to `predictions.jsonl`) -> `scoring` (a prediction to counts) ->
`report` (counts to `report.json` and `report.md`).
"""
