#!/usr/bin/env bash
# The numbers of the README: stock and steered, base and tiny.en, greedy, float32, with and without timestamps.
# DATA is a folder with manifests/test_{nonspeech,speech}.jsonl; a second run resumes. Two halves run side by side.
# LIMIT=120 takes 120 clips of each manifest, spread evenly: minutes on two cores instead of two hours.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${DATA:?a folder with manifests/test_nonspeech.jsonl and manifests/test_speech.jsonl}"
BIN=${BIN:-.venv/bin}

for model in ${MODELS:-base tiny.en}; do
  out=benchmarks/results/$model
  run=("$BIN/steer-asr-bench" run --manifest "$DATA/manifests/test_nonspeech.jsonl"
       --manifest "$DATA/manifests/test_speech.jsonl" --model "$model" --systems stock,steered
       --share-encoder --cpu-threads 1 ${LIMIT:+--limit "$LIMIT"} -o "$out")
  "${run[@]}" --shard 1/2 >/dev/null &
  first=$!
  "${run[@]}" --shard 2/2 >/dev/null
  wait "$first"
  "$BIN/steer-asr-bench" score "$out"
done
