"""Encodes all pairs of a source into a feature store, part by part.

If the process is killed, the next call resumes with the unfinished parts. Several processes, on one machine or on many,
can write one store together: each claims a part before it reads it (mmmono/core/claims.py), and a part of a process that
died is free again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mmmono.core.errors import ConfigError
from mmmono.core.progress import progress_bar
from mmmono.data.pairs import PairSource, check_limit
from mmmono.features.encoding import PartEncoder
from mmmono.features.extraction_settings import ExtractionSettings
from mmmono.features.reading import Encoder, explained_deaths
from mmmono.features.shares import Share
from mmmono.features.store import Manifest
from mmmono.features.writer import FeatureStoreWriter


def extract_features(
    source: PairSource,
    encoder: Encoder,
    directory: str | Path,
    *,
    device: str | torch.device = "cpu",
    settings: ExtractionSettings | None = None,
    **given: Any,
) -> Manifest:
    """Encode all pairs of `source` into a store in `directory`, resuming an unfinished store there.

    The store is bitwise the same for any number of workers.

    Args:
        source: pairs in parts; each part becomes a shard of the store. If it has a `limit`, only its first pairs are
            used.
        encoder: both towers, on `device`.
        directory: where to write; publish the store by renaming the directory afterwards.
        device: where the encoders run.
        settings: settings of reading and encoding; fields of `ExtractionSettings` and `Allowance` can also be given by
            name: `extract_features(source, encoder, directory, batch_size=64, max_skipped=0)`.

    Raises:
        DataError: no pair could be read, or more were lost than allowed; finished parts are kept.
        ModelError: an embedding is not finite.
        ConfigError: a setting is invalid.
    """
    settings = settings or ExtractionSettings()
    losses = {name: given.pop(name) for name in ("max_skipped", "max_broken_shards") if name in given}
    settings = replace(settings, allowance=replace(settings.allowance, **losses), **given)
    limit = source.limit
    check_limit(limit)
    extraction = PartEncoder(source, encoder, Path(directory), torch.device(device), settings)
    with explained_deaths(), progress_bar() as bar, torch.inference_mode():
        task = bar.add_task(f"extract {source.name}", total=_total(source, limit), completed=extraction.pairs)
        if limit is None:
            with extraction.claims:
                extraction.encode_all(range(len(extraction.names)), bar, task)
        else:
            extraction.encode_first(limit, bar, task)
    return extraction.finish()


def begin_store(source: PairSource, directory: Path, settings: ExtractionSettings) -> None:
    """Make the folders in which several processes then write a store together.

    Raises:
        ConfigError: the source has a limit.
    """
    if source.limit is not None:
        raise ConfigError(
            f"dataset.limit={source.limit} cannot be shared by several processes: which shards hold the "
            "first pairs is known only by reading them in order; set dataset.limit=null, or extract in one process"
        )
    FeatureStoreWriter(directory, len(source.parts()), settings.dtype)


def extract_share(
    source: PairSource,
    encoder: Encoder,
    directory: Path,
    share: Share,
    *,
    device: str | torch.device = "cpu",
    settings: ExtractionSettings | None = None,
) -> bool:
    """Encode a share of the source's parts into a store that other processes write too.

    Args:
        source, encoder, device, settings: see `extract_features`.
        directory: where to write; made by `begin_store`.
        share: the parts to encode. Parts of it that another process has claimed are waited for.

    Returns:
        Whether all parts of the source are done, by whichever process, so that the store can be finished by
        `extract_features`. Parts that could not be read count as done here; `extract_features` tries them again.

    Raises:
        DataError: a part of the share could not be read, and more were lost than allowed; other parts are finished.
        ModelError: an embedding is not finite.
    """
    settings = settings or ExtractionSettings()
    extraction = PartEncoder(source, encoder, directory, torch.device(device), settings, begin=False)
    mine = share.parts(len(extraction.names))
    try:
        with explained_deaths(), progress_bar() as bar, torch.inference_mode(), extraction.claims:
            task = bar.add_task(f"extract {share} of {source.name}", total=None, completed=0)
            extraction.encode_all(mine, bar, task)
        extraction.check_broken()
        return extraction.all_done()
    except FileNotFoundError:
        if not extraction.claims.gone:
            raise
        return False  # another process has finished the store meanwhile


def _total(source: PairSource, limit: int | None) -> int | None:
    try:
        count = len(source)
    except TypeError:
        return limit
    return count if limit is None else min(count, limit)
