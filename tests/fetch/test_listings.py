"""Listings of a hostile or broken hub: refused in one line before anything of them is used."""

import json
from pathlib import Path

import hub as loopback
import pytest
from attacks import attack

from wspin.errors import StudyError
from wspin.fetch import downloads
from wspin.manage import revisions

PLACE = f"lab/tiny@{loopback.REVISION}"
BLOB, SHA256 = "a" * 40, "b" * 64
FILE = {"rfilename": "config.json", "size": 16, "blobId": BLOB}


def listing(*files, **changes):
    """The response of a hub with these files."""
    return lambda handler: handler.json(200, {"id": "x", "sha": loopback.REVISION, "siblings": files, **changes})


def refusal(fetched):
    with pytest.raises(StudyError) as refused:
        fetched()
    assert len(refused.value.args) == 1
    return str(refused.value)


@attack(
    "paths",
    "a listing with a file's path as its checksum, which the fetch would append to and delete",
    "lab/tiny@0123456789abcdef0123456789abcdef01234567: expected metadata of {url}, found siblings.0.lfs.sha256: String"
    " should match pattern '^[0-9a-f]{{64}}$'; check HF_ENDPOINT and the proxy, and report to the hub or mirror",
)
def test_a_checksum_is_no_path(tiny, fetched, tmp_path, outcome):
    victim = tmp_path / "bashrc"
    victim.write_text("alias")
    tiny.hostile["/api/"] = listing({**FILE, "lfs": {"sha256": str(victim)}})
    assert refusal(fetched) == outcome.format(url=tiny.url)
    assert victim.read_text() == "alias"
    assert not [request for request in tiny.requests if "resolve" in request]


@attack(
    "paths",
    "listed files named `/etc/x`, `../x`, `a\\..\\b` or with a line end",
    "refused before the first file is fetched, in a line with the repository and the name",
)
@pytest.mark.parametrize("name", ["../x", "..x", "x/../y", "a\\..\\b", "a\nb", "a/", "", None])
def test_a_name_that_leaves_the_folder(tiny, fetched, tmp_path, name):
    name = str(tmp_path / "escaped") if name is None else name
    tiny.hostile["/api/"] = listing(FILE, {**FILE, "rfilename": name})
    tiny.hostile["/resolve/"] = lambda handler: handler.body(200, b"{}" * 8, {})
    message = refusal(fetched)
    assert message.startswith(f"{PLACE}: {name[:60]}".replace("\n", "\\n"))  # a long name is cut
    assert ": expected the name of a file below its folder, found" in message
    assert not [request for request in tiny.requests if "resolve" in request]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [next(tmp_path.rglob("*.lock"))]


@attack("paths", "listed files named `.git/hooks/post-checkout` or `x/.bashrc`", "not fetched: they are hidden")
@pytest.mark.parametrize("name", [".git/hooks/post-checkout", "x/.bashrc"])
def test_hidden_files_are_not_fetched(tiny, fetched, name):
    tiny.repos["dataset/lab/tiny"].files[name] = b"rm"
    assert set(fetched("*")) == {"config.json", "rows.txt"}


@attack(
    "paths",
    "listed files that are one on some file systems: `Config.json` beside `config.json`, `a` beside `a/b`",
    "refused before the first file is fetched, in a line with the repository and the name",
)
@pytest.mark.parametrize("name", ["Config.JSON", "config.json", "config.json/x"])
def test_names_that_collide(tiny, fetched, name):
    tiny.hostile["/api/"] = listing({**FILE, "rfilename": name}, FILE)
    assert refusal(fetched).startswith(f"{PLACE}: ")
    assert not [request for request in tiny.requests if "resolve" in request]


@pytest.mark.parametrize("entry", [{"size": None, "blobId": BLOB}, {"size": 16}, {"size": 16, "blobId": None}])
def test_a_mirror_may_not_know_files_that_are_not_fetched(tiny, fetched, entry):
    own = {**FILE, "blobId": loopback.blob(b"{}" * 8)}
    tiny.hostile["/api/"] = listing(own, {"rfilename": "rows.txt", **entry})
    assert list(fetched("config.json")) == ["config.json"]
    expected = f"{PLACE}: expected size and checksum of rows.txt in the metadata of {tiny.url}, found none"
    assert refusal(fetched).startswith(expected)


def test_names_of_other_files_do_not_matter(tiny, fetched):
    tiny.hostile["/api/"] = listing(
        {**FILE, "blobId": loopback.blob(b"{}" * 8)}, {**FILE, "rfilename": "../.gitattributes"}
    )
    assert list(fetched("config.json")) == ["config.json"]


@attack(
    "malformed",
    "listings that are HTML, cut off, 200,000 nested brackets, without keys, with nulls or other types",
    "one line with the repository, the hub and the entry that is wrong",
)
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"<html>Log in</html>", "Invalid JSON: expected value at line 1 column 1"),
        (b"", "Invalid JSON: EOF while parsing a value at line 1 column 0"),
        (b'{"sha": "0', "Invalid JSON: EOF while parsing a string at line 1 column 10"),
        (b"[" * 200_000, "Invalid JSON: recursion limit exceeded at line 1 column 202"),
        (b'{"tags": ' + b"[" * 200_000, "Invalid JSON: recursion limit exceeded at line 1 column 210"),
        (b"\xff\xfe{}", "Invalid JSON: expected value at line 1 column 1"),
        ([FILE], "Input should be an object"),
        (b'{"siblings": []}', "sha: Field required"),
        ({}, "siblings: Field required"),
        ({"siblings": None}, "siblings: Input should be a valid array"),
        ({"siblings": [None]}, "siblings.0: Input should be an object"),
        ({"siblings": [{**FILE, "rfilename": None}]}, "siblings.0.rfilename: Input should be a valid string"),
        ({"siblings": [FILE, {"size": 1, "blobId": BLOB}]}, "siblings.1.rfilename: Field required"),
        ({"siblings": [{**FILE, "size": True}]}, "siblings.0.size: Input should be a valid integer"),
        ({"siblings": [{**FILE, "size": "16"}]}, "siblings.0.size: Input should be a valid integer"),
        ({"siblings": [{**FILE, "size": -1}]}, "siblings.0.size: Input should be greater than or equal to 0"),
        ({"siblings": [{**FILE, "size": 10**400}]}, "siblings.0.size: Input should be less than 9223372036854775808"),
        ({"siblings": [{**FILE, "blobId": BLOB.upper()}]}, "siblings.0.blobId: String should match pattern"),
        ({"siblings": [{**FILE, "blobId": BLOB + "\n"}]}, "siblings.0.blobId: String should match pattern"),
        ({"siblings": [{**FILE, "lfs": True}]}, "siblings.0.lfs: Input should be an object"),
        ({"siblings": [{**FILE, "lfs": {}}]}, "siblings.0.lfs.sha256: Field required"),
        ({"siblings": [{**FILE, "lfs": {"sha256": BLOB}}]}, "siblings.0.lfs.sha256: String should match pattern"),
        ({"siblings": [FILE], "sha": "f" * 40}, f"those of commit {'f' * 40}"),
    ],
)
def test_a_malformed_listing(tiny, fetched, content, found):
    if isinstance(content, dict):
        content = {"sha": loopback.REVISION, **content}
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    tiny.hostile["/api/"] = lambda handler: handler.body(200, body, {})
    assert refusal(fetched).startswith(f"{PLACE}: expected metadata of {tiny.url}, found {found}")


@attack(
    "malformed",
    "a listing without an end",
    "lab/tiny@0123456789abcdef0123456789abcdef01234567: expected at most 1000 bytes of metadata, found more; run again,"
    " and report to the hub or mirror if it repeats",
)
def test_an_endless_listing(tiny, fetched, monkeypatch, outcome):
    monkeypatch.setattr(downloads, "LARGEST_LISTING", 1000)
    tiny.hostile["/api/"] = lambda handler: handler.endless(b"[")
    assert refusal(fetched) == outcome


@attack(
    "malformed",
    "an error with a body that is endless, compressed or no object",
    "one line with its status; the body is not read",
)
@pytest.mark.parametrize("content", [None, b"[1]", b'{"errors": 7}', b"[" * 200_000])
def test_the_body_of_an_error_is_not_read(tiny, fetched, content):
    def respond(handler):
        return handler.endless(b"x", 500) if content is None else handler.body(500, content, {})

    tiny.hostile["/api/"] = respond
    message = f"{PLACE}: expected a response from {tiny.url}, found HTTP status 500 (no HF_TOKEN is set); try again"
    assert refusal(fetched).startswith(message)


@attack("malformed", "a listing that stalls", "one line after a time limit without progress")
def test_a_stalled_listing(tiny, fetched, monkeypatch):
    monkeypatch.setattr(downloads, "STALLED", 0.2)
    tiny.hostile["/api/"] = lambda handler: handler.stall()
    assert refusal(fetched).startswith(f"{PLACE}: expected to reach {tiny.url}, found ReadTimeout; check the network")


@attack(
    "malformed",
    "a commit that is no commit, for the lock file of revisions: `main`, `../x`",
    "lab/tiny@main: expected metadata of {url}, found sha: String should match pattern '^[0-9a-f]{{40}}$'; check"
    " HF_ENDPOINT and the proxy, and report to the hub or mirror",
)
@pytest.mark.parametrize("commit", ["main", f"{'a' * 40}\nmodel: {{}}"])
def test_a_commit_is_checked_before_it_is_written(tiny, tmp_path, monkeypatch, commit, outcome):
    (tmp_path / "config").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(revisions, "merge_files", lambda files: {})
    monkeypatch.setattr(revisions, "unpinned", lambda mapping: {("dataset", "lab/tiny")})
    tiny.hostile["/api/"] = listing(sha=commit)
    with pytest.raises(StudyError) as refused:
        list(revisions.pin([], []))
    assert str(refused.value) == outcome.format(url=tiny.url)
    assert list(Path("config").iterdir()) == []
