"""What draws the pictures of Section 4.3: one file a generator."""

from mmmono.case_studies.generators.base import Generator

__all__ = ["Generator"]
