"""A model hub on loopback with a test's repositories: as much of the real protocol as fetches and uploads need."""

import base64
import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote

import pytest

REVISION = "0123456789abcdef0123456789abcdef01234567"
LARGE = 4096  # bytes; files of this size or more are in large storage


@dataclass
class Repo:
    """Files at one commit; `gated` and `private` repositories need the token."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    corrupted: dict[str, bytes] = field(default_factory=dict)  # content sent in place of a file's own


@dataclass
class Hub:
    """The server's repositories, `model/name` or `dataset/name`, how it fails, and a record of its requests."""

    repos: dict[str, Repo] = field(default_factory=dict)
    token: str = "hf_secretsecretsecret"
    login: str = ""  # user:password of the same account
    allowed: bool = True  # whether the token's account has access to gated repositories
    break_after: dict[str, int] = field(default_factory=dict)  # file: bytes after which the connection breaks, once
    requests: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)  # Range headers, in order
    tokens: list[str | None] = field(default_factory=list)
    downloads: dict[str, int] = field(default_factory=dict)  # how often each file was sent
    stored: dict[str, bytes] = field(default_factory=dict)  # large storage, by sha256
    forbidden: str = ""  # part of the path of an upload request that is refused
    stalled: str = ""  # a file of which only the first half is sent
    hostile: dict[str, Callable[["HubHandler"], object]] = field(
        default_factory=dict
    )  # by parts of paths: who responds
    url: str = ""

    def connect(self, monkeypatch: pytest.MonkeyPatch, token: str = "") -> None:
        """Make this the hub of huggingface_hub in this process, which was imported for another or for none."""
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent")
        monkeypatch.setenv("HF_TOKEN", token)

    def add(self, kind: str, name: str, folder: Path | None = None, **options) -> Repo:
        files = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()} if folder else {}
        self.repos[f"{kind}/{name}"] = Repo(files, **options)
        return self.repos[f"{kind}/{name}"]

    def __enter__(self) -> Self:
        hub = self

        class Handler(HubHandler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(
            target=self.server.serve_forever, args=[0.01], daemon=True
        ).start()  # s between looks for its end
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class HubHandler(BaseHTTPRequestHandler):
    """Responses of the hub; errors have the codes that huggingface_hub checks."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.respond(send=False)

    def do_GET(self) -> None:
        self.respond()

    def do_POST(self) -> None:
        chunked = self.headers.get("transfer-encoding") == "chunked"
        self.upload(b"".join(self.chunks()) if chunked else self.rfile.read(int(self.headers["content-length"])))

    do_PUT = do_POST

    def chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def upload(self, body: bytes) -> None:
        """Create a repository, accept large files one by one, and small ones with the commit."""
        self.hub.requests.append(f"{self.command} {self.path}")
        if self.is_hostile():
            return None
        if self.bearer() != self.hub.token and not self.path.startswith("/store/"):
            return self.error(401, "")
        if self.hub.forbidden and self.hub.forbidden in self.path:
            return self.error(403, "")
        if self.path == "/api/validate-yaml":
            return self.json(200, {"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request['organization']}/{request['name']}"
            if f"model/{name}" in self.hub.repos:
                return self.error(409, "")
            self.hub.add("model", name, private=request["visibility"] == "private")
            return self.json(200, {"url": f"{self.hub.url}/{name}"})
        if self.path.startswith("/store/"):
            self.hub.stored[self.path.removeprefix("/store/")] = body
            return self.json(200, {})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [{**entry, **self.upload_actions(entry["oid"])} for entry in json.loads(body)["objects"]]
            return self.json(200, {"transfer": "basic", "objects": objects})
        if "/preupload/" in self.path:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] >= LARGE else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self.json(200, {"files": files})
        return self.commit(re.fullmatch(r"/api/models/(.+)/commit/main", self.path)[1], body)

    def upload_actions(self, oid: str) -> dict:
        actions = {"upload": {"href": f"{self.hub.url}/store/{oid}", "header": {}}}
        return {} if oid in self.hub.stored else {"actions": actions}

    def commit(self, name: str, body: bytes) -> None:
        files = self.hub.repos[f"model/{name}"].files
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            if line["key"] == "deletedFile":
                del files[value["path"]]
        self.json(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{REVISION}", "commitOid": REVISION})

    def respond(self, send: bool = True) -> None:
        hub = self.hub
        hub.requests.append(f"{self.command} {self.path}")
        bearer = self.bearer()
        hub.tokens.append(bearer)
        if self.is_hostile():
            return
        if match := re.fullmatch(r"/api/(model|dataset)s/(.+?)/tree/(\w+)(?:\?.*)?", self.path):
            if repo := self.accessible(*match.groups(), bearer):
                sizes = {path: len(content) for path, content in repo.files.items()}
                self.json(200, [{"type": "file", "path": p, "size": size, "oid": "0"} for p, size in sizes.items()])
            return
        if match := re.fullmatch(r"/api/(model|dataset)s/(.+?)/auth-check", self.path):
            if self.accessible(*match.groups(), None, bearer):
                self.json(200, {})
            return
        if match := re.fullmatch(r"/api/(model|dataset)s/(.+?)(?:/revision/([^?/]+))?(?:\?.*)?", self.path):
            kind, name, revision = match.groups()
            if repo := self.accessible(kind, name, revision, bearer, listing=True):
                self.json(200, self.info(name, repo))
            return
        if match := re.fullmatch(r"(/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+?)(?:\?.*)?", self.path):
            dataset, name, revision, path = match.groups()
            if repo := self.accessible("dataset" if dataset else "model", name, revision, bearer):
                self.file(repo, unquote(path), send)
            return
        self.error(404, "EntryNotFound")

    def is_hostile(self) -> bool:
        """Whether a test's own response was sent."""
        replies = [reply for part, reply in self.hub.hostile.items() if part in self.path]
        for reply in replies[:1]:
            reply(self)
        return bool(replies)

    def bearer(self) -> str | None:
        """The token of the request, also for its account's user and password."""
        header = self.headers.get("authorization") or ""
        basic = f"Basic {base64.b64encode(self.hub.login.encode()).decode()}"
        return self.hub.token if self.hub.login and header == basic else header.removeprefix("Bearer ") or None

    def accessible(self, kind: str, name: str, revision: str | None, bearer: str | None, listing: bool = False):
        """The repository, or None after sending an error. A gated repository's files may be listed by all."""
        repo, has_token = self.hub.repos.get(f"{kind}/{name}"), bearer == self.hub.token
        if repo is None or (repo.private and not has_token):
            self.error(404 if bearer else 401, "RepoNotFound")
        elif revision not in (None, "main", REVISION):
            self.error(404, "RevisionNotFound")
        elif repo.gated and not listing and not (has_token and self.hub.allowed):
            self.error(403 if has_token else 401, "GatedRepo")
        else:
            return repo
        return None

    def info(self, name: str, repo: Repo) -> dict:
        siblings = []
        for path, content in sorted(repo.files.items()):
            sibling = {"rfilename": path, "size": len(content), "blobId": blob(content)}
            if len(content) >= LARGE:
                checksum = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": checksum, "size": len(content), "pointerSize": 134}
            siblings.append(sibling)
        info = {"id": name, "modelId": name, "sha": REVISION, "private": repo.private, "gated": repo.gated}
        return {**info, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings}

    def file(self, repo: Repo, path: str, send: bool) -> None:
        if path not in repo.files:
            return self.error(404, "EntryNotFound")
        content = repo.corrupted.get(path, repo.files[path])
        byte_range, start = self.headers.get("range"), 0
        if byte_range and send:
            self.hub.ranges.append(byte_range)
            start = int(re.fullmatch(r"bytes=(\d+)-.*", byte_range)[1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not send:
            return None
        stop = self.hub.break_after.pop(path, None)
        body = content[start:] if stop is None else content[start : max(start, stop)]
        self.hub.downloads[path] = self.hub.downloads.get(path, 0) + 1
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        while self.hub.stalled == path:
            time.sleep(0.01)
        self.wfile.write(body[len(body) // 2 :])
        if stop is not None:
            self.close_connection = True
        return None

    def json(self, status: int, value: object) -> None:
        self.body(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def error(self, status: int, code: str) -> None:
        self.body(status, b"{}", {"X-Error-Code": code, "X-Error-Message": f"{code}, {self.hub.token}"})

    def endless(self, content: bytes, status: int = 200) -> None:
        """Send `content` again and again until the client hangs up."""
        self.send_response(status)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(content * 65536)

    def stall(self, content: bytes = b"") -> None:
        """Send the beginning of a body, and no more until the client hangs up."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.rfile.read(1)

    def drip(self, content: bytes, seconds: float) -> None:
        """Send a body byte by byte, with so much time between them, and without its length."""
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            for byte in content:
                self.wfile.write(bytes([byte]))
                time.sleep(seconds)

    def body(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def blob(content: bytes) -> str:
    """Git's id of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
