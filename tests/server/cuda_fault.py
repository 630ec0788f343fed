#!/usr/bin/env python3
"""What a server on a GPU does when the GPU fails under it; needs a GPU and nvcc.

    tests/server/cuda_fault.py build/release/statehouse [--model models/demo/checkpoint]

Streams run and a session has a turn behind it; then a kernel traps in the server's process (cuda_fault.cu). Expected: the
streams end with INTERNAL or UNAVAILABLE and say why, /health turns to 503, the process ends with status 1, and a new
server goes on with the session.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


started: list[subprocess.Popen] = []  # killed at the end, should something go wrong before theirs


class Server:
    def __init__(self, args: argparse.Namespace, folder: Path, environment: dict[str, str]) -> None:
        self.address, self.metrics_port = f"127.0.0.1:{free_port()}", free_port()
        self.log = (folder / "server.log").open("a+")
        self.process = subprocess.Popen(
            [args.binary, "serve", "--model", args.model, "--device", "cuda", "--port", self.address.split(":")[1], "--max-num-seqs",
             "16", "--metrics-port", str(self.metrics_port), "--session-dir", str(folder / "sessions"), "--shutdown-timeout", "5s"],
            stdout=self.log, stderr=self.log, env={**os.environ, **environment})
        started.append(self.process)
        end = time.time() + 60
        while self.health() != 200:
            assert time.time() < end and self.process.poll() is None, f"no server:\n{self.read_log()}"
            time.sleep(0.1)

    def read_log(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def health(self) -> int:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/health", timeout=5).status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


def expect(what: str, holds: bool) -> None:
    print(("ok    " if holds else "WRONG ") + what)
    if not holds:
        raise SystemExit(1)


def run(args: argparse.Namespace, folder: Path) -> None:
    library, trigger = folder / "libcuda_fault.so", folder / "now"
    source = Path(__file__).with_suffix(".cu")
    subprocess.run(["nvcc", "-gencode=arch=compute_90,code=sm_90", "-gencode=arch=compute_80,code=sm_80", "--cudart", "static",
                    "-Xcompiler", "-fPIC", "-shared", "-o", library, source], check=True)
    server = Server(args, folder, {"LD_PRELOAD": str(library), "STATEHOUSE_TEST_FAULT": str(trigger)})
    generate = [args.binary, "generate", "--address", server.address]
    turn = ["--session", "tale", "--temperature", "0", "--max-tokens", "20"]
    subprocess.run([*generate, "One day a fox", *turn], check=True, stdout=subprocess.PIPE)
    streams = [subprocess.Popen([*generate, f"Story {i}:", "--max-tokens", "1000000", "--ignore-eos"], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE) for i in range(8)]
    started.extend(streams)
    for stream in streams:
        stream.stdout.read(20)  # all of them decode
    trigger.touch()
    codes = []
    end = time.time() + 60
    while server.process.poll() is None and time.time() < end:
        codes.append(server.health())
        time.sleep(0.005)
    log = server.read_log()
    for stream in streams:
        _, error = stream.communicate(timeout=30)
        text = error.decode()
        expect(f"a stream ends with {stream.returncode}: {text.strip()[:200]}",
               stream.returncode != 0 and ("INTERNAL" in text or "UNAVAILABLE" in text or "the device failed" in text))
    expect(f"/health says {sorted(set(codes))} until the process ends", 503 in codes)
    expect(f"the process ends with {server.process.returncode}", server.process.returncode == 1)
    print("      its last lines:\n" + "\n".join("        " + line[:240] for line in log.splitlines()[-4:]))

    server = Server(args, folder, {})
    generate = [args.binary, "generate", "--address", server.address]
    listed = subprocess.run([args.binary, "sessions", "ls", "--address", server.address], check=True, capture_output=True, text=True)
    expect("a new server has the session", "tale" in listed.stdout)
    again = subprocess.run([*generate, " And then", *turn], capture_output=True, text=True)
    expect("it goes on: " + repr((again.stdout or again.stderr).strip()[:80]), again.returncode == 0)
    server.process.terminate()
    expect(f"it ends with {server.process.wait()}", server.process.returncode == 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--model", default="models/demo/checkpoint")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(args, Path(folder))
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
