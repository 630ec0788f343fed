#!/bin/bash
# Writes docs/kernel-report.md: registers, stack, spills and static shared memory of every CUDA kernel, as the compiler says.
#   cmake/kernel-report.sh          compiles each CUDA source once more; needs a configured build tree (BUILD=build/dev) of
#                                   STATEHOUSE_CUDA=ON and STATEHOUSE_CUDA_INSTANCES=all: the report is of every instance
# Fails if a kernel for compute capability 9.0 spills, unless it is in the list of accepted ones below and spills no more
# than that: those are the hot ones on the machines that the figures come from.
set -euo pipefail
cd "$(dirname "$0")/.."
build="${BUILD:-build/dev}"
if ! grep -q '^STATEHOUSE_CUDA_INSTANCES:[A-Z]*=all$' "$build/CMakeCache.txt"; then
  echo "$build is not configured with -DSTATEHOUSE_CUDA_INSTANCES=all: the report would lack instances" >&2
  exit 2
fi
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
/usr/bin/python3 - "$build/compile_commands.json" "$work" <<'PY'
import json, sys
number = 0
for entry in json.load(open(sys.argv[1])):
    if not entry["file"].endswith(".cu"):
        continue
    number += 1
    at = f"{sys.argv[2]}/{number:03}"
    command = entry["command"].split(" -o ")[0].split(" -c ")[0]
    with open(at + ".sh", "w") as script:
        script.write(f"cd '{entry['directory']}' && {command} -Xptxas=-v -c '{entry['file']}' -o '{at}.o' >'{at}.log' 2>&1 || {{ cat '{at}.log' >&2; exit 255; }}\n")
PY
find "$work" -name '*.sh' | sort | xargs -P "${JOBS:-$(nproc)}" -n 1 bash
cat "$work"/*.log >"$work/all"
status=0
/usr/bin/python3 - "$work/all" >"$work/report.md" <<'PY' || status=$?
import re, subprocess, sys

# Bytes of spill stores that are accepted for sm_90a, and why.
ACCEPTED = {
    "AnswerRow<128, true>": 4,
    "AnswerTiles<64, 64>": 8,
    "DecodeParts<__half, bf16, 128>": 36,
    "DecodeParts<bf16, bf16, 128>": 8,  # one reload per stage; more registers would cost a block per multiprocessor
    "DecodeParts<float, bf16, 128>": 36,
    "FoldKeysFourth<float, 16>": 4,  # degree 4 is right before fast
    "FoldQueriesFourth<float, 32>": 4,
    "FoldTailFourth<__half, 32>": 8,
    "FoldTailFourth<bf16, 32>": 8,
    "GradientOfRows<bf16, 128, 0, false>": 8,  # 128 registers: two blocks per multiprocessor are worth more
    "GradientOfRows<bf16, 128, 1, true>": 56,
    "GradientOfRows<bf16, 64, 1, true>": 32,
    "QueryChunks<bf16, 128>": 128,  # the mma.sync path, taken on Hopper only when it is asked for
    "QueryChunksSm90<bf16, 128>": 4,
}
rows, name, arch, spills = [], None, None, None
for line in open(sys.argv[1]):
    if m := re.search(r"Compiling entry function '(\S+)' for '(\S+)'", line):
        name, arch = m.groups()
    if m := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
        spills = m.groups()
    if (m := re.search(r"Used (\d+) registers", line)) and name:
        shared = re.search(r"(\d+) bytes smem", line)
        rows.append((name, arch, m.group(1), *spills, shared.group(1) if shared else "0"))
        name = None
names = subprocess.run(["c++filt"], input="\n".join(r[0] for r in rows), text=True, capture_output=True).stdout.splitlines()
print("# Resources of the CUDA kernels\n")
print("Written by `cmake/kernel-report.sh` from the compiler's own report; not edited by hand. Shared memory is the static part;")
print("what a launch adds stands in the sources. Kernels of 4 registers are Hopper's, compiled for sm_80.\n")
print("| kernel | architecture | registers | stack, bytes | spill stores | spill loads | shared, bytes |")
print("|---|---|---|---|---|---|---|")
table = set()
for full, row in zip(names, rows):
    full = re.sub(r"\(statehouse::kernels::\w+\)", "", full)  # an enumerator is its number
    short = re.sub(r"statehouse::kernels::|\(anonymous namespace\)::|^void |\((?!anonymous).*", "", full)
    short = short.replace("__nv_bfloat16", "bf16")
    table.add((short, *row[1:]))
for row in sorted(table):
    print("| " + " | ".join(row) + " |")
spilled = sorted((r[0], int(r[4])) for r in table if r[1] == "sm_90a" and r[4] != "0")
texts = [f"{kernel} ({stored} bytes)" for kernel, stored in spilled]
print("\n" + (f"Spilling for sm_90a: {', '.join(texts)}." if texts else "No kernel spills for sm_90a."))
refused = [f"{kernel}: {stored} bytes of spill stores; accepted are {ACCEPTED.get(kernel, 0)}"
           for kernel, stored in spilled if stored > ACCEPTED.get(kernel, 0)]
unused = sorted((set(ACCEPTED) & {r[0] for r in table if r[1] == "sm_90a"}) - {kernel for kernel, _ in spilled})
for text in refused + [f"{kernel}: accepted, but it does not spill; take it off the list" for kernel in unused]:
    print(text, file=sys.stderr)
sys.exit(1 if refused or unused else 0)
PY
mv "$work/report.md" docs/kernel-report.md
exit "$status"
