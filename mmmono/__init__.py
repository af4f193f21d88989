"""Multi-faceted multimodal monosemanticity: which features of a vision-language model belong to which modality."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mmmono")  # pyproject.toml holds it
except PackageNotFoundError:  # run from a clone that is not installed
    __version__ = "unknown"
