#!/usr/bin/env python3
"""Tokens per second of a server beside those of the bare engine, in one run on one machine.

    tests/bench/served_rate.py build/release/statehouse --model DIR [--engine-bench build/release/tests/bench/engine_streams_bench]
        [--device cuda] [--streams 64] [--prompt 512] [--tokens 512] [--serve-flags "…"] [--load-flags "…"]

Starts a server with dummy weights, sends load with `statehouse bench load`, and reads the server's counter of delivered
tokens while all streams decode: from when each has at least a few until the first are about to end, which is what
engine_streams_bench measures, at about the same positions. Prints both rates and their ratio.
"""

import argparse
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
import urllib.request


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read_metrics(port: int) -> tuple[float, dict[str, float]]:
    begin = time.perf_counter()
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    at = (begin + time.perf_counter()) / 2
    samples = (line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#")
    return at, {name: float(value) for name, value in samples}


def named(metrics: dict[str, float], *parts: str) -> str:
    return next(name for name in metrics if all(part in name for part in parts))


class Poll(threading.Thread):
    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.stop, self.rows = port, threading.Event(), []

    def run(self) -> None:
        while not self.stop.wait(0.05):
            self.rows.append(read_metrics(self.port))


def served_rate(args: argparse.Namespace) -> float:
    port, metrics_port, output_len = free_port(), free_port(), args.tokens + 2 * args.streams
    serve = [args.binary, "serve", "--model", args.model, "--load-format", "dummy", "--device", args.device, "--port", str(port),
             "--metrics-port", str(metrics_port), "--max-num-seqs", str(args.streams), "--max-num-batched-tokens", "2048",
             *shlex.split(args.serve_flags)]
    server = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = []
    for line in server.stdout:
        log.append(line)
        if " ready " in line:
            break
    else:
        raise SystemExit("the server did not start:\n" + "".join(log))
    threading.Thread(target=lambda: log.extend(server.stdout), daemon=True).start()  # a full pipe would stop it
    try:
        poll = Poll(metrics_port)
        poll.start()
        load = [args.binary, "bench", "load", "--address", f"127.0.0.1:{port}", "--num-prompts", str(args.streams),
                "--input-len", str(args.prompt), "--output-len", str(output_len), "--temperature", "1", "--seed", "1",
                *shlex.split(args.load_flags)]
        output = subprocess.run(load, check=True, stdout=subprocess.PIPE, text=True).stdout
        poll.stop.set()
        poll.join()
    finally:
        server.terminate()
        server.wait()
    for row in re.findall(r"^(?:Time per output token|Inter-token latency) .*$", output, re.MULTILINE):
        print("client, ms (mean p50 p90 p99 max): " + row)
    tokens = named(poll.rows[-1][1], "generation_tokens_total")
    base = poll.rows[-1][1][tokens] - args.streams * output_len  # of the warm-up
    # The streams that came first are ahead by the prompt steps of the others.
    lead = -(-args.streams * args.prompt // 2048) + 8
    low, high = base + args.streams * lead, base + args.streams * (output_len - lead)
    inside = [row for row in poll.rows if low <= row[1][tokens] <= high]
    (begin, first), (end, last) = inside[0], inside[-1]
    count = named(last, "step_seconds_count", "decode")
    total = named(last, "step_seconds_sum", "decode")
    steps = last[count] - first[count]
    print(f"server: {steps:.0f} decode steps of {(last[total] - first[total]) / steps * 1e3:.3f} ms in {end - begin:.2f} s")
    return (last[tokens] - first[tokens]) / (end - begin)


def engine_rate(args: argparse.Namespace) -> float:
    bench = [args.engine_bench, args.model, "--device", args.device, "--streams", str(args.streams), "--prompt", str(args.prompt),
             "--tokens", str(args.tokens)]
    output = subprocess.run(bench, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(output, end="")
    return float(re.search(r"engine (\d+) tok/s", output).group(1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--model", required=True)
    parser.add_argument("--engine-bench", help="the bare engine is measured before the server and after it; without it, not at all")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=512, help="as engine_streams_bench takes them: answers are 2 streams longer")
    parser.add_argument("--serve-flags", default="", help="more flags for `statehouse serve`, in one argument")
    parser.add_argument("--load-flags", default="--bypass-cache", help="more flags for `statehouse bench load`, in one argument")
    args = parser.parse_args()

    rates = [engine_rate(args)] if args.engine_bench else []
    served = served_rate(args)
    if args.engine_bench:
        rates.append(engine_rate(args))
    line = f"{args.streams} streams over gRPC: {served:.0f} tok/s"
    if rates:
        engine = sum(rates) / len(rates)
        line += f", engine {' and '.join(f'{rate:.0f}' for rate in rates)} tok/s: {served / engine:.1%} of it (aim: 97 %)"
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
