#!/usr/bin/env bash
# Every way of docs/methods.md to keep base silent, in one table. ACTIVATIONS and SAE are what `steer-asr-train collect`
# and `fit` made, for example of `make packs`; the control methods become packs in CONTROLS first.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${DATA:?a folder with manifests/test_nonspeech.jsonl and manifests/test_speech.jsonl}"
BIN=${BIN:-.venv/bin}
ACTIVATIONS=${ACTIVATIONS:-runs/base/activations}
SAE=${SAE:-runs/base/fit}
CONTROLS=${CONTROLS:-runs/controls}

for method in audiosae additive svector random; do
  sae=(--sae "$SAE")
  case $method in svector | random) sae=(--match-norm base) ;; esac
  [ -d "$CONTROLS/$method" ] || "$BIN/steer-asr-train" control $method --activations "$ACTIVATIONS" --model base \
    "${sae[@]}" -o "$CONTROLS/$method"
done
systems=stock,stock+empty,rule,nospeech,hst,boh,webrtcvad:3,stock+vad,gate,steered,steered+vad
for method in audiosae additive svector random; do systems+=",$method=steered:$CONTROLS/$method"; done

out=benchmarks/results/methods/base
run=("$BIN/steer-asr-bench" run --manifest "$DATA/manifests/test_nonspeech.jsonl"
     --manifest "$DATA/manifests/test_speech.jsonl" --model base --systems "$systems" --timestamps
     --share-encoder --cpu-threads 1 --limit "${LIMIT:-80}" -o "$out")
"${run[@]}" --shard 1/2 >/dev/null &
first=$!
"${run[@]}" --shard 2/2 >/dev/null
wait "$first"
"$BIN/steer-asr-bench" score "$out"
