"""`pip install clients/python` from a clean checkout, into a fresh environment, and the package used from there.

Usage: python_package_test.py SOURCE_DIRECTORY. Needs PyPI; exits 77 (skipped) where it cannot be reached.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(sys.argv[1])
# Run in the environment, away from the checkout: what it finds was installed.
USE = """
import importlib.metadata
import statehouse
from statehouse.v1 import generation_pb2, sessions_pb2_grpc

assert "site-packages" in statehouse.__file__ and "site-packages" in generation_pb2.__file__, generation_pb2.__file__
with statehouse.Client("127.0.0.1:1") as client:
    request = client.turn("ada", "Hello")
    assert generation_pb2.GenerateRequest.FromString(request.SerializeToString()) == request
    sessions_pb2_grpc.SessionsStub(client._channel("127.0.0.1:1"))
print(*importlib.metadata.requires("statehouse"))
"""


def main():
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        for part in ("clients/python", "proto"):
            shutil.copytree(SOURCE / part, folder / "checkout" / part,
                            ignore=shutil.ignore_patterns("build", "dist", "*.egg-info", "__pycache__"))
        subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", folder / "environment"], check=True)
        python = folder / "environment/bin/python"
        pip = ["/usr/bin/python3", "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet"]
        os.environ["PIP_NO_COMPILE"] = "1"  # half of the time otherwise
        there = subprocess.run([*pip, "download", "--no-deps", "--dest", folder, "typing_extensions"], capture_output=True, text=True)
        if there.returncode != 0:
            is_offline = any(word in there.stderr.lower() for word in ("connection", "timed out", "name resolution"))
            print(f"{'skipped' if is_offline else 'failed'}: pip cannot download\n{there.stderr}")
            return 77 if is_offline else 1
        subprocess.run([*pip, "install", folder / "checkout/clients/python"], check=True)
        subprocess.run([*pip, "check"], check=True)
        requires = subprocess.run([python, "-c", USE], cwd=folder, check=True, capture_output=True, text=True).stdout
        print(f"requires {requires}")
        assert "grpcio>=" in requires and "protobuf" in requires, requires
    return 0


if __name__ == "__main__":
    sys.exit(main())
