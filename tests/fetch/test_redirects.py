"""The token over redirects: it reaches the hub's own host, and no other one, output or message."""

import json

import hub as loopback
import pytest
from attacks import attack

from wspin.errors import StudyError

CONTENT = b"{}" * 8
FILE = {"rfilename": "config.json", "size": len(CONTENT), "blobId": loopback.blob(CONTENT)}
BODIES = {
    "/api/": json.dumps({"sha": loopback.REVISION, "siblings": [FILE]}).encode(),
    "/resolve/": CONTENT,
}
SIGNATURE = "X-Signature=abcdef"


@pytest.fixture
def elsewhere():
    """Another server, that a hub may redirect to."""
    with loopback.Hub() as server:
        yield server


def redirect(server, part, location):
    server.hostile = {part: lambda handler: handler.body(302, b"", {"Location": location}), **server.hostile}


def serve(server, part):
    """A server that has the body where it is redirected to."""
    server.hostile["/moved"] = lambda handler: handler.body(200, BODIES[part], {})


LOCATIONS = {
    "the same host, relative": "/moved",
    "the same host, another port": "http://127.0.0.1:{port}/moved?{signature}",
    "another host": "http://localhost:{port}/moved?{signature}",
    "another host, without a scheme": "//localhost:{port}/moved?{signature}",
    "a chain back to the hub": "http://127.0.0.1:{port}/back?{signature}",
    "another host, with credentials": "http://user:pass-word@127.0.0.1:{port}/moved?{signature}",
}


@attack(
    "secrets",
    "redirects to another port, host or scheme, back to the hub, or with credentials in their address",
    "HF_TOKEN is sent to the hub's own host alone, and shown nowhere",
)
@pytest.mark.parametrize("part", BODIES)
@pytest.mark.parametrize("kind", LOCATIONS)
def test_the_token_reaches_no_other_host(tiny, elsewhere, fetched, monkeypatch, capfd, part, kind):
    tiny.connect(monkeypatch, tiny.token)
    serve(tiny, part)
    serve(elsewhere, part)
    redirect(elsewhere, "/back", f"{tiny.url}/moved")
    redirect(tiny, part, LOCATIONS[kind].format(port=elsewhere.server.server_port, signature=SIGNATURE))
    assert fetched("config.json") == {"config.json": CONTENT}
    assert tiny.token in tiny.tokens
    assert tiny.token not in elsewhere.tokens
    assert len(elsewhere.requests) == (kind != "the same host, relative")
    shown = "".join(capfd.readouterr())
    assert not any(secret in shown for secret in (tiny.token, SIGNATURE, "pass-word"))


@attack(
    "secrets",
    "a redirect to a host that refuses, quotes the token or speaks no TLS",
    "one line without the token and without the address, which may be signed",
)
@pytest.mark.parametrize("part", BODIES)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_failure_behind_a_redirect_shows_no_secret(tiny, elsewhere, fetched, monkeypatch, capfd, part, scheme):
    tiny.connect(monkeypatch, tiny.token)
    elsewhere.hostile["/moved"] = lambda handler: handler.error(403, tiny.token)
    address = f"{scheme}://user:pass-word@127.0.0.1:{elsewhere.server.server_port}/moved?{SIGNATURE}"
    redirect(tiny, part, address)
    with pytest.raises(StudyError) as refused:
        fetched("config.json")
    assert tiny.token not in elsewhere.tokens
    shown = [str(refused.value), *capfd.readouterr()]
    for secret in (tiny.token, SIGNATURE, "pass-word", str(elsewhere.server.server_port)):
        assert not any(secret in text for text in shown), shown
