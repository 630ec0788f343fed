"""What Python tests of a running server share: stubs, and the server as a process. Import it after argv is known.

BINARY and SOURCE come from the command line: <test>.py <statehouse binary> <source directory>.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

try:
    import grpc  # noqa: F401
    import google.protobuf  # noqa: F401
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

BINARY, SOURCE = sys.argv[1], pathlib.Path(sys.argv[2])
if shutil.which("protoc") is None or shutil.which("grpc_python_plugin") is None:
    print("skipped: protoc or grpc_python_plugin is not installed")
    sys.exit(77)

SCRATCH = tempfile.TemporaryDirectory()
sys.path.insert(0, str(SOURCE / "clients/python"))
import statehouse_stubs  # noqa: E402

statehouse_stubs.generate(SCRATCH.name)
sys.path.insert(0, SCRATCH.name)


def environment():
    """Without settings or a config file of whoever runs this."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("STATEHOUSE_")}
    clean["XDG_CONFIG_HOME"] = SCRATCH.name
    return clean


class Server:
    """`statehouse serve` of the demo checkpoint on a socket file, and on a port if one is given (0: any); `kill()` is kill -9.

    `address` is the port's if there is one. `lines` are those of the log, read as JSON.
    """

    def __init__(self, *flags, socket_name="server", port=-1, metrics_port=0):
        self.socket = pathlib.Path(SCRATCH.name) / socket_name
        self.address = f"unix:{self.socket}"
        command = [BINARY, "serve", "--model", str(SOURCE / "models/demo/checkpoint"), "--port", str(port), "--unix-socket",
                   str(self.socket), "--metrics-port", str(metrics_port), "--log-format", "json", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
        self.lines = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._ready.wait(120)
        ready = next((line for line in self.lines if line["message"] == "ready"), None)
        if self.process.poll() is not None or ready is None:
            self.kill()
            raise RuntimeError(f"the server did not start: {self.lines}")
        if port >= 0:
            self.address = ready["address"].split(" ")[0]

    def _read(self):
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                entry = {"message": line}
            self.lines.append(entry)
            if entry["message"] == "ready":
                self._ready.set()
        self._ready.set()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        return self.wait()

    def stop(self):
        self.terminate()
        return self.wait()

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self):
        """The exit status of a server that ends."""
        status = self.process.wait(60)
        self._reader.join(10)
        self.process.stderr.close()
        return status


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def run(*words, text=None):
    """The program with these words; its standard input is `text`."""
    return subprocess.run([BINARY, *words], input=text, capture_output=True, text=True, timeout=180, env=environment())
