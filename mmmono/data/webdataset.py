"""Tar shards of images and captions, local or remote, in WebDataset's layout.

The files of a sample are adjacent and share their name up to the first dot: `000017.jpg`, `000017.txt`, `000017.json`.
Shards are read as streams. The position of each sample is stored as its locator, `<offset>:<length>` in bytes, so that
it can be read again with one seek (or one range request) and without a search.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Self

from mmmono.core.errors import BrokenPartError, DataError
from mmmono.core.files import user_path
from mmmono.core.fingerprints import file_fingerprint
from mmmono.data.bulk import Item, PairRequest, fetch_in_order
from mmmono.data.captions import image_key
from mmmono.data.hub import endpoint, hub_token
from mmmono.data.opening import ShardOpener
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair, check_limit
from mmmono.data.sample_pairs import IncompleteError, SampleReading
from mmmono.data.shard_cache import ShardCache
from mmmono.data.shard_patterns import expand_shards
from mmmono.data.shards import copies, identity, is_local, shown, stem
from mmmono.data.tar import BrokenTarError, NamelessImage, Sample, read_samples

CC3M_REPOSITORY = "datasets/pixparse/cc3m-wds"
CC3M_SHARDS = {"train": "cc3m-train-{0000..0575}.tar", "val": "cc3m-validation-{0000..0015}.tar"}
CC3M_FILES = {"train": "cc3m-train-*.tar", "val": "cc3m-validation-*.tar"}
SCATTERED = "its files do not lie next to each other: write shards with 'tar --sort=name'"
REPEATED = "a second sample of the same name in its shard"


class WebDatasetPairs(PairSource):
    """Image-text pairs in tar shards; each shard is a part.

    Args:
        shards: a path, folder or URL, with brace ranges (`{0000..0004}`) or wildcards, several joined by `::`, or a
            list of these. URLs are http(s), `hf://datasets/<owner>/<name>/<file>`, `pipe:<command>` and those that
            fsspec opens (s3, gs, ...); wildcards work for all that list their files, which http(s) does not.
        reading: how the files of a sample become pairs; by default, see `SampleReading`.
        opener: opens the shards, with a token, retries or a folder for copies; by default remote ones are streamed with
            the hub's own token.
        limit: number of pairs that `extract_features` takes, from the first on; None takes all.
        name: for progress bars and manifests.

    Raises:
        DataError: a pattern matches no file, or a named local shard does not exist.
        ConfigError: `limit` is below 1.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        reading: SampleReading | None = None,
        opener: ShardOpener | None = None,
        limit: int | None = None,
        name: str = "webdataset",
    ) -> None:
        check_limit(limit)
        self.name = name
        self.reading = reading or SampleReading()
        self.limit = limit
        self.shards = expand_shards(shards)
        self.opener = opener or ShardOpener()
        self.remote = self.copies is None and not all(is_local(shard) for shard in self.shards)
        stems = [stem(shard) for shard in self.shards]
        # Keys start with their shard's name, preceded by its number if two shards share a name.
        self._stems = stems if len(set(stems)) == len(stems) else [f"{i}-{stem}" for i, stem in enumerate(stems)]
        self._offsets: dict[int, dict[str, int]] = {}

    @property
    def copies(self) -> ShardCache | None:
        """Copies of remote shards; None if they are streamed every time."""
        return self.opener.cache

    @classmethod
    def cc3m(
        cls,
        split: str,
        root: str | Path | None = None,
        opener: ShardOpener | None = None,
        limit: int | None = None,
    ) -> Self:
        """Return CC3M (pixparse/cc3m-wds), from the folder of a local copy or from the hub with the user's token.

        Raises:
            DataError: `root` has no shard of the split; without `root`, there is no token.
        """
        if root is not None:
            folder = user_path(root)
            if not folder.is_dir():
                raise DataError(f"dataset.root={root} is no folder: give the one that has {CC3M_FILES[split]}")
            files = sorted(str(file) for file in folder.glob(CC3M_FILES[split]))
            if not files:
                raise DataError(f"dataset.root={root}: {CC3M_FILES[split]} matches no file in it")
            return cls(files, limit=limit, name="cc3m")
        if not hub_token():
            raise DataError(
                "dataset=cc3m streams from a hub that wants a token: set HF_TOKEN or run 'hf auth login', "
                "or give the folder of a local copy with dataset.root=/path"
            )
        shards = f"{endpoint()}/{CC3M_REPOSITORY}/resolve/main/{CC3M_SHARDS[split]}"
        return cls(shards, opener=opener, limit=limit, name="cc3m")

    def fingerprint(self) -> str:
        """Digest of local shards' content, remote shards' addresses (without signatures) and the reading settings."""
        shards = [
            (Path(shard).name, file_fingerprint(Path(shard))) if is_local(shard) else (identity(shard), None)
            for shard in self.shards
        ]
        reading = self.reading
        seed = reading.seed if reading.captions == "random" else 0
        how = (reading.image_keys, reading.caption_key, reading.captions, reading.label_keys, seed, reading.key_end)
        lines = ("caption_lines",) if reading.caption_lines else ()
        return hashlib.sha256(repr((shards, (*how, *lines))).encode()).hexdigest()[:16]

    def parts(self) -> list[str]:
        """Names of the shards, for messages."""
        return [shown(shard) for shard in self.shards]

    def local_files(self, part: int) -> list[Path]:
        """The shard, if it is local."""
        return [Path(self.shards[part])] if is_local(self.shards[part]) else []

    def repeats(self) -> list[list[str]]:
        """Local shards of one content, such as a copy under another name."""
        local = [Path(shard) for shard in self.shards if is_local(shard)]
        return [[str(file) for file in same] for same in copies(local)]

    def count_samples(self, part: int, most: int) -> int | None:
        """Count a shard's samples by its headers, up to `most`; None if it is not local, or broken."""
        local = self.opener.local(self.shards[part], whole=False)
        if local is None:
            return None
        try:
            with local.open("rb") as stream:
                return sum(1 for _ in islice(read_samples(stream, key_end=self.reading.key_end), most))
        except (BrokenTarError, OSError):  # reported when the shard is read
            return None

    def group(self, key: str) -> str:
        """Key of the image, so that all its captions fall into one split."""
        return image_key(key) if self.reading.captions == "all" else key

    def read(self, part: int) -> Iterator[ImageTextPair | SkippedPair]:
        """Stream one shard. Raises BrokenPartError if it cannot be read to its end.

        A cached copy that turns out not to be a complete tar archive is deleted.
        """
        shard = self.shards[part]
        try:
            with self.opener.open(shard) as stream:
                yield from self._items(
                    part, read_samples(stream, key_end=self.reading.key_end, reads=self.reading.reads)
                )
        except BrokenTarError as error:
            self.opener.forget(shard)
            raise BrokenPartError(shown(shard), str(error)) from error
        except OSError as error:
            raise BrokenPartError(shown(shard), f"cannot be read ({error.strerror or error})") from error

    def _items(self, part: int, samples: Iterator[Sample | NamelessImage]) -> Iterator[ImageTextPair | SkippedPair]:
        """Yield pairs as they are read; incomplete samples last, when their missing files can no longer follow."""
        incomplete: dict[str, str] = {}
        complete: set[str] = set()
        for sample in samples:
            if isinstance(sample, NamelessImage):
                yield SkippedPair(f"{self._stems[part]}/{sample.name}", "an image without a name before its extension")
                continue
            key = self._key(part, sample)
            if key in incomplete:
                incomplete[key] = SCATTERED
            elif key in complete:
                yield SkippedPair(key, REPEATED if self.reading.image(sample) is not None else SCATTERED)
            else:
                try:
                    yield from self._pairs(part, sample)
                    complete.add(key)
                except IncompleteError as error:
                    incomplete[key] = str(error)
        for key, reason in incomplete.items():
            yield SkippedPair(key, reason)

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Read one sample again: with one seek if its locator is given, else after a search of its shard."""
        request = self._request(0, key, locator)
        if not locator:
            offset = self._find(request.part, self._name(key))
            if offset is None:
                raise self._missing(request)
            request = self._request(0, key, str(offset))
        try:
            if request.length:
                data = self.opener.read(self.shards[request.part], request.start, request.start + request.length)
                pair = self._pair_in(io.BytesIO(data), request)
            else:
                with self.opener.open(self.shards[request.part], request.start) as stream:
                    pair = self._pair_in(stream, request)
        except OSError as error:
            raise BrokenPartError(shown(self.shards[request.part]), f"cannot be read ({error})") from error
        if pair is None:
            raise self._missing(request)
        return pair

    def fetch_many(self, requests: Sequence[tuple[str, str]]) -> Iterator[ImageTextPair | SkippedPair]:
        """Read samples again in the requested order: neighbors in one request, several requests at once.

        Args:
            requests: (key, locator) of each pair; faster if neighbors in a shard are close to each other here.

        Yields:
            One item per requested pair; a `SkippedPair` with the reason if it cannot be read.
        """
        return fetch_in_order(
            (self._place(i, key, locator) for i, (key, locator) in enumerate(requests)), self._fetch_group
        )

    def _place(self, position: int, key: str, locator: str) -> PairRequest:
        try:
            return self._request(position, key, locator)
        except DataError:  # raised again when the pair is fetched
            return PairRequest(position, key, locator, -1, 0, 0)

    def _fetch_group(self, group: list[PairRequest]) -> list[Item]:
        first, end = group[0], max(one.start + one.length for one in group)
        if not first.length:
            try:
                return [self.fetch(first.key, first.locator)]
            except DataError as error:
                return [SkippedPair(first.key, str(error))]
        try:
            data = self.opener.read(self.shards[first.part], first.start, end)
        except DataError as error:
            return [SkippedPair(one.key, str(error)) for one in group]
        items: list[Item] = []
        for one in group:
            begin = one.start - first.start
            pair = self._pair_in(io.BytesIO(data[begin : begin + one.length]), one)
            items.append(pair or SkippedPair(one.key, str(self._missing(one))))
        return items

    def _request(self, position: int, key: str, locator: str) -> PairRequest:
        shard = key.partition("/")[0]
        if shard not in self._stems:
            raise DataError(f"no pair {key!r} in {self.name}: no shard is called {shard or key!r}")
        start, _, length = locator.partition(":")
        if not all(number.isdecimal() for number in (start, length) if number):
            raise DataError(f"the locator {locator!r} of {key!r} is no place in a shard: extract the features again")
        return PairRequest(position, key, locator, self._stems.index(shard), int(start or 0), int(length or 0))

    def _missing(self, request: PairRequest) -> DataError:
        return DataError(
            f"no readable pair {request.key!r} in {shown(self.shards[request.part])}: "
            "was the shard changed since it was extracted?"
        )

    def _name(self, key: str) -> str:
        return self.group(key).partition("/")[2]

    def _key(self, part: int, sample: Sample) -> str:
        return f"{self._stems[part]}/{sample.key}"

    def _pairs(self, part: int, sample: Sample) -> Iterator[ImageTextPair | SkippedPair]:
        locator = f"{sample.offset}:{sample.end - sample.offset}"
        return self.reading.pairs(self._key(part, sample), sample, locator)

    def _pair_in(self, stream: IO[bytes], request: PairRequest) -> ImageTextPair | None:
        """Return the requested pair from the sample at the beginning of a stream, or None."""
        reading = self.reading
        samples = read_samples(stream, base=request.start, whole=False, key_end=reading.key_end, reads=reading.reads)
        try:
            # Files that belong to no sample may lie between those of one.
            sample = next((found for found in samples if isinstance(found, Sample)), None)
            if sample is None or sample.key != self._name(request.key):
                return None
            pairs = self._pairs(request.part, sample)
            return next((pair for pair in pairs if isinstance(pair, ImageTextPair) and pair.key == request.key), None)
        except (BrokenTarError, IncompleteError):
            return None

    def _find(self, part: int, name: str) -> int | None:
        """Return the offset of the first sample with this name; None if the shard has none."""
        offsets = self._offsets.setdefault(part, {})
        if name not in offsets:
            shard = self.shards[part]
            try:
                with self.opener.open(shard) as stream:
                    for sample in read_samples(stream, key_end=self.reading.key_end):
                        if isinstance(sample, Sample):
                            offsets.setdefault(sample.key, sample.offset)
                            if sample.key == name:
                                break
            except BrokenTarError as error:
                raise BrokenPartError(shown(shard), f"{error}; it has no pair {name!r} up to there") from error
        return offsets.get(name)
