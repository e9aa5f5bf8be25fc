#!/usr/bin/env bash
# How few features a pack needs: packs of 16, 32, 64, 128 and all features of a learned run, measured side by side, and
# the page that says of each feature of the pack what it responds to and does. WORK is what `steer-asr-train make` left
# for the model (activations, fit, learn, dev). Results: benchmarks/results/features/MODEL. A second run resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${DATA:?a folder with manifests/test_nonspeech.jsonl and manifests/test_speech.jsonl}"
BIN=${BIN:-.venv/bin}
SPLIT=${SPLIT:-test}
SIZES=${SIZES:-16,32,64,128,all}

for model in ${MODELS:-base tiny.en}; do
  work=${WORK:-runs}/$model
  packs=${PACKS:-runs/features}/$model
  out=${OUT:-benchmarks/results/features}/$model
  "$BIN/steer-asr-train" fewer "${RECIPE:-training/recipes/$model.yaml}" "$work/activations" "$work/fit/sae" \
    "$work/learn" --data "$DATA" --sizes "$SIZES" ${STEPS:+--steps "$STEPS"} -o "$packs"
  systems=stock
  for size in ${SIZES//,/ }; do systems+=",features-$size=steered:$packs/$size"; done
  run=("$BIN/steer-asr-bench" run --manifest "$DATA/manifests/${SPLIT}_nonspeech.jsonl"
       --manifest "$DATA/manifests/${SPLIT}_speech.jsonl" --model "$model" --systems "$systems"
       --share-encoder --cpu-threads 1 --limit "${LIMIT:-150}" -o "$out")
  "${run[@]}" --shard 1/2 >/dev/null &
  first=$!
  "${run[@]}" --shard 2/2 >/dev/null
  wait "$first"
  "$BIN/steer-asr-bench" score "$out"
  "$BIN/steer-asr-train" features "$packs/all" --activations "$work/dev" --model "$model" -o "$out/page"
done
