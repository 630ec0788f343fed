#!/bin/bash
# Starts a server on the shipped checkpoint, says a few things to it over gRPC as a person would type them, and then hands the
# keyboard over. Without a terminal it ends after the script, and fails unless every line got an answer.
#   cmake/demo.sh build/release/statehouse
set -euo pipefail

statehouse="$1"
checkpoint="$(dirname "$0")/../models/demo/checkpoint"
work="$(mktemp -d)"
socket="$work/grpc.sock"
address="unix:$socket"

stop_server() {
  if [[ -n "${server:-}" ]] && kill -TERM "$server" 2>/dev/null; then
    wait "$server" || true
  fi
  rm -rf "$work"
}
trap stop_server EXIT

"$statehouse" serve --model "$checkpoint" --unix-socket "$socket" --port -1 --metrics-port 0 >"$work/log" 2>&1 &
server=$!
fail() {
  echo "$1 It said:" >&2
  cat "$work/log" >&2
  exit 1
}
deadline=$((SECONDS + 60))
until "$statehouse" health --address "$address" --timeout 5 >/dev/null 2>&1; do
  kill -0 "$server" 2>/dev/null || fail "The server ended before it was ready."
  ((SECONDS < deadline)) || fail "The server was not ready after a minute."
  sleep 0.1
done

grep -E '^(model|capacity|memory) ' "$work/log" || true
echo

lines=(
  "Hi! My name is Petra."
  "I live in Lund."
  "My cat is called Biscuit."
  "The code for the shed is 4172."
  "Can you count from 3 to 9?"
  "What is 12 plus 9?"
  "What is the code for the shed?"
  "Where do I live?"
  "What is my cat called?"
  "What is my job?"
)
say=()
for line in "${lines[@]}"; do say+=(--say "$line"); done

if [[ -t 0 && -t 1 ]]; then
  "$statehouse" chat --address "$address" --temperature 0 "${say[@]}"
else
  "$statehouse" chat --address "$address" --temperature 0 "${say[@]}" </dev/null | tee "$work/transcript"
  # A line that was said starts with "> "; after each one a non-empty answer must follow.
  awk -v want="${#lines[@]}" '
    /^> / { asked++; waiting = 1; next }
    NF && waiting { answered++; waiting = 0 }
    END { if (asked != want || answered != want) { print answered + 0 " answers to " want " lines" > "/dev/stderr"; exit 1 } }
  ' "$work/transcript"
fi
