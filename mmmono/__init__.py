"""Multi-faceted multimodal monosemanticity: which features of a vision-language model belong to which modality."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mmmono")  # set in pyproject.toml
except PackageNotFoundError:  # a clone that is not installed
    __version__ = "unknown"
