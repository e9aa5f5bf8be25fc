#!/usr/bin/env bash
# Words inside minutes of noise: stock, behind Silero's filter, and steered. Recordings are mixed from DATA's test clips
# under a seed; with timestamps, which say where the words are.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${DATA:?a folder with manifests/test_nonspeech.jsonl and manifests/test_speech.jsonl}"
BIN=${BIN:-.venv/bin}
CLIPS=${CLIPS:-runs/mixed}

"$BIN/steer-asr-bench" mix --recipe long --manifest "$DATA/manifests/test_nonspeech.jsonl" \
  --manifest "$DATA/manifests/test_speech.jsonl" --limit "${LIMIT:-24}" --min-s 60 --max-s 180 -o "$CLIPS"
for model in ${MODELS:-base}; do
  "$BIN/steer-asr-bench" run --manifest "$CLIPS/$(basename "$CLIPS").jsonl" --model "$model" --systems stock,stock+vad,steered \
    --timestamps --share-encoder --cpu-threads 1 -o "benchmarks/results/mixed/$model"
done
