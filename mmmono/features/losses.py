"""Limits on the pairs and parts that an extraction may lose because they cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmmono.core.errors import BrokenPartError, DataError
from mmmono.features.store import Manifest

ALWAYS_SKIPPABLE = 10  # unreadable pairs tolerated in any source: a share of a few pairs means little
SHOWN = 8  # maximum number of broken parts that a message names


@dataclass(frozen=True)
class Allowance:
    """Maximum loss of an extraction.

    Attributes:
        max_skipped: share of pairs that may be unreadable, in [0, 1]; `ALWAYS_SKIPPABLE` pairs are tolerated unless it
            is 0.
        max_broken_shards: number of parts that may be missing because they cannot be read to their end.
    """

    max_skipped: float = 0.1
    max_broken_shards: int = 0

    def check_skipped(self, pairs: int, reasons: Mapping[str, int], final: bool = True) -> None:
        """Raise DataError if too many pairs were skipped.

        Before the end (`final=False`) only a clear excess counts, since all unreadable pairs may be in the first parts.
        """
        skipped = sum(reasons.values())
        allowed = max(ALWAYS_SKIPPABLE, self.max_skipped * (pairs + skipped)) if self.max_skipped else 0
        if skipped > (allowed if final or not self.max_skipped else max(1000, 2 * allowed)):
            raise DataError(
                f"{skipped} of {pairs + skipped} pairs could not be read, more than "
                f"extraction.max_skipped={self.max_skipped} allows ({described(reasons, 3)}): "
                "mend the data or raise the limit"
            )
        if final and not pairs:
            raise DataError(f"not one pair could be read ({described(reasons, 3) or 'the source is empty'})")

    def check_broken(self, broken: Sequence[BrokenPartError], missing: int, total: int) -> None:
        """Raise DataError if too many parts are broken; `missing` is an estimate of their pairs."""
        if len(broken) > self.max_broken_shards:
            about = f" with about {missing} pairs" if missing else ""
            kept = (
                " and run the same again, which reads only these, or go without them by "
                f"extraction.max_broken_shards={len(broken)}"
            )
            raise DataError(
                f"{len(broken)} of {total} shards{about} could not be read to their end: {_named(broken)}. "
                f"Mend or replace them{kept if len(broken) < total else ''}"
            )

    def check(self, manifest: Manifest) -> None:
        """Raise DataError if a finished store lost more than allowed."""
        self.check_skipped(manifest.count, manifest.reasons)
        if len(manifest.broken) > self.max_broken_shards:
            raise DataError(
                f"these features were made without {len(manifest.broken)} shards that could not be read to their end "
                f"({', '.join(list(manifest.broken)[:SHOWN])}), more than "
                f"extraction.max_broken_shards={self.max_broken_shards} allows: try them again with +force=true, or "
                f"set it to {len(manifest.broken)}"
            )


def described(reasons: Mapping[str, int], most: int | None = None) -> str:
    """Return reasons with their counts, the most frequent first."""
    return "; ".join(f"{count} × {reason}" for reason, count in Counter(reasons).most_common(most))


def _named(broken: Sequence[BrokenPartError]) -> str:
    """Return the names of the broken parts, grouped by reason."""
    by_reason: dict[str, list[str]] = {}
    for error in broken[:SHOWN]:
        by_reason.setdefault(error.reason, []).append(error.name)
    listed = "; ".join(f"{', '.join(names)} {reason}" for reason, names in by_reason.items())
    return listed + (f"; and {len(broken) - SHOWN} more" if len(broken) > SHOWN else "")
