"""Values of settings in messages, as they are typed on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def as_typed(value: object) -> str:
    """Format a value as it is typed on the command line: `null`, `true`, `[null,9]`, `{a:1}`; text stays as it is."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{as_typed(key)}:{as_typed(of)}' for key, of in value.items())}}}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return f"[{','.join(map(as_typed, value))}]"
    return str(value)
