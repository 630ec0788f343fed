"""Generates the Python modules of the protos: with grpcio-tools if they are there, else with protoc and its plugin."""
import pathlib
import shutil
import subprocess

PROTOS = pathlib.Path(__file__).resolve().parent.parent.parent / "proto"


def generate(out: str) -> None:
    """Writes statehouse/v1/*_pb2.py and *_pb2_grpc.py below `out`. RuntimeError says what is missing."""
    files = [str(path) for path in sorted((PROTOS / "statehouse" / "v1").glob("*.proto"))]
    flags = [f"-I{PROTOS}", f"--python_out={out}", f"--grpc_python_out={out}"]
    try:
        from grpc_tools import protoc
        failed = protoc.main(["protoc", *flags, *files])
    except ImportError:
        plugin = shutil.which("grpc_python_plugin")
        if plugin is None or shutil.which("protoc") is None:
            raise RuntimeError("install grpcio-tools, or protobuf-compiler and protobuf-compiler-grpc") from None
        failed = subprocess.call(["protoc", *flags, f"--plugin=protoc-gen-grpc_python={plugin}", *files])
    if failed:
        raise RuntimeError("the protos could not be compiled")
