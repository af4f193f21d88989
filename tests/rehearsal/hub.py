"""A model hub on loopback that the rehearsal talks to, with a content server and a judge.

The hub answers as huggingface.co does: repositories have commits, small files come from the hub, large ones by a redirect to
a signed address on another host, which refuses a request that still carries credentials. Gated repositories want the token.
A repository is a folder, `<root>/models/<organization>/<name>` or `<root>/datasets/<organization>/<name>`:

Repositories can be made and written to, with the token; `no-write/` refuses it.

- `.gated` in it makes it gated;
- `.repeat.json`, `{"cc3m-train-{:04d}.tar": 576}`, lets the files of that pattern that are there stand for as many names.

The judge speaks OpenAI's protocol and answers by a digest of the question, so that equal questions have equal answers.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.rehearsal.serving import Fault, Handler, Request, serve

TOKEN = "hf_of_the_rehearsal"
COMMIT = hashlib.sha1(b"rehearsal").hexdigest()
LARGE = {".safetensors", ".bin", ".tar", ".pt", ".ckpt"}

FaultPlan = Callable[[str, str, str, int], Fault | None]


class Hub:
    """The servers as a context manager.

    Args:
        root: folder of the repositories.
        faults: is asked before each answer with the server (`hub`, `content`, `judge`), the method, the path and how often
            that path was asked for before; None answers well.
        ports: of the three servers; 0 takes a free one.

    Attributes:
        url: of the hub, for HF_ENDPOINT.
        judge_url: of the judge.
        requests: those that were answered.
        ports: of hub, content and judge.
    """

    def __init__(self, root: Path, faults: FaultPlan | None = None, ports: Sequence[int] = (0, 0, 0)) -> None:
        self.root = root
        self.faults = faults
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self._asked: Counter[tuple[str, str, str]] = Counter()
        self._etags: dict[Path, str] = {}
        handlers = (_HubHandler, _ContentHandler, _JudgeHandler)
        self._servers = [serve(handler, self, port) for handler, port in zip(handlers, ports, strict=True)]
        self.ports = ports = [server.server_address[1] for server in self._servers]
        self.url = f"http://127.0.0.1:{ports[0]}"
        self.content_url = f"http://localhost:{ports[1]}"  # another host for clients, as a content network is
        self.judge_url = f"http://127.0.0.1:{ports[2]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def repository(self, kind: str, name: str) -> Path | None:
        """Its folder, if there is one."""
        folder = self.root / kind / name
        return folder if folder.is_dir() else None

    def files(self, folder: Path) -> dict[str, Path]:
        """Files of a repository by name, repeated ones under all their names."""
        found = {
            str(path.relative_to(folder)): path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith((".gated", ".repeat"))
        }
        repeats = folder / ".repeat.json"
        for pattern, count in (json.loads(repeats.read_text()) if repeats.exists() else {}).items():
            names = [pattern.format(number) for number in range(count)]
            there = [found[name] for name in names if name in found]
            found |= {name: there[number % len(there)] for number, name in enumerate(names)}
        return found

    def etag(self, path: Path) -> str:
        """As the hub has it: of large files the SHA-256, of small ones git's."""
        with self.lock:
            if path not in self._etags:
                data = path.read_bytes()
                large = hashlib.sha256(data).hexdigest()
                small = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                self._etags[path] = large if is_large(path) else small
            return self._etags[path]

    def fault(self, server: str, method: str, path: str) -> Fault | None:
        """What goes wrong with this request."""
        with self.lock:
            before = self._asked[server, method, path]
            self._asked[server, method, path] += 1
        return self.faults(server, method, path, before) if self.faults else None


def is_large(path: Path) -> bool:
    """Whether a file comes from the content server."""
    return path.suffix in LARGE


class _OfHub(Handler):
    @property
    def hub(self) -> Hub:
        hub: Hub = self.log
        return hub


class _HubHandler(_OfHub):
    server_name = "hub"

    def answer(self) -> None:
        path = self.plain_path
        if path == "/":
            return self.reply(200, b"<html>a hub</html>", {"Content-Type": "text/html"})
        if path == "/api/whoami-v2":
            return self.json({"name": "rehearsal"}) if self._authorized else self.json({"error": "Invalid"}, 401)
        if self.command == "POST" and (path == "/api/repos/create" or "/preupload/" in path or "/commit/" in path):
            return self._write(path)
        if path == "/api/validate-yaml":
            return self.json({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/resolve-cache/(models|datasets)/([^/]+/[^/]+)/[0-9a-f]{40}/(.+)", path):
            return self._file(match[1], match[2], match[3])
        if match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(/.*)?", path):
            return self._api(match[1], match[2], match[3] or "")
        if match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return self._file("datasets" if match[1] else "models", match[2], match[3])
        self.json({"error": "Not Found"}, 404)

    @property
    def _authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, kind: str, name: str) -> Path | None:
        """Its folder; None once a refusal is sent."""
        folder = self.hub.repository(kind, name)
        if self.headers.get("Authorization") and not self._authorized:
            self.json({"error": "Invalid credentials in Authorization header"}, 401)
            return None
        if folder is None:
            self.json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return None
        if (folder / ".gated").exists() and not self._authorized:
            message = f"Access to {name} is restricted. You must have access to it and be authenticated to access it."
            self.json({"error": message}, 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": message})
            return None
        return folder

    def _write(self, path: str) -> None:
        """Make a repository, say that all files are small, or take a commit: one JSON object a line."""
        if not self._authorized:
            return self.json({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            asked = json.loads(self.body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            if name.startswith("no-write/"):
                return self.json({"error": "You don't have the rights to create a model under this namespace"}, 403)
            (self.hub.root / "models" / name).mkdir(parents=True, exist_ok=True)
            return self.json({"url": f"{self.hub.url}/{name}", "name": name})
        _, _, kind, organization, name, step, *_ = path.split("/")
        folder = self.hub.root / kind / organization / name
        if step == "preupload":
            way = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            return self.json({"files": [{"path": file["path"], **way} for file in json.loads(self.body)["files"]]})
        for line in filter(None, self.body.decode().split("\n")):
            entry = json.loads(line)
            if entry["key"] == "file":
                file = folder / entry["value"]["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(base64.b64decode(entry["value"]["content"]))
            elif entry["key"] == "deletedFile":
                (folder / entry["value"]["path"]).unlink()
        address = f"{self.hub.url}/{organization}/{name}/commit/{COMMIT}"
        self.json({"success": True, "commitOid": COMMIT, "commitUrl": address, "pullRequestUrl": None})

    def _api(self, kind: str, name: str, rest: str) -> None:
        folder = self._repository(kind, name)
        if folder is None:
            return
        files = self.hub.files(folder)
        if rest.startswith("/tree/"):
            under = "/".join(rest.split("/")[3:])
            return self.json([self._entry(n, p) for n, p in files.items() if n.startswith(under)])
        if rest.startswith("/paths-info/"):
            asked = json.loads(self.body).get("paths", []) if self.command == "POST" else []
            return self.json([self._entry(name, files[name]) for name in asked if name in files])
        if rest == "" or rest.startswith("/revision/"):
            siblings = [{"rfilename": n, "size": p.stat().st_size} for n, p in files.items()]
            return self.json(
                {
                    "id": name, "_id": "0", "sha": COMMIT, "private": False, "disabled": False, "tags": [], "downloads": 1,
                    "gated": "auto" if (folder / ".gated").exists() else False, "likes": 0, "siblings": siblings,
                    "lastModified": "2023-12-15T00:00:00.000Z", "createdAt": "2023-12-14T00:00:00.000Z",
                }
            )  # fmt: skip
        self.json({"error": "Not Found"}, 404)

    def _entry(self, name: str, path: Path) -> dict[str, Any]:
        size, etag = path.stat().st_size, self.hub.etag(path)
        large = {"lfs": {"oid": etag, "size": size, "pointerSize": 134}} if is_large(path) else {}
        return {"type": "file", "oid": etag[:40], "size": size, "path": name, **large}

    def _file(self, kind: str, name: str, file: str) -> None:
        folder = self._repository(kind, name)
        if folder is None:
            return
        path = self.hub.files(folder).get(file)
        if path is None:
            return self.json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        etag = f'"{self.hub.etag(path)}"'
        headers = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": etag, "X-Linked-Size": str(path.stat().st_size)}
        if not is_large(path):
            return self.send_file(path, {**headers, "ETag": etag})
        where = urllib.parse.quote(f"/{kind}/{name}/{file}")
        signature = f"Expires={int(time.time())}&Signature={hashlib.sha1(where.encode()).hexdigest()}"
        self.reply(302, headers={**headers, "Location": f"{self.hub.content_url}{where}?{signature}"})


class _ContentHandler(_OfHub):
    server_name = "content"

    def answer(self) -> None:
        if self.headers.get("Authorization"):  # as a presigned address does
            return self.reply(400, b"<Error><Code>InvalidArgument</Code></Error>", {"Content-Type": "application/xml"})
        kind, organization, name, *rest = self.plain_path.strip("/").split("/")
        folder = self.hub.repository(kind, f"{organization}/{name}")
        path = self.hub.files(folder).get("/".join(rest)) if folder else None
        if path is None:
            return self.reply(403)
        self.send_file(path, {"ETag": f'"{self.hub.etag(path)}"', "Content-Type": "binary/octet-stream"})


class _JudgeHandler(Handler):
    server_name = "judge"
    words: Sequence[str] = ("yes", "No.", "no", "**Yes**", "I think that it partly does.")

    def answer(self) -> None:
        if not self.plain_path.endswith("/chat/completions"):
            return self.json({"error": {"message": "not here"}}, 404)
        asked = json.loads(self.body)
        digest = hashlib.sha1(asked["messages"][-1]["content"].encode()).digest()
        message = {"role": "assistant", "content": self.words[digest[0] % len(self.words)]}
        self.json(
            {
                "id": "1", "object": "chat.completion", "created": int(time.time()), "model": asked["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        )  # fmt: skip
