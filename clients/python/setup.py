"""Generates the stubs of the protos while the package is built; everything else is in pyproject.toml."""
import pathlib

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).resolve().parent


class BuildWithStubs(build_py):
    def run(self):
        from statehouse_stubs import generate
        generate(str(HERE))  # to statehouse/v1
        (HERE / "statehouse" / "v1" / "__init__.py").touch()
        super().run()


setup(cmdclass={"build_py": BuildWithStubs})
