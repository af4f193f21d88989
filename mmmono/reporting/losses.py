"""Tells in the terminal what an extraction left out, and what it left on the disk."""

from __future__ import annotations

from rich.markup import escape

from mmmono.data.shard_cache import ShardCache
from mmmono.features.losses import described
from mmmono.features.store import Manifest
from mmmono.reporting.tables import console


def tell_losses(manifest: Manifest) -> None:
    """Print how many pairs were skipped, why and which for example, and which shards are missing."""
    if manifest.skipped:
        console.print(
            f"[yellow]skipped {manifest.skipped} unreadable pairs:[/] {escape(described(manifest.reasons))}; "
            f"for example {escape(', '.join(keys[0] for keys in manifest.examples.values() if keys))}"
        )
    if manifest.broken:
        listed = "; ".join(f"{name} {reason}" for name, reason in manifest.broken.items())
        console.print(
            f"[yellow]went without {len(manifest.broken)} shards, about {manifest.missing} pairs:[/] {escape(listed)}"
        )


def tell_copies(cache: ShardCache) -> None:
    """Print how many copies of remote shards lie on the disk, where, and how large they are."""
    count, size = cache.usage()
    if count:
        console.print(
            f"{count} copies of shards ({size / 1e9:.2f} GB) lie in {escape(str(cache.folder))}: "
            "later runs read them; they may be deleted"
        )
