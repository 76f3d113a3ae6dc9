"""A hub on loopback, of repositories that a test makes: enough of the real one's protocol for fetches and uploads."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REVISION = "0123456789abcdef0123456789abcdef01234567"
LARGE = 4096  # bytes from which on a file lies in large storage


@dataclass
class Repo:
    """Files at one commit; `gated` and `private` ones are shown to those who bring the token."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    lies: dict[str, bytes] = field(default_factory=dict)  # what is sent in place of a file's content


@dataclass
class Hub:
    """The server's repositories, `model/name` or `dataset/name`, and what it was asked."""

    repos: dict[str, Repo] = field(default_factory=dict)
    token: str = "hf_secretsecretsecret"
    allowed: bool = True  # whether the token's account has access to gated repositories
    cut: dict[str, int] = field(default_factory=dict)  # file: bytes after which the connection breaks, once
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)  # Range headers, in order
    tokens: list[str | None] = field(default_factory=list)
    times: dict[str, int] = field(default_factory=dict)  # how often each file was sent
    stored: dict[str, bytes] = field(default_factory=dict)  # large storage, by sha256
    refuses: str = ""  # an upload's step, by a part of its path, that is forbidden
    held: str = ""  # a file whose second half is kept back
    url: str = ""

    def add(self, kind: str, name: str, folder: Path | None = None, **options) -> Repo:
        files = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()} if folder else {}
        self.repos[f"{kind}/{name}"] = Repo(files, **options)
        return self.repos[f"{kind}/{name}"]

    def __enter__(self) -> Hub:
        hub = self

        class Handler(Answers):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class Answers(BaseHTTPRequestHandler):
    """What the hub answers; errors carry the codes that huggingface_hub looks at."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(send=False)

    def do_GET(self) -> None:
        self.answer()

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
        """A repository is made; large files are asked for, sent and stored; small ones come with the commit."""
        self.hub.asked.append(f"{self.command} {self.path}")
        if self.headers.get("authorization") != f"Bearer {self.hub.token}" and not self.path.startswith("/store/"):
            return self.error(401, "")
        if self.hub.refuses and self.hub.refuses in self.path:
            return self.error(403, "")
        if self.path == "/api/validate-yaml":
            return self.json(200, {"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given['organization']}/{given['name']}"
            if f"model/{name}" in self.hub.repos:
                return self.error(409, "")
            self.hub.add("model", name, private=given["visibility"] == "private")
            return self.json(200, {"url": f"{self.hub.url}/{name}"})
        if self.path.startswith("/store/"):
            self.hub.stored[self.path.removeprefix("/store/")] = body
            return self.json(200, {})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [{**one, **self.store(one["oid"])} for one in json.loads(body)["objects"]]
            return self.json(200, {"transfer": "basic", "objects": objects})
        if "/preupload/" in self.path:
            modes = {one["path"]: "lfs" if one["size"] >= LARGE else "regular" for one in json.loads(body)["files"]}
            files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
            return self.json(200, {"files": files})
        return self.commit(re.fullmatch(r"/api/models/(.+)/commit/main", self.path)[1], body)

    def store(self, oid: str) -> dict:
        place = {"upload": {"href": f"{self.hub.url}/store/{oid}", "header": {}}}
        return {} if oid in self.hub.stored else {"actions": place}

    def commit(self, name: str, body: bytes) -> None:
        files = self.hub.repos[f"model/{name}"].files
        for line in map(json.loads, body.splitlines()):
            given = line["value"]
            if line["key"] == "file":
                files[given["path"]] = base64.b64decode(given["content"])
            if line["key"] == "lfsFile":
                files[given["path"]] = self.hub.stored[given["oid"]]
            if line["key"] == "deletedFile":
                del files[given["path"]]
        self.json(200, {"commitUrl": f"{self.hub.url}/{name}/commit/{REVISION}", "commitOid": REVISION})

    def answer(self, send: bool = True) -> None:
        hub = self.hub
        hub.asked.append(f"{self.command} {self.path}")
        bearer = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
        hub.tokens.append(bearer)
        if found := re.fullmatch(r"/api/(model|dataset)s/(.+?)/tree/(\w+)(?:\?.*)?", self.path):
            if repo := self.allowed(*found.groups(), bearer):
                sizes = {path: len(content) for path, content in repo.files.items()}
                self.json(200, [{"type": "file", "path": p, "size": size, "oid": "0"} for p, size in sizes.items()])
            return
        if found := re.fullmatch(r"/api/(model|dataset)s/(.+?)/auth-check", self.path):
            if self.allowed(*found.groups(), None, bearer):
                self.json(200, {})
            return
        if found := re.fullmatch(r"/api/(model|dataset)s/(.+?)(?:/revision/([^?/]+))?(?:\?.*)?", self.path):
            kind, name, revision = found.groups()
            if repo := self.allowed(kind, name, revision, bearer, about=True):
                self.json(200, self.described(name, repo))
            return
        if found := re.fullmatch(r"(/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+?)(?:\?.*)?", self.path):
            dataset, name, revision, path = found.groups()
            if repo := self.allowed("dataset" if dataset else "model", name, revision, bearer):
                self.file(repo, path, send)
            return
        self.error(404, "EntryNotFound")

    def allowed(self, kind: str, name: str, revision: str | None, bearer: str | None, about: bool = False):
        """The repository, or None after an error was sent. What a gated repository holds may be listed by anybody."""
        repo, known = self.hub.repos.get(f"{kind}/{name}"), bearer == self.hub.token
        if repo is None or (repo.private and not known):
            self.error(404 if bearer else 401, "RepoNotFound")
        elif revision not in (None, "main", REVISION):
            self.error(404, "RevisionNotFound")
        elif repo.gated and not about and not (known and self.hub.allowed):
            self.error(403 if known else 401, "GatedRepo")
        else:
            return repo
        return None

    def described(self, name: str, repo: Repo) -> dict:
        siblings = []
        for path, content in sorted(repo.files.items()):
            one = {"rfilename": path, "size": len(content), "blobId": blob(content)}
            if len(content) >= LARGE:
                checksum = hashlib.sha256(content).hexdigest()
                one["lfs"] = {"sha256": checksum, "size": len(content), "pointerSize": 134}
            siblings.append(one)
        told = {"id": name, "modelId": name, "sha": REVISION, "private": repo.private, "gated": repo.gated}
        return {**told, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings}

    def file(self, repo: Repo, path: str, send: bool) -> None:
        if path not in repo.files:
            return self.error(404, "EntryNotFound")
        content = repo.lies.get(path, repo.files[path])
        asked, start = self.headers.get("range"), 0
        if asked and send:
            self.hub.ranges.append(asked)
            start = int(re.fullmatch(r"bytes=(\d+)-.*", asked)[1])
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
        stop = self.hub.cut.pop(path, None)
        body = content[start:] if stop is None else content[start : max(start, stop)]
        self.hub.times[path] = self.hub.times.get(path, 0) + 1
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        while self.hub.held == path:
            time.sleep(0.01)
        self.wfile.write(body[len(body) // 2 :])
        if stop is not None:
            self.close_connection = True
        return None

    def json(self, status: int, value: object) -> None:
        self.body(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def error(self, status: int, code: str) -> None:
        self.body(status, b"{}", {"X-Error-Code": code, "X-Error-Message": f"{code}, {self.hub.token}"})

    def body(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def blob(content: bytes) -> str:
    """Git's id of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
