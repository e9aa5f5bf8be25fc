#!/usr/bin/env bash
# One pack under every condition, a condition at a time: without timestamps; and with them, as faster-whisper is called
# without options (beam 5, fallback), batched, with the language detected, and in int8. LIMIT clips of each manifest of
# DATA, spread evenly; a second run resumes. Two halves run side by side. The table: results/conditions/MODEL/matrix.md.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${DATA:?a folder with manifests/test_nonspeech.jsonl and manifests/test_speech.jsonl}"
BIN=${BIN:-.venv/bin}
SPLIT=${SPLIT:-test}

bench() { # OUT OPTIONS...: runs two halves
  local out=$1
  shift
  local run=("$BIN/steer-asr-bench" run --manifest "$DATA/manifests/${SPLIT}_nonspeech.jsonl"
             --manifest "$DATA/manifests/${SPLIT}_speech.jsonl" --share-encoder --cpu-threads 1 -o "$out" "$@")
  "${run[@]}" --shard 1/2 >/dev/null &
  local first=$!
  "${run[@]}" --shard 2/2 >/dev/null
  wait "$first"
  "$BIN/steer-asr-bench" score "$out" >/dev/null
}

for model in ${MODELS:-base tiny.en}; do
  out=${OUT:-benchmarks/results/conditions}/$model
  limit=${LIMIT:-60}
  conditions=(+defaults +batched +int8)
  [[ $model == *.en ]] || conditions+=(+auto) # an English-only model is always told English
  systems=stock,steered
  for condition in "${conditions[@]}"; do systems+=",stock$condition,steered$condition"; done
  bench "$out/timestamps" --model "$model" --limit "$limit" --systems "$systems" --timestamps
  bench "$out/no_timestamps" --model "$model" --limit "$limit" --systems stock,steered --no-timestamps
  "$BIN/steer-asr-bench" matrix "$out/timestamps" "$out/no_timestamps" -o "$out/matrix"
done
