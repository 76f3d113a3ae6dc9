"""Planted secrets reach no output, file, command or upload of the programs that use the network."""

import os
import shutil
import subprocess
import sys

import hub as loopback
import planted
import pytest
import results as made
from attacks import attack

from wspin.config.load import read_study
from wspin.errors import StudyError


@pytest.fixture(scope="module")
def hub(scratch_model):
    with loopback.Hub(login=planted.LOGIN, allowed=False) as hub:
        for name in ("tiny", "private", "gated", "signed", "unexpected"):
            hub.add("model", f"lab/{name}", scratch_model, private=name == "private", gated=name == "gated")
        storage = f"http://store-user:Signed-word-9@127.0.0.1:9/f?X-Amz-Signature={planted.SIGNATURE}"
        locations = {"lab/loop": "/api/models/lab/loop/again", "lab/signed/resolve": storage}
        locations["lab/tls"] = hub.url.replace("http:", "https:") + f"/?sig={planted.SIGNATURE}"
        for part, location in locations.items():
            hub.hostile[part] = lambda handler, location=location: handler.body(302, b"", {"Location": location})
        hub.hostile["lab/broken"] = lambda handler: handler.error(500, planted.LOGIN)
        yield hub


@pytest.fixture(scope="module")
def run(hub, root, scratch_model, tmp_path_factory):
    """{what was wrong: output} of the programs, and the folder in which they ran."""
    folder = tmp_path_factory.mktemp("planted")
    shutil.copytree(root / "config", folder / "config")
    (folder / "overlay.yaml").write_text("models: {base: {hub: lab/tiny, revision: null}}\n")
    made.study(root, folder / "results", push={"model": "wspin/ite3", "to": "me/it"})
    made.put_model(folder / "results", "wspin/ite3", scratch_model)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment = {**kept, **planted.environment(hub.url, folder / "home")}
    command = [sys.executable, root / "tests/planted.py", folder, hub.url]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    output = subprocess.run(command, env=environment, check=False, timeout=200, **streams).stdout
    shutil.rmtree(folder / "home")
    parts = output.decode().split("== ")
    return dict(part.split("\n", 1) for part in parts[1:]), folder


@attack(
    "secrets",
    "tokens in the environment and in a file; users and passwords of a mirror, proxies and indexes; signed addresses",
    "no line of fetch, push, preflight or revisions holds one, in success and in 20 ways to fail, nor does a command",
)
def test_no_line_holds_a_secret(run, hub):
    """Under HF_DEBUG, and with an unexpected error whose message has them."""
    outputs, _ = run
    assert len(outputs) > 20
    leaks = {wrong: planted.leaks(output.encode()) for wrong, output in outputs.items()}
    assert {wrong: secrets for wrong, secrets in leaks.items() if secrets} == {}
    assert "starts [" in outputs["index"]  # pip
    assert f"check its name, and HF_TOKEN if it is private: {hub.url}/" in outputs["access"]
    assert outputs["unexpected"].endswith(f"RuntimeError: {hub.url}: ***\n")


@attack(
    "secrets",
    "the same, and a flag with a user and a password",
    "no model, record, lock file, saved state or upload holds one",
)
def test_no_file_holds_a_secret(run, hub):
    _, folder = run
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"provenance.json", "revisions.lock.yaml", "config.json"} <= {path.name for path in files}
    assert [path for path in files if planted.leaks(path.read_bytes())] == []
    assert [name for name, content in hub.repos["model/me/it"].files.items() if planted.leaks(content)] == []


def test_a_mirror_with_a_user_and_a_password_works(run, hub):
    """Downloads from a private repository, and an upload."""
    outputs, folder = run
    assert (folder / "out/lab/private/config.json").exists()
    assert outputs["push"] == f"push: wspin/ite3 is at {hub.url}/me/it\n"


@attack(
    "secrets",
    "`HF_ENDPOINT=https://user:password@mirror.example`, and a gated repository",
    "fetch.py: error: lab/gated@0123456789abcdef0123456789abcdef01234567: config.json: expected access to a gated "
    "repository, found none (HF_TOKEN is set); accept its terms at {url}/lab/gated, then set HF_TOKEN to a token that "
    "may read it",
)
def test_addresses_are_shown_without_users(run, hub, outcome):
    assert run[0]["gated"].splitlines()[-1] == outcome.format(url=hub.url)


@attack(
    "secrets",
    "`HF_ENDPOINT=https://user:pass/word@mirror.example`: a part of the password is read as a port",
    "fetch.py: error: HF_ENDPOINT: expected an address such as https://mirror.example, with user:password@ before the "
    "host if need be, found another form; percent-encode other characters in these, and add no query",
)
def test_what_is_no_address_is_not_shown(run, outcome):
    lines = [output.strip() for wrong, output in run[0].items() if wrong.startswith("endpoint: ")]
    assert lines.count(outcome) == 6
    assert len(lines) == 8  # the others are addresses that nobody serves
    assert not any("\n" in line for line in lines)


@attack(
    "secrets",
    "`HTTP_PROXY=ftp://user:password@proxy.example`",
    "fetch.py: error: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY: expected addresses such as http://proxy.example:3128, with "
    "user:password@ before the host if need be, found another form; percent-encode other characters in these",
)
def test_what_is_no_proxy_is_not_shown(run, outcome):
    lines = [output.strip() for wrong, output in run[0].items() if wrong.startswith("proxy: ")]
    assert [line == outcome for line in lines] == [False, True, True, True]
    assert "found ConnectError; check the network, HF_ENDPOINT and the proxy" in lines[0]


@attack(
    "secrets",
    "`path: https://user:password@h.example/model` in a config, which is copied to the results",
    "study.yaml:1: models.base.path: expected no user, password, token or query of an address, found "
    "'https://h.example/model'; set them in the environment",
)
def test_a_config_holds_no_secret(root, tmp_path, monkeypatch, outcome):
    monkeypatch.chdir(tmp_path)
    path = "https://user:password@h.example/model"
    (tmp_path / "study.yaml").write_text(f"models: {{base: {{hub: null, revision: null, path: '{path}'}}}}\n")
    with pytest.raises(StudyError) as error:
        read_study([root / "config/config.yaml", "study.yaml"])
    assert str(error.value) == outcome
