"""Image generators for Section 4.3, one per file."""

from mmmono.case_studies.generators.base import Generator

__all__ = ["Generator"]
