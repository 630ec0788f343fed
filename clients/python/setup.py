"""Generates the stubs of the protos whenever the package is looked at; what does not follow from them is in pyproject.toml."""
import pathlib
import re
import sys

from setuptools import setup

HERE = pathlib.Path(__file__).resolve().parent
# Not in statehouse/: there the stubs would hide those that a program generates for other versions. Not below build/: a source
# distribution leaves that out.
STUBS = pathlib.Path("stubs")


def make_stubs() -> pathlib.Path:
    """The folder of statehouse.v1, from the root of this package. A source distribution has the stubs and no protos."""
    package = STUBS / "statehouse" / "v1"
    sys.path.insert(0, str(HERE))  # a build backend does not put it there
    import statehouse_stubs
    if statehouse_stubs.PROTOS.is_dir() or not (HERE / package / "__init__.py").exists():
        (HERE / package).mkdir(parents=True, exist_ok=True)
        statehouse_stubs.generate(str(HERE / STUBS))
        (HERE / package / "__init__.py").touch()
    return package


def requirements(package: pathlib.Path) -> list:
    """What the stubs run with: the versions that they name, or the oldest that was tried where their generator names none."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((HERE / package).glob("*.py")))
    grpcio = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", text)
    protobuf = re.search(r"# Protobuf Python Version: (\d+)([\d.]+)", text)
    return [f"grpcio>={grpcio[1] if grpcio else '1.51'}",
            # A release of protobuf runs the stubs of its own and of the previous major version.
            f"protobuf>={protobuf[1]}{protobuf[2]},<{int(protobuf[1]) + 2}" if protobuf else "protobuf>=4.21"]


folder = make_stubs()
setup(install_requires=requirements(folder), package_dir={"statehouse.v1": folder.as_posix()})
