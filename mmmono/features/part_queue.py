"""Which parts of a source the workers of a cluster still have to encode."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from mmmono.core.claims import Claims
from mmmono.core.errors import DataError
from mmmono.data.pairs import PairSource
from mmmono.features.cluster import REASON, TRIES
from mmmono.features.writer import FeatureStoreWriter

SHOWN = 8  # parts that a message names


class PartQueue:
    """Which parts are done, in work, waiting or lost.

    Attributes:
        left: parts that are neither finished, broken nor lost.
    """

    def __init__(self, source: PairSource, writer: FeatureStoreWriter, claims: Claims) -> None:
        self.names = source.parts()
        self.writer = writer
        self.claims = claims
        self.pairs = 0
        self.left = set(range(len(self.names)))
        self.deaths: Counter[int] = Counter()
        self.lost: list[int] = []
        self.look(sorted(self.left))
        self.waiting = deque(sorted(self.left))

    def look(self, parts: Iterable[int]) -> None:
        """Count those of some parts that were finished since the last look, by whichever process."""
        for part in self.left.intersection(parts):
            if (report := self.writer.report(part)) is not None:
                self.left.discard(part)
                self.pairs += report.count

    def next(self, most: int) -> list[int]:
        """Return up to `most` parts that nobody works on; a part that ended a process comes alone."""
        parts: list[int] = []
        for _ in range(len(self.waiting)):
            part = self.waiting.popleft()
            self.look([part])
            if part not in self.left:
                continue
            if not self.claims.is_free(part) or (parts and self.deaths[part]):
                self.waiting.append(part)
                continue
            parts.append(part)
            if len(parts) == most or self.deaths[part]:
                break
        return parts

    def ended(self, parts: list[int], broken: dict[int, str] | None) -> None:
        """Count what a worker did with its parts; `broken` is None if it died."""
        self.look(parts)
        self.left.difference_update(broken or ())
        for part in [part for part in parts if part in self.left]:
            if broken is None:
                self.deaths[part] += 1
            if self.deaths[part] >= TRIES:
                self.left.discard(part)
                self.lost.append(part)
            else:
                self.waiting.append(part)

    def check_lost(self, reason: str) -> None:
        """Raise DataError if parts ended their processes too often; `reason` is Ray's for the last of them."""
        if not self.lost:
            return
        named = ", ".join(self.names[part] for part in self.lost[:SHOWN])
        more = f" and {len(self.lost) - SHOWN} more" if len(self.lost) > SHOWN else ""
        raise DataError(
            f"{len(self.lost)} of {len(self.names)} shards ended the process that encoded them {TRIES} times: "
            f"{named}{more} ({reason[:REASON]}). The others are written; look at the memory of the machines, or lower "
            "extraction.batch_size, and run the same again, which reads only these"
        )
