"""Tar shards of images and captions, local or remote, in WebDataset's layout.

The files of a sample lie next to each other and share their name up to the first dot: `000017.jpg`, `000017.txt`,
`000017.json`. Shards are read as streams; where each sample begins is kept as its locator, so that it can be read again
with one seek (or one ranged request) and no search.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Self

import webdataset
from webdataset.shardlists import expand_urls
from webdataset.tariterators import base_plus_ext

from mmmono.core.errors import DataError
from mmmono.data.captions import CaptionChoice, choose_captions, clean, picture_key
from mmmono.data.images import decode_image
from mmmono.data.pairs import ImageTextPair, PairSource, SkippedPair

CC3M_HUB = "https://huggingface.co/datasets/pixparse/cc3m-wds/resolve/main"
CC3M_SHARDS = {"train": "cc3m-train-{0000..0575}.tar", "val": "cc3m-validation-{0000..0015}.tar"}
CC3M_FILES = {"train": "cc3m-train-*.tar", "val": "cc3m-validation-*.tar"}
TIMEOUT_SECONDS = 60


@dataclass
class _Sample:
    """The files of one sample by extension, and where the first of them begins in its shard."""

    key: str
    offset: int
    files: dict[str, bytes] = field(default_factory=dict)


class WebDatasetPairs(PairSource):
    """Image-text pairs in tar shards; each shard is a part.

    Args:
        shards: a path or URL with brace ranges (`{0000..0004}`) or wildcards, several joined by `::`, or a list of such.
        name: for progress and manifests.
        image_keys: extensions that hold the image, in order of preference.
        caption_key: field of the .json with the caption or captions. By default `captions` and `caption` of the .json
            are tried first, as only they can hold several, then the .txt.
        captions: `first`, `random` (the same every time) or `all` of a picture's captions.
        label_keys: fields of the .json that are class labels.
        limit: how many of the first pairs are wanted.
        token: bearer token for http(s) shards.
        seed: of the random choice of captions.

    Raises:
        DataError: a pattern matches no file, or a named local shard is not there.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        name: str = "webdataset",
        image_keys: Sequence[str] = ("jpg", "jpeg", "png", "webp"),
        caption_key: str | None = None,
        captions: CaptionChoice = "first",
        label_keys: Sequence[str] = (),
        limit: int | None = None,
        token: str | None = None,
        seed: int = 0,
    ) -> None:
        self.name = name
        self.shards = _expand(shards)
        self.image_keys = tuple(image_keys)
        self.caption_key = caption_key
        self.captions: CaptionChoice = captions
        self.label_keys = tuple(label_keys)
        self.limit = limit
        self.token = token
        self.seed = seed
        stems = [_stem(shard) for shard in self.shards]
        # Keys start with their shard's name; where two shards share one, with its number too.
        self._stems = stems if len(set(stems)) == len(stems) else [f"{i}-{stem}" for i, stem in enumerate(stems)]

    @classmethod
    def cc3m(cls, split: str, root: str | Path | None = None, limit: int | None = None) -> Self:
        """pixparse/cc3m-wds: from a local copy's folder, or from the hub with the token in HF_TOKEN.

        Raises:
            DataError: no shard of the split in `root`; without `root`, no token.
        """
        if root is not None:
            return cls(str(Path(root) / CC3M_FILES[split]), name="cc3m", limit=limit)
        token = os.environ.get("HF_TOKEN")
        if not token:
            raise DataError(
                "dataset=cc3m streams from a hub that wants a token: set HF_TOKEN, "
                "or give the folder of a local copy with dataset.root=/path"
            )
        return cls(f"{CC3M_HUB}/{CC3M_SHARDS[split]}", name="cc3m", limit=limit, token=token)

    def fingerprint(self) -> str:
        """Names and sizes of local shards, names of remote ones, and how they are read."""
        shards = [
            (Path(shard).name, Path(shard).stat().st_size) if _is_local(shard) else (shard, None)
            for shard in self.shards
        ]
        seed = self.seed if self.captions == "random" else 0
        reading = (self.image_keys, self.caption_key, self.captions, self.label_keys, seed)
        return hashlib.sha256(repr((shards, reading)).encode()).hexdigest()[:16]

    def parts(self) -> list[str]:
        """The shards."""
        return self.shards

    def read(self, part: int) -> Iterator[ImageTextPair | SkippedPair]:
        """Stream one shard; a shard that breaks off ends early, and says so once."""
        try:
            with closing(self._open(self.shards[part])) as stream:
                for sample in _samples(stream):
                    yield from self._pairs(part, sample)
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            yield SkippedPair(
                self._stems[part], f"shard broken off ({type(error).__name__}): {Path(self.shards[part]).name}"
            )

    def fetch(self, key: str, locator: str = "") -> ImageTextPair:
        """Read one sample again: at its locator with one seek, without one after a look through its shard's headers."""
        stem, _, name = picture_key(key).partition("/")
        if stem not in self._stems:
            raise DataError(f"no pair {key!r} in {self.name}: no shard is called {stem or key!r}")
        part = self._stems.index(stem)
        offset = int(locator) if locator else self._offsets(part).get(name)
        if offset is not None:
            with closing(self._open(self.shards[part], offset)) as stream:
                sample = next(_samples(stream, offset), None)
            if sample is not None and sample.key == name:
                for pair in self._pairs(part, sample):
                    if isinstance(pair, ImageTextPair) and pair.key == key:
                        return pair
        raise DataError(
            f"no readable pair {key!r} in {self.shards[part]}: was the shard changed since it was extracted?"
        )

    def _pairs(self, part: int, sample: _Sample) -> Iterator[ImageTextPair | SkippedPair]:
        key = f"{self._stems[part]}/{sample.key}"
        data = next((sample.files[name] for name in self.image_keys if name in sample.files), None)
        if data is None:
            yield SkippedPair(key, "no image")
            return
        try:
            fields = _json_object(sample.files.get("json"))
            chosen = choose_captions(key, self._all_captions(sample, fields), self.captions, self.seed)
            if not chosen:
                yield SkippedPair(key, "no caption")
                return
            image = decode_image(data)
        except DataError as error:
            yield SkippedPair(key, str(error))
            return
        labels = {name: clean(str(fields[name])) for name in self.label_keys if name in fields}
        for pair_key, caption in chosen:
            yield ImageTextPair(pair_key, image, caption, labels, str(sample.offset))

    def _all_captions(self, sample: _Sample, fields: dict[str, Any]) -> list[str]:
        names = [self.caption_key] if self.caption_key else ["captions", "caption"]
        for name in names:
            value = fields.get(name)
            if isinstance(value, str):
                return [value]
            if isinstance(value, list):
                return [str(caption) for caption in value]
        if self.caption_key or "txt" not in sample.files:
            return []
        return [sample.files["txt"].decode("utf-8", errors="replace")]

    @lru_cache(maxsize=8)  # noqa: B019 - a source lives as long as its process
    def _offsets(self, part: int) -> dict[str, int]:
        with closing(self._open(self.shards[part])) as stream:
            return {sample.key: sample.offset for sample in _samples(stream, contents=False)}

    def _open(self, shard: str, offset: int = 0) -> IO[bytes]:
        """The shard's bytes from `offset` on."""
        if _is_local(shard):
            file = Path(shard).open("rb")  # noqa: SIM115 - the caller closes it
            file.seek(offset)
            return file
        if shard.startswith(("http://", "https://")):
            return self._request(shard, offset)
        stream = webdataset.gopen(shard)
        _skip(stream, offset)
        return stream

    def _request(self, url: str, offset: int) -> IO[bytes]:
        headers = {"User-Agent": "mmmono"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if offset:
            headers["Range"] = f"bytes={offset}-"
        try:
            response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            hint = ": set HF_TOKEN to a token that may read it" if error.code in (401, 403) else ""
            raise DataError(f"{url} answers {error.code} {error.reason}{hint}") from error
        except urllib.error.URLError as error:
            raise DataError(
                f"cannot reach {url} ({error.reason}): give local shards with dataset.shards=..."
            ) from error
        if offset and response.status != 206:  # the server ignores ranges
            _skip(response, offset)
        return response


def _expand(shards: str | Sequence[str]) -> list[str]:
    patterns = [shards] if isinstance(shards, str) else list(shards)
    found: list[str] = []
    for pattern in patterns:
        for url in expand_urls(pattern):
            matches = sorted(glob.glob(url)) if _is_local(url) and glob.has_magic(url) else [url]
            missing = [match for match in matches if _is_local(match) and not Path(match).is_file()]
            if missing or not matches:
                raise DataError(
                    f"dataset.shards={pattern} matches no file{f': {missing[0]} is not there' if missing else ''} "
                    f"(looked in {Path.cwd()}): give paths, URLs, or ranges such as 'data/train-{{0000..0004}}.tar'"
                )
            found += matches
    if not found:
        raise DataError("dataset.shards is empty: give paths or URLs of tar shards")
    return found


def _is_local(shard: str) -> bool:
    return ":" not in shard.split("/")[0]


def _stem(shard: str) -> str:
    return shard.rstrip("/").rsplit("/", 1)[-1].split("?")[0].removesuffix(".tar")


def _skip(stream: IO[bytes], count: int) -> None:
    while count > 0:
        data = stream.read(min(count, 1 << 20))
        if not data:
            raise EOFError(f"stream ended {count} bytes early")
        count -= len(data)


def _json_object(data: bytes | None) -> dict[str, Any]:
    if data is None:
        return {}
    try:
        value = json.loads(data)
    except ValueError as error:
        raise DataError("unreadable .json") from error
    return value if isinstance(value, dict) else {}


def _samples(stream: IO[bytes], base: int = 0, contents: bool = True) -> Iterator[_Sample]:
    """Samples of a tar stream; offsets count from the shard's beginning, where the stream begins at `base`."""
    sample: _Sample | None = None
    # Without contents a seekable shard is read header by header; a stream has to pass all of it either way.
    seekable = not contents and isinstance(stream, io.BufferedReader) and stream.seekable()
    with tarfile.open(fileobj=stream, mode="r:" if seekable else "r|") as tar:
        for member in tar:
            name, extension = base_plus_ext(member.name) if member.isfile() else (None, None)
            if not name or extension is None:
                continue
            if sample is None or sample.key != name:
                if sample is not None:
                    yield sample
                sample = _Sample(name, base + member.offset)
            if contents:
                file = tar.extractfile(member)
                assert file is not None
                data = file.read()
                if len(data) < member.size:
                    raise EOFError(f"{member.name} is cut off")
                sample.files[extension.lower()] = data
    if sample is not None:
        yield sample
