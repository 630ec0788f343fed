#!/bin/bash
# compute-sanitizer over every GPU kernel: memcheck, racecheck, initcheck and synccheck on a short list of tests, one
# table last. Ends with 0 only if no tool found anything, every test ran, and there is a GPU.
#   tests/bench/gpu_sanitize.sh BUILD_DIR OUT_DIR [TOOL...]
# BUILD_DIR and where to run it: as gpu_run.sh. OUT_DIR gets a log per test and tool. synccheck and racecheck look at the
# first launches of a test alone (LAUNCHES, 300 by default; racecheck, which is slow, at a fifth of them). "test failed":
# the tool found nothing, but the test did.
set -u
build="$(realpath "$1")"
out="$2"
shift 2
tools="${*:-memcheck racecheck initcheck synccheck}"
launches="${LAUNCHES:-300}"
limit="${LIMIT_S:-240}"  # of one test under one tool
at_once="${AT_ONCE:-16}"
mkdir -p "$out"
rm -f "$out"/*.{memcheck,racecheck,initcheck,synccheck}.log  # of an earlier run
export LD_LIBRARY_PATH="$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export STATEHOUSE_REQUIRE_GPU=1
nvidia-smi -L || { echo "no GPU" >&2; exit 1; }
command -v compute-sanitizer >/dev/null || PATH="$PATH:/usr/local/cuda/bin"
compute-sanitizer --version | tail -n 1

# name, program, tests: together they launch every kernel.
cases="
forward kernels_cuda_retention_test *GroupsOfQueryHeads*
forward_packed kernels_cuda_retention_test *PackedSequences*
forward_degree_4 kernels_cuda_retention_test *OfDegreeFour*
forward_states kernels_cuda_retention_test *GoingOnFromAState*:*FinalState*
backward kernels_cuda_backward_test *GradientOfAnInitialState*:*PackedSequences_Do*
backward_kept kernels_cuda_backward_test *WithStatesKept*
backward_types kernels_cuda_backward_types_test *SameInputsTwice*
backward_degree_4 kernels_cuda_backward_types_test *OfDegreeFour*
decode kernels_cuda_decode_test *Sequences*AtOwnPositions*
decode_degree_4 kernels_cuda_decode_test *OfDegreeFour*
slots_fold kernels_cuda_slot_ops_test *SameFold*:*ExportedAndImported*:*ClearedInSlices*:*ForkedSlots*
slots_of_the_engine kernels_cuda_slots_test *EveryFormAndCut*
slots_rows kernels_cuda_slots_test *NewRowsOfManySequences*
slots_long kernels_cuda_slots_test *LongPieces*
slots_in_order kernels_cuda_slots_test *DeterministicMode*
few_rows kernels_cuda_few_rows_test *
model_ops kernels_cuda_model_ops_test *
training_ops kernels_cuda_training_ops_test *
choice cuda_choice_test *
models models_cuda_test *LongCases*:*GoesOnOnTheGpu*
models_bf16 models_cuda_test *Bf16*
engine_snapshots cuda_engine_test *Snapshots*:*SlotMemory*
engine_alone cuda_engine_test *AmongOthers*
"

check() {  # NAME PROGRAM TESTS TOOL
  local log="$out/$1.$4.log" program options=""
  program="$(find "$build" -type f -name "$2" | head -n 1)"
  [ -n "$program" ] || { echo "no program $2 in $build" >"$log"; return; }
  # initcheck does not see what cuBLAS writes: everything that reads a product in bf16 would be reported.
  [ "$1.$4" = models_bf16.initcheck ] && { echo "left out" >"$log"; return; }
  [ "$4" = synccheck ] && options="--launch-count $launches"
  [ "$4" = racecheck ] && options="--launch-count $((launches / 5))"
  # shellcheck disable=SC2086
  timeout "$limit" compute-sanitizer --tool "$4" $options --error-exitcode 86 "$program" "--gtest_filter=$3" >"$log" 2>&1
  printf '\nexit %s\n' $? >>"$log"
}
verdict() {  # LOG
  local found
  found="$(grep -oE '(ERROR|RACECHECK) SUMMARY: .*' "$1" | tail -n 1 | sed 's/.*SUMMARY: //')"
  case "$(tail -n 1 "$1")" in
    "exit 0") if grep -q '^\[       OK' "$1"; then echo "ok"; else echo "nothing ran"; fi ;;
    "exit 124") echo "took over ${limit}s" ;;
    "exit 86") echo "FOUND ${found:-something}" ;;
    "exit 1") echo "test failed" ;;
    "no program"*) echo "no program" ;;
    "left out") echo "left out" ;;
    *) echo "FAILED: $(tail -n 1 "$1")" ;;
  esac
}

for tool in $tools; do
  while read -r name program tests; do
    [ -n "$name" ] || continue
    while [ "$(jobs -rp | wc -l)" -ge "$at_once" ]; do wait -n; done
    check "$name" "$program" "$tests" "$tool" &
  done <<<"$cases"
done
wait

bad=0
printf '%-22s' test
printf ' %-14s' $tools
printf '\n'
while read -r name program tests; do
  [ -n "$name" ] || continue
  printf '%-22s' "$name"
  for tool in $tools; do
    said="$(verdict "$out/$name.$tool.log")"
    [ "$said" = ok ] || [ "$said" = "left out" ] || bad=1
    printf ' %-14s' "$said"
  done
  printf '\n'
done <<<"$cases"
grep -hE -A3 ': Failure$' "$out"/*.log | head -n 24
exit $bad
