#!/usr/bin/env bash
# Unmodified programs on a compiled model: what each writes of the demo's clips with stock weights and with compiled ones.
# Each program comes from PyPI into an environment of its own under ENVS; nothing of steer_asr is in there.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${COMPILED:?a directory made by steer-asr compile}"
: "${STOCK:?the model it was made of: a CTranslate2 directory, or a name that the programs know, for example base}"
ENVS=${ENVS:-runs/third-party}
CLIPS=${CLIPS:-benchmarks/demo/clips}
NAMES=${NAMES:-"speech speech-short drums hum near-silence frogs"}
PYTHON=${PYTHON:-python3}
PORT=${PORT:-10311}

environment() { # NAME PACKAGE...: a virtual environment with these packages, made once
  local folder=$ENVS/$1
  shift
  if [ ! -e "$folder/.installed" ]; then
    "$PYTHON" -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$@"
    touch "$folder/.installed"
  fi
}

environment whisper-ctranslate2 whisper-ctranslate2
environment wyoming wyoming-faster-whisper
"$ENVS/whisper-ctranslate2/bin/pip" freeze | grep -iE '^(whisper-ctranslate2|faster-whisper|ctranslate2)=='
"$ENVS/wyoming/bin/pip" freeze | grep -iE '^(wyoming-faster-whisper|wyoming|faster-whisper|ctranslate2)=='

row() { printf '| %s | %s | %s | %s |\n' "$1" "$2" "${3:-(nothing)}" "${4:-(nothing)}"; }

cli() { # MODEL CLIP: the text that the command-line program writes
  local out
  out=$(mktemp -d)
  local model=(--model "$1")
  if [ -d "$1" ]; then model=(--model_directory "$1"); fi
  "$ENVS/whisper-ctranslate2/bin/whisper-ctranslate2" "$2" "${model[@]}" --language en --device cpu \
    --compute_type "${COMPUTE_TYPE:-int8}" --output_format txt --output_dir "$out" --verbose False >"$out/log" 2>&1 || { cat "$out/log" >&2; exit 1; }
  tr '\n' ' ' <"$out/$(basename "${2%.*}").txt" | sed 's/ *$//'
  rm -r "$out"
}

server() { # MODEL CLIP...: the texts that the server answers with, one a line
  local model=$1
  shift
  "$ENVS/wyoming/bin/python" -m wyoming_faster_whisper --model "$model" --language en --compute-type "${COMPUTE_TYPE:-int8}" \
    --uri "tcp://127.0.0.1:$PORT" --data-dir "$ENVS" --download-dir "$ENVS" >"$ENVS/server.log" 2>&1 &
  local pid=$!
  "$ENVS/wyoming/bin/python" benchmarks/wyoming_client.py "$PORT" "$@" || { kill "$pid"; cat "$ENVS/server.log" >&2; exit 1; }
  kill "$pid"
  wait "$pid" 2>/dev/null || true
}

echo '| program | clip | stock | compiled |'
echo '| --- | --- | --- | --- |'
for name in $NAMES; do
  row whisper-ctranslate2 "$name" "$(cli "$STOCK" "$CLIPS/$name.flac")" "$(cli "$COMPILED" "$CLIPS/$name.flac")"
done
files=()
for name in $NAMES; do files+=("$CLIPS/$name.flac"); done
mapfile -t stock < <(server "$STOCK" "${files[@]}")
mapfile -t compiled < <(server "$COMPILED" "${files[@]}")
i=0
for name in $NAMES; do
  row wyoming-faster-whisper "$name" "${stock[$i]-}" "${compiled[$i]-}"
  i=$((i + 1))
done
