#!/bin/bash
# A whole GPU run: checks, times, prints tables last and writes cuda_retention.json, cuda_backward.json and the tests' logs.
#   tests/bench/gpu_run.sh BUILD_DIR OUT_DIR [BENCH_ARGUMENT...]
# BUILD_DIR holds the programs, built there or copied there with their libraries in lib/.
set -u
build="$1"
out="$2"
shift 2
mkdir -p "$out"
export LD_LIBRARY_PATH="$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
# The matrix rate is measured with cuBLAS, from the toolkit or from Python's packages.
for folder in /usr/local/cuda/lib64 $(python3 -c 'import nvidia, os; print(*[os.path.join(p, "cu13/lib") for p in nvidia.__path__])' 2>/dev/null); do
  [ -e "$folder/libcublas.so.13" ] && LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$folder"
done
find_program() { find "$build" -type f -name "$1" | head -n 1; }
status=0
tests="kernels_cuda_retention_test kernels_cuda_decode_test kernels_cuda_slot_ops_test"
for test in $tests; do  # side by side: most of their time is the reference on the CPU
  "$(find_program "$test")" >"$out/$test.log" 2>&1 &
done
shards=8  # its yardsticks are slow
for shard in $(seq 0 $((shards - 1))); do
  GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard "$(find_program kernels_cuda_backward_test)" \
    >"$out/kernels_cuda_backward_test.$shard" 2>&1 &
done
for job in $(jobs -p); do
  wait "$job" || status=1
done
cat "$out"/kernels_cuda_backward_test.? >"$out/kernels_cuda_backward_test.log"
rm -f "$out"/kernels_cuda_backward_test.?
for test in $tests kernels_cuda_backward_test; do
  grep -E "Failure|FAILED" "$out/$test.log" | sort | uniq -c | head -n 12
  grep -oE "ratio [0-9.]+" "$out/$test.log" | sort -k2 -g | tail -n 1 | sed "s/^/$test: worst error /"
  tail -n 1 "$out/$test.log"
done
"$(find_program cuda_retention_bench)" --json "$out/cuda_retention.json" "$@" || status=1
"$(find_program cuda_backward_bench)" --json "$out/cuda_backward.json" || status=1
exit $status
