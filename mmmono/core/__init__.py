"""Errors, artifact storage and other code that every package uses."""
