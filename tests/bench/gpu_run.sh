#!/bin/bash
# A whole GPU run: every check, every benchmark, one table last. Ends with 0 only if all passed and there is a GPU.
#   tests/bench/gpu_run.sh BUILD_DIR OUT_DIR [PART...]
# BUILD_DIR holds the programs, built there or copied there with their libraries in lib/. It runs in the root of the
# source tree, whose tests/golden it needs. PART is tests, kernels (their benchmarks) or model; all of them by default.
# OUT_DIR gets a log per program, cuda_retention.json, cuda_backward.json and cuda_model.json.
set -u
build="$(realpath "$1")"
out="$2"
shift 2
parts=" ${*:-tests kernels model} "
for part in $parts; do
  case "$part" in tests | kernels | model) ;; *) echo "$part: expected tests, kernels or model" >&2; exit 2 ;; esac
done
mkdir -p "$out"
rm -f "$out"/*_test*.log "$out"/cuda_*_bench.log  # of an earlier run
export LD_LIBRARY_PATH="$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
# The matrix rate is measured with cuBLAS, from the toolkit or from Python's packages.
for folder in /usr/local/cuda/lib64 $(python3 -c 'import nvidia, os; print(*[os.path.join(p, "cu13/lib") for p in nvidia.__path__])' 2>/dev/null); do
  [ -e "$folder/libcublas.so.13" ] && LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$folder"
done
nvidia-smi -L || { echo "no GPU" >&2; exit 1; }
export STATEHOUSE_REQUIRE_GPU=1
failed=""

# start NAME LOG [ARGUMENT...]: a program in the background; a missing one is a failure of its own.
declare -A jobs
start() {
  local name="$1" log="$out/$2.log" program
  shift 2
  program="$(find "$build" -type f -name "$name" | head -n 1)"
  if [ -z "$program" ]; then
    echo "no program $name in $build" | tee "$log"
    failed="$failed $name"
    return
  fi
  "$program" "$@" >"$log" 2>&1 &
  jobs[$!]="$(basename "$log" .log)"
}
finish() {
  local job
  for job in "${!jobs[@]}"; do
    wait "$job" || failed="$failed ${jobs[$job]}"
  done
  jobs=()
}

if [[ "$parts" == *" tests "* ]]; then
  tests="kernels_cuda_retention_test kernels_cuda_decode_test kernels_cuda_slot_ops_test kernels_cuda_slots_test
    kernels_cuda_model_ops_test kernels_cuda_training_ops_test kernels_cuda_few_rows_test models_cuda_test
    models_cuda_loading_test cuda_engine_test cuda_choice_test"
  for test in $tests; do start "$test" "$test"; done  # side by side: most of their time is the reference on the CPU
  shards=8  # their yardsticks are slow
  for shard in $(seq 0 $((shards - 1))); do
    for test in kernels_cuda_backward_test kernels_cuda_backward_types_test; do
      GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard start $test "$test.$shard"
    done
  done
  finish
  for log in "$out"/*_test*.log; do
    name="$(basename "$log" .log)"
    grep -E "Failure|FAILED" "$log" | sort | uniq -c | head -n 12
    printf '%-32s %s passed, %s skipped%s\n' "$name" "$(grep -c '^\[       OK' "$log")" "$(grep -cE '^\[  SKIPPED \] .*\(' "$log")" \
      "$(grep -oE 'ratio [0-9.]+' "$log" | sort -k2 -g | tail -n 1 | sed 's/^/, worst error /')"
  done
fi
# By type and form, the worst program of each: a test program's shards count on their own.
grep -h "^ratio to the plain program" "$out"/*_test*.log 2>/dev/null | sed 's/^ratio to the plain program: //' |
  awk '{ worst = $NF; name = $0; sub(/ +mean .*/, "", name); if (!(name in line) || worst > most[name]) { most[name] = worst; line[name] = $0 } }
    END { for (name in line) print line[name] }' | sort
# One at a time: they time.
if [[ "$parts" == *" kernels "* ]]; then
  for name in retention backward; do
    start "cuda_${name}_bench" "cuda_${name}_bench" --json "$out/cuda_$name.json"
    finish
  done
fi
if [[ "$parts" == *" model "* ]]; then
  start cuda_model_bench cuda_model_bench tests/bench/powercoder-3b --batch 1,8,64 --json "$out/cuda_model.json"
  finish
fi
for log in "$out"/cuda_*_bench.log; do
  [ -e "$log" ] && cat "$log"
done
echo "failed:${failed:- nothing}"
[ -z "$failed" ]
