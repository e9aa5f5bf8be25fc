#!/usr/bin/env bash
# What steering costs where somebody speaks: clean speech of every source and language, short words, English speech at
# 20 to 0 dB over recorded noise, and over music. WER and missed speech, stock against steered on the same clips, with
# paired intervals over speakers, per stratum, in benchmarks/results/harm/MODEL/*.md. With timestamps, as people run it.
# LIMIT is the number of clips that are mixed (each at every SNR), and of clean ones; all short words are taken.
# A second run resumes. Two halves run side by side. SPLIT=dev for tuning.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${DATA:?a folder with manifests/SPLIT_nonspeech.jsonl and manifests/SPLIT_speech.jsonl}"
BIN=${BIN:-.venv/bin}
SPLIT=${SPLIT:-test}
CLIPS=${CLIPS:-runs/harm/$SPLIT}
LIMIT=${LIMIT:-60}
MODE=${MODE:---timestamps}

"$BIN/python" benchmarks/harm_manifests.py "$DATA/manifests/${SPLIT}_speech.jsonl" "$CLIPS"
noise=$DATA/manifests/${SPLIT}_nonspeech.jsonl
"$BIN/steer-asr-bench" mix --recipe snr --snr 20,10,5,0 --manifest "$CLIPS/english.jsonl" --manifest "$noise" \
  --limit "$LIMIT" -o "$CLIPS/noise"
"$BIN/steer-asr-bench" mix --recipe over_music --snr 10,5,0 --manifest "$CLIPS/english.jsonl" --manifest "$noise" \
  --limit "$LIMIT" -o "$CLIPS/music"

harm() { # NAME MODEL DIVISIONS OPTIONS...: runs two halves, and compares
  local out=${OUT:-benchmarks/results/harm}/$2/$1 table=${OUT:-benchmarks/results/harm}/$2/$1.md by=() division
  for division in $3; do by+=(--by "$division"); done
  local run=("$BIN/steer-asr-bench" run --model "$2" --systems stock,steered "$MODE" --share-encoder --cpu-threads 1
             -o "$out" "${@:4}")
  "${run[@]}" --shard 1/2 >/dev/null &
  local first=$!
  "${run[@]}" --shard 2/2 >/dev/null
  wait "$first"
  "$BIN/steer-asr-bench" score "$out" >/dev/null
  "$BIN/steer-asr-bench" compare "$out:stock" "$out:steered" "${by[@]}" -o "$table"
}

for model in ${MODELS:-base tiny.en}; do
  harm noise "$model" "snr" --manifest "$CLIPS/noise/noise.jsonl"
  harm music "$model" "snr" --manifest "$CLIPS/music/music.jsonl"
  if [[ $model == *.en ]]; then # other languages mean nothing to it
    harm short "$model" "source duration" --manifest "$CLIPS/short_english.jsonl"
    harm clean "$model" "source" --manifest "$CLIPS/english.jsonl" --limit "$LIMIT"
  else
    harm short "$model" "source lang duration" --language manifest --manifest "$CLIPS/short.jsonl"
    harm clean "$model" "source lang" --language manifest --manifest "$CLIPS/english.jsonl" \
      --manifest "$CLIPS/other_languages.jsonl" --limit "$LIMIT"
  fi
done
