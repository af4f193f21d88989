"""An S3 server on loopback: as much of the protocol as reading takes, on top of the server that fails when asked to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.data.flaky_server import FlakyServer, Handler, Request, serving

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class S3Server(FlakyServer):
    """Serves `files` by `/bucket/key`; buckets are those of its files. `private` ones are refused."""

    def __init__(self) -> None:
        super().__init__(S3Handler)
        self.private: set[str] = set()


class S3Handler(Handler):
    server: S3Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.path = unquote(parts.path)
        bucket, _, key = self.path.lstrip("/").partition("/")
        if bucket in self.server.private:
            self._refuse(403, "AccessDenied")
        elif not any(path.startswith(f"/{bucket}/") for path in self.server.files):
            self._refuse(404, "NoSuchBucket")
        elif not key:
            self._list(bucket, {name: values[0] for name, values in parse_qs(parts.query).items()})
        elif self.path not in self.server.files:
            self._refuse(404, "NoSuchKey")
        elif self.command == "HEAD":
            self.request_ = Request(self.path, None, None)
            data = self.server.files[self.path]
            self._answer(200, {"Content-Length": str(len(data)), "ETag": f'"{_tag(data)}"'})
        else:
            super().do_GET()

    def _list(self, bucket: str, asked: dict[str, str]) -> None:
        prefix, start = asked.get("prefix", ""), f"/{bucket}/"
        keys = sorted(path.removeprefix(start) for path in self.server.files if path.startswith(start + prefix))
        folders = sorted(
            {prefix + key.removeprefix(prefix).partition("/")[0] + "/" for key in keys if "/" in key[len(prefix) :]}
        )
        if asked.get("delimiter"):
            keys = [key for key in keys if "/" not in key[len(prefix) :]]
        objects = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>&quot;{_tag(data)}&quot;</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified><StorageClass>STANDARD</StorageClass></Contents>"
            for key in keys
            for data in [self.server.files[start + key]]
        )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in folders)
        self._xml(
            200,
            f'<ListBucketResult xmlns="{NAMESPACE}"><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>'
            f"<KeyCount>{len(keys)}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{objects}{common}"
            "</ListBucketResult>",
        )

    def _refuse(self, status: int, code: str) -> None:
        self._xml(status, f"<Error><Code>{code}</Code><Message>{code} of a test</Message></Error>")

    def _xml(self, status: int, text: str) -> None:
        body = b"" if self.command == "HEAD" else text.encode()
        self.request_ = Request(self.path, None, None)
        self._answer(status, {"Content-Type": "application/xml", "Content-Length": str(len(body))})
        self.wfile.write(body)


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Serve until the context ends."""
    with serving(S3Server()) as server:
        yield server
