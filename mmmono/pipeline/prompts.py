"""The text of a class for zero-shot classification, as a setting."""

from __future__ import annotations


def check_prompt(prompt: str) -> None:
    """Raise ValueError unless the text of a class has `{}` for its name, and no other braces."""
    if "{}" not in prompt or set("{}") & set(prompt.replace("{}", "")):
        raise ValueError(f"prompt={prompt} must contain {{}} for the name of a class, and no other braces")
