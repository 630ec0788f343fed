#!/bin/bash
# Writes docs/kernel-report.md: registers, stack, spills and static shared memory of every CUDA kernel, as the compiler says.
#   cmake/kernel-report.sh          compiles each CUDA source once more; needs a build tree of STATEHOUSE_CUDA=ON: BUILD=build/dev
# Fails if a kernel for compute capability 9.0 spills: those are the hot ones on the machines that the figures come from.
set -euo pipefail
cd "$(dirname "$0")/.."
build="${BUILD:-build/dev}"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
/usr/bin/python3 - "$build/compile_commands.json" >"$log.commands" <<'PY'
import json, sys
for entry in json.load(open(sys.argv[1])):
    if entry["file"].endswith(".cu"):
        command = entry["command"].split(" -o ")[0].replace("/usr/bin/ccache ", "")
        print(f"cd '{entry['directory']}' && {command.split(' -c ')[0]} -Xptxas=-v -c '{entry['file']}' -o /dev/null")
PY
while read -r command; do
  bash -c "$command" >>"$log" 2>&1 || { cat "$log" >&2; exit 1; }
done <"$log.commands"
rm -f "$log.commands"
/usr/bin/python3 - "$log" >docs/kernel-report.md <<'PY'
import re, subprocess, sys
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
    short = re.sub(r"statehouse::kernels::|\(anonymous namespace\)::|^void |\((?!anonymous).*", "", full)
    short = short.replace("__nv_bfloat16", "bf16")
    table.add((short, *row[1:]))
for row in sorted(table):
    print("| " + " | ".join(row) + " |")
spilled = sorted(r[0] for r in table if r[1] == "sm_90a" and r[4] != "0")
print("\n" + (f"Spilling for sm_90a: {', '.join(spilled)}." if spilled else "No kernel spills for sm_90a."))
sys.exit(1 if spilled else 0)
PY
