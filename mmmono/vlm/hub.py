"""Hub look-ups that fail at once, or use the cache, where the hub cannot be reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_session

PROBE_SECONDS = 5.0


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """Within this block files come from the cache alone if the hub gives no answer.

    Without it every file is asked for six times, over some twenty seconds, before a cached copy is used or the
    failure is reported.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _hub_answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _hub_answers() -> bool:
    try:
        get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)
    except Exception:  # each version of the hub's client raises its own HTTP library's errors
        return False
    return True
