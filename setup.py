"""Lists the packages of the wheel. The top-level folders conf/ and experiments/ go into it as subfolders of mmmono.

Everything else about the project is in pyproject.toml. `mmmono/core/shipped.py` finds the two folders after installation.
"""

from setuptools import find_packages, setup

SHIPPED = {"mmmono._conf": "conf", "mmmono._experiments": "experiments"}

setup(packages=[*find_packages(include=["mmmono", "mmmono.*"]), *SHIPPED], package_dir=SHIPPED)
