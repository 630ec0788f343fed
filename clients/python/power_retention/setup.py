"""Builds the CUDA kernels while the package is built, where there is a CUDA compiler; all else is in pyproject.toml.

STATEHOUSE_RETENTION_CUDA: auto (the default: where nvcc and CMake are found), on (fail without), off.
STATEHOUSE_RETENTION_INSTANCES: one (the usual head sizes) or all.
"""
import os
import pathlib
import shutil
import subprocess
import sys

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent.parent  # not parents[2], which a folder right below / does not have
NAME = "libstatehouse_retention.so"


def missing():
    """Why the kernels cannot be built, or nothing."""
    if not (ROOT / "kernels" / "c_api" / "retention.h").exists():
        return f"{ROOT} is no checkout of Statehouse"
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=f"{ROOT / '.cuda' / 'bin'}:/usr/local/cuda/bin")
    if nvcc is None and "CUDACXX" not in os.environ:
        return f"there is no nvcc on the PATH, in {ROOT / '.cuda' / 'bin'}, in /usr/local/cuda/bin or in CUDACXX"
    if shutil.which("cmake") is None:
        return "there is no cmake on the PATH"
    return ""


def wants_kernels():
    choice = os.environ.get("STATEHOUSE_RETENTION_CUDA", "auto")
    if choice not in ("auto", "on", "off"):
        sys.exit(f"STATEHOUSE_RETENTION_CUDA is {choice!r}: it must be auto, on or off")
    reason = missing()
    if choice == "on" and reason:
        sys.exit(f"power_retention: the CUDA kernels cannot be built: {reason}")
    if choice == "off" or reason:
        print(f"power_retention: without CUDA kernels ({reason or 'STATEHOUSE_RETENTION_CUDA is off'})", file=sys.stderr)
        return False
    return True


class BuildWithKernels(build_py):
    def run(self):
        super().run()
        if not self.distribution.has_kernels:
            return
        build = ROOT / "build" / "retention"
        instances = os.environ.get("STATEHOUSE_RETENTION_INSTANCES", "one")
        subprocess.check_call(["cmake", "-S", str(ROOT), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release",
                               "-DSTATEHOUSE_KERNELS_ONLY=ON", "-DSTATEHOUSE_CUDA=ON",
                               f"-DSTATEHOUSE_CUDA_INSTANCES={instances}"])
        subprocess.check_call(["cmake", "--build", str(build), "--target", "statehouse_retention", "-j",
                               str(os.cpu_count() or 1)])
        target = pathlib.Path(self.build_lib) / "power_retention" / NAME
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(build / "kernels" / "c_api" / NAME, target)


class KernelDistribution(Distribution):
    """A wheel with kernels is for one platform, and for any Python: nothing in it is compiled against Python."""

    has_kernels = wants_kernels()

    def has_ext_modules(self):
        return self.has_kernels


def any_python():
    try:
        from setuptools.command.bdist_wheel import bdist_wheel
    except ImportError:
        from wheel.bdist_wheel import bdist_wheel

    class AnyPython(bdist_wheel):
        def get_tag(self):
            python, abi, platform = super().get_tag()
            return ("py3", "none", platform) if self.distribution.has_kernels else (python, abi, platform)

    return AnyPython


setup(distclass=KernelDistribution, cmdclass={"build_py": BuildWithKernels, "bdist_wheel": any_python()})
