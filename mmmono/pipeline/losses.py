"""Report in the terminal what an extraction skipped, what is left of it, what it reads twice, and its copies of shards."""

from __future__ import annotations

from collections.abc import Sequence

from mmmono.data.pairs import PairSource
from mmmono.data.shard_cache import ShardCache
from mmmono.features.losses import described
from mmmono.features.store import Manifest
from mmmono.reporting.tables import console

SHOWN = 10  # names of shards in a line


def tell_left(left: Sequence[str], of: int) -> None:
    """Name the shards that other processes have not done yet.

    Args:
        left: their names.
        of: number of all shards.
    """
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    console.print(f"not done yet, {len(left)} of {of} shards: {', '.join(left[:SHOWN])}{more}", markup=False)


def tell_losses(manifest: Manifest) -> None:
    """Print the number of skipped pairs with reasons and examples, the missing shards, and how many captions are cut."""
    if manifest.skipped:
        console.print(
            f"skipped {manifest.skipped} unreadable pairs: {described(manifest.reasons)}; "
            f"for example {', '.join(keys[0] for keys in manifest.examples.values() if keys)}",
            style="yellow",
        )
    if manifest.broken:
        listed = "; ".join(f"{name} {reason}" for name, reason in manifest.broken.items())
        console.print(
            f"went without {len(manifest.broken)} shards, about {manifest.missing} pairs: {listed}", style="yellow"
        )
    if manifest.full:
        console.print(
            f"{manifest.full} of {manifest.count} captions fill the context of {manifest.model}: it does not read further",
            style="yellow",
        )


def tell_copies(cache: ShardCache) -> None:
    """Print the number, size and folder of the local copies of remote shards."""
    count, size = cache.usage()
    if count:
        console.print(
            f"{count} copies of shards ({size / 1e9:.2f} GB) lie in {cache.folder}: "
            "later runs read them; they may be deleted"
        )


def tell_repeats(source: PairSource) -> None:
    """Print which parts have the same content."""
    for first, *others in source.repeats():
        console.print(
            f"{', '.join(others)} has the same content as {first}: its pairs count {len(others) + 1} times, and may lie in "
            "several splits; leave it out of dataset.shards unless that is meant",
            style="yellow",
        )
