"""Time-outs and retries of remote reads, whatever the scheme of the address."""

from __future__ import annotations

import random
from dataclasses import dataclass

from mmmono.core.errors import BrokenPartError, ConfigError


@dataclass(frozen=True)
class RemoteSettings:
    """Time-outs and retries for remote reads.

    Attributes:
        timeout: seconds without a byte after which a connection counts as broken.
        retries: attempts in a row that may bring no new bytes.
        pause: seconds before the second attempt; each further pause is twice as long.
        longest_pause: upper limit of a pause in seconds; a server's `Retry-After` may ask for up to ten times as much.

    Raises:
        ConfigError: a number is out of its range.
    """

    timeout: float = 60.0
    retries: int = 6
    pause: float = 0.5
    longest_pause: float = 60.0

    def __post_init__(self) -> None:
        for name in ("pause", "longest_pause"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 0 seconds")
        if not self.timeout > 0 or not self.retries >= 0:
            raise ConfigError(
                f"dataset.timeout={self.timeout} must be above 0 seconds and dataset.retries={self.retries} at least 0"
            )

    def pause_after(self, failures: int) -> float:
        """Return the seconds to wait after this many failures in a row, varied so that processes do not ask at once."""
        return min(self.longest_pause, self.pause * 2.0 ** (failures - 1)) * random.uniform(0.5, 1)


class ReplacedError(BrokenPartError):
    """The file behind the URL was replaced by another one."""


class AbsentError(BrokenPartError):
    """There is no file behind the URL."""


class ForbiddenError(BrokenPartError):
    """The file may not be read. Storage whose folders may not be listed says so of files that are not there, too."""
