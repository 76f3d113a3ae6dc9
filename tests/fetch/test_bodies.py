"""Bodies of a hostile or broken hub: never more than the listed bytes, and one line for each that is another."""

import gzip
import re
import resource

import hub as loopback
import pytest
from attacks import attack

from wspin.errors import StudyError
from wspin.fetch import downloads

CONTENT = b"{}" * 8
ROWS = b"0123456789" * 1000
PLACE = f"lab/tiny@{loopback.REVISION}: config.json"


def refusal(fetched, file="config.json"):
    with pytest.raises(StudyError) as refused:
        fetched(file)
    assert len(refused.value.args) == 1
    return str(refused.value)


def written(folder):
    """The unfinished files in a state folder."""
    return [file.read_bytes() for file in folder.rglob("partial/*")]


@attack(
    "downloads",
    "a body without an end",
    "lab/tiny@0123456789abcdef0123456789abcdef01234567: config.json: expected 16 bytes, found more; it is deleted: run"
    " again, and report to the hub or mirror if it repeats",
)
def test_an_endless_body(tiny, fetched, tmp_path, outcome):
    tiny.hostile["/resolve/"] = lambda handler: handler.endless(b"x")
    assert refusal(fetched) == outcome
    assert written(tmp_path) == []


@attack(
    "downloads",
    "a longer body than listed",
    "lab/tiny@0123456789abcdef0123456789abcdef01234567: config.json: expected 16 bytes, found 17; run again, and report"
    " to the hub or mirror if it repeats",
)
def test_a_long_body(tiny, fetched, outcome):
    tiny.hostile["/resolve/"] = lambda handler: handler.body(200, CONTENT + b"x", {})
    assert refusal(fetched) == outcome


@attack(
    "downloads",
    "a shorter body than listed",
    "lab/tiny@0123456789abcdef0123456789abcdef01234567: config.json: expected 16 bytes, found 15; run again, and report"
    " to the hub or mirror if it repeats",
)
def test_a_short_body(tiny, fetched, outcome):
    tiny.hostile["/resolve/"] = lambda handler: handler.body(200, CONTENT[1:], {})
    assert refusal(fetched) == outcome


@attack(
    "downloads",
    "a compressed body, which might be a bomb",
    "lab/tiny@0123456789abcdef0123456789abcdef01234567: config.json: expected the bytes as they are, found"
    " Content-Encoding gzip; check HF_ENDPOINT and the proxy",
)
def test_a_compressed_body(tiny, fetched, tmp_path, outcome):
    encodings = []

    def respond(handler):
        encodings.append(handler.headers["accept-encoding"])
        handler.body(200, gzip.compress(bytes(10**7)), {"Content-Encoding": "gzip"})

    tiny.hostile["/resolve/"] = respond
    assert refusal(fetched) == outcome
    assert encodings == ["identity"]
    assert written(tmp_path) == [b""]


@attack(
    "downloads",
    "a connection that stalls, or sends a byte now and then",
    "lab/tiny@0123456789abcdef0123456789abcdef01234567: config.json: expected 16 bytes, found 2 and then nothing more"
    " for 1 s; these are kept: run again to continue, and check the network, HF_ENDPOINT and the proxy",
)
def test_a_stalled_body(tiny, fetched, monkeypatch, outcome):
    """What came is kept, and the next fetch continues there."""
    monkeypatch.setattr(downloads, "STALLED", 1)
    monkeypatch.setattr(downloads, "ATTEMPTS", 1)
    tiny.hostile["/resolve/"] = lambda handler: handler.stall(CONTENT[:2])
    assert refusal(fetched) == outcome
    tiny.hostile.clear()
    assert fetched("config.json") == {"config.json": CONTENT}
    assert tiny.ranges == ["bytes=2-"]


def test_a_body_that_drips_is_stalled(tiny, fetched, monkeypatch):
    monkeypatch.setattr(downloads, "STALLED", 0.1)
    monkeypatch.setattr(downloads, "ATTEMPTS", 1)
    tiny.hostile["/resolve/"] = lambda handler: handler.drip(ROWS, 0.01)
    line = refusal(fetched, "rows.txt")
    assert re.search(r"expected 10000 bytes, found \d\d? and then nothing more for 0.1 s; these are kept", line), line


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_asked_again(tiny, fetched, status):
    def busy_once(handler):
        tiny.hostile.clear()
        handler.body(status, b"busy", {})

    tiny.hostile["/resolve/"] = busy_once
    assert fetched("config.json") == {"config.json": CONTENT}
    tiny.hostile["/resolve/"] = lambda handler: handler.body(status, b"busy", {})
    assert f"expected 10000 bytes, found 0 and then HTTP status {status}; these are kept" in refusal(
        fetched, "rows.txt"
    )


@attack(
    "downloads",
    "a body that ends before its length, again and again",
    "lab/tiny@0123456789abcdef0123456789abcdef01234567: config.json: expected 16 bytes, found 2 and then"
    " RemoteProtocolError; these are kept: run again to continue, and check the network, HF_ENDPOINT and the proxy",
)
def test_a_truncated_body(tiny, fetched, outcome):
    """The requests for the rest get the same beginning of the whole file, which is not appended."""

    def respond(handler):
        handler.close_connection = True
        handler.body(200, CONTENT[:2], {"Content-Length": "16"})

    tiny.hostile["/resolve/"] = respond
    assert refusal(fetched) == outcome
    assert len([request for request in tiny.requests if "resolve" in request]) == downloads.ATTEMPTS


def test_a_body_that_ends_early_without_a_length(tiny, fetched):
    tiny.hostile["/resolve/"] = lambda handler: handler.drip(CONTENT[:3], 0)
    assert f"{PLACE}: expected 16 bytes, found 3 and then the end of the body; these are kept" in refusal(fetched)


@attack(
    "downloads",
    "the rest of a file is asked for, and the whole of it comes",
    "it replaces what was there: nothing is appended",
)
def test_a_whole_file_in_place_of_its_rest(tiny, fetched):
    def respond(handler):
        if handler.headers.get("range"):
            handler.body(200, ROWS, {})
        else:
            handler.close_connection = True
            handler.body(200, ROWS[:3000], {"Content-Length": str(len(ROWS))})

    tiny.hostile["rows.txt"] = respond
    assert fetched("rows.txt") == {"rows.txt": ROWS}


@attack(
    "downloads",
    "a part of a file that is not the one asked for: wrong or no Content-Range",
    "one line with what was expected; nothing is appended",
)
@pytest.mark.parametrize(
    ("content_range", "found"),
    [
        ("bytes 3-15/16", "bytes 3-15/16"),
        ("bytes 2-15/17", "bytes 2-15/17"),
        ("bytes */16", "bytes */16"),
        ("x\x1b[2J", "x\\x1b[2J"),
        ("", "missing"),
    ],
)
def test_another_part_than_asked_for(tiny, fetched, tmp_path, content_range, found):
    def respond(handler):
        if handler.headers.get("range"):
            handler.body(206, CONTENT[2:], {"Content-Range": content_range})
        else:
            handler.close_connection = True
            handler.body(200, CONTENT[:2], {"Content-Length": "16"})

    tiny.hostile["/resolve/"] = respond
    message = f"{PLACE}: expected bytes 2-15/16, found Content-Range {found}; run again, and report"
    assert refusal(fetched).startswith(message)
    assert written(tmp_path) == [CONTENT[:2]]


@attack("downloads", "a part of a file, or nothing, where the whole was asked for", "one line with the HTTP status")
@pytest.mark.parametrize("status", [204, 206, 302, 304])
def test_another_status_than_asked_for(tiny, fetched, status):
    tiny.hostile["/resolve/"] = lambda handler: handler.body(status, b"", {})
    assert refusal(fetched).startswith(f"{PLACE}: expected a body, found HTTP status {status}; run again")


@attack(
    "downloads",
    "redirects in a circle",
    "lab/tiny@0123456789abcdef0123456789abcdef01234567: config.json: expected at most 10 redirects, found more; check"
    " HF_ENDPOINT and the proxy",
)
def test_redirects_in_a_circle(tiny, fetched, outcome):
    tiny.hostile["/resolve/"] = lambda handler: handler.body(302, b"", {"Location": handler.path})
    assert refusal(fetched) == outcome
    assert len([request for request in tiny.requests if "resolve" in request]) == 11


@attack("downloads", "redirects to what is no web address: `ftp://x`, `http://[`, `file:///etc/passwd`", "one line")
@pytest.mark.parametrize("location", ["ftp://x/y", "http://[/", "file:///etc/passwd", "//", "http://\x7f/"])
def test_a_redirect_to_no_address(tiny, fetched, location):
    tiny.hostile["/resolve/"] = lambda handler: handler.body(302, b"", {"Location": location})
    line = refusal(fetched)
    assert line.startswith(f"{PLACE}: expected ")
    assert location not in line


def test_a_full_disk_names_the_file(tiny, fetched):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            fetched("rows.txt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert re.search(r"state/.*/partial/", error.value.filename)


def test_an_empty_file_is_not_asked_for(tiny, fetched):
    tiny.repos["dataset/lab/tiny"].files["empty"] = b""
    assert fetched("empty") == {"empty": b""}
    assert not [request for request in tiny.requests if "resolve" in request]
