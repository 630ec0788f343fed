#!/usr/bin/env python3
"""CPU time of the server's threads beside the engine's, while clients stream.

    tests/bench/server_overhead.py build/release/statehouse --model DIR [--clients 32] [--output-len 256] [--serve-flags "…"]

Starts the server, sends load with `statehouse bench load`, and reads what each thread took from /proc (Linux only). The
engine's threads are those named "engine" and "compute"; all others are the server's. The load runs in another process and
is not counted. Prints a table; --json writes the figures.
"""

import argparse
import collections
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

ENGINE_THREADS = {"engine", "compute"}


def cpu_seconds(pid: int) -> dict[str, float]:
    """CPU seconds since start by thread name; a thread's first schedstat field counts nanoseconds on a core."""
    seconds: dict[str, float] = collections.defaultdict(float)
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            seconds[name] += int((task / "schedstat").read_text().split()[0]) / 1e9
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread ended meanwhile
    return seconds


def start_server(binary: str, model: str, flags: list[str]) -> tuple[subprocess.Popen[str], int]:
    command = [binary, "serve", "--model", model, "--port", "0", "--metrics-port", "0", *flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in server.stdout:
        if match := re.search(r' ready .*address="127\.0\.0\.1:(\d+)', line):
            return server, int(match.group(1))
    raise SystemExit("the server did not start: " + " ".join(command))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--model", required=True)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--num-prompts", type=int, default=96)
    parser.add_argument("--input-len", type=int, default=64)
    parser.add_argument("--output-len", type=int, default=256)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve-flags", default="", help="more flags for `statehouse serve`, in one argument")
    args = parser.parse_args()

    server, port = start_server(args.binary, args.model, ["--max-num-seqs", str(args.clients), *shlex.split(args.serve_flags)])
    try:
        before = cpu_seconds(server.pid)
        load = [args.binary, "bench", "load", "--address", f"127.0.0.1:{port}", "--num-prompts", str(args.num_prompts),
                "--max-concurrency", str(args.clients), "--input-len", str(args.input_len),
                "--output-len", str(args.output_len)]
        output = subprocess.run(load, check=True, stdout=subprocess.PIPE, text=True).stdout
        after = cpu_seconds(server.pid)
    finally:
        server.terminate()
        server.wait()

    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    engine = sum(seconds for name, seconds in spent.items() if name in ENGINE_THREADS)
    others = sum(seconds for name, seconds in spent.items() if name not in ENGINE_THREADS)
    rate = float(re.search(r"Output token throughput \(tok/s\)\s+([0-9.]+)", output).group(1))
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        if seconds >= 0.01:
            print(f"{name:<16} {seconds:9.2f} CPU s  {'engine' if name in ENGINE_THREADS else 'server'}")
    print(f"{args.clients} clients, {rate:.1f} tokens/s: server threads {others:.2f} s, engine {engine:.2f} s: {others / engine:.2%} (aim: 3 %)")
    if args.json:
        figures = {"clients": args.clients, "output_tokens_per_s": rate, "server_cpu_seconds": others,
                   "engine_cpu_seconds": engine, "share": others / engine, "aim": 0.03, "by_thread": spent}
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
