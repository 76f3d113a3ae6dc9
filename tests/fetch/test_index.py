"""Archives of packages, found and downloaded as pip is configured, without the code in them."""

import base64
import contextlib
import gzip
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from archives import sdist, wheel
from attacks import attack

from wspin.config.sources import Package
from wspin.errors import StudyError
from wspin.fetch import downloads, packages
from wspin.fetch import index as package_index

# Writes what it sees when any part of it runs: the names of its environment's variables, and the token.
BACKEND = """import os, pathlib
pathlib.Path({path!r}).write_text(str(dict(os.environ)))
def prepare_metadata_for_build_wheel(folder, settings=None):
    os.mkdir(os.path.join(folder, "texts-1.0.dist-info"))
    with open(os.path.join(folder, "texts-1.0.dist-info", "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: texts\\nVersion: 1.0\\n")
    return "texts-1.0.dist-info"
"""
PROJECT = b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


class Server(ThreadingHTTPServer):
    """An index on loopback: pages and files by path, and the Authorization headers of its requests."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages, self.redirects, self.authorizations = {}, {}, []
        self.headers, self.seconds = {}, 0  # of every response; between the bytes of an archive
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, user=""):
        return f"http://{user}127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.authorizations.append(self.headers["Authorization"])
        content = self.server.pages.get(self.path)
        target = self.server.redirects.get(self.path)
        self.send_response(302 if target else 404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        if target:
            self.send_header("Location", target)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        pieces = (
            map(bytes, zip(content, strict=True)) if self.server.seconds and "simple" not in self.path else [content]
        )
        with contextlib.suppress(OSError):
            for piece in pieces:
                self.wfile.write(piece or b"")
                time.sleep(self.server.seconds)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An index on loopback, the only one that pip knows."""
    with Server() as server:
        settings = f"index-url = {server.url('me:hunter2@')}/simple\nextra-index-url =\nfind-links =\n"
        (tmp_path / "pip.conf").write_text(f"[global]\n{settings}")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
        for variable in [name for name in os.environ if name.startswith("PIP_") and name != "PIP_CONFIG_FILE"]:
            monkeypatch.delenv(variable)
        yield server
        server.shutdown()


def refusal(entry, folder):
    with pytest.raises(StudyError) as error:
        packages.extract_file(Package(**entry), folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def backend(path):
    """The files of an sdist whose code writes to `path` when it runs."""
    setup = BACKEND.format(path=str(path)).encode()
    return {"texts-1.0/pyproject.toml": PROJECT, "texts-1.0/backend.py": setup, "texts-1.0/setup.py": setup}


# Code


@attack(
    "packages",
    "an sdist whose build backend and setup.py write HF_TOKEN to a file",
    "the file is read, no code of it runs",
)
def test_the_code_of_an_sdist_does_not_run(index, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    entry = sdist(index, {"texts-1.0/rows.json": b"[1]", **backend(tmp_path / "ran")})
    assert packages.extract_file(Package(**entry), tmp_path).read_bytes() == b"[1]"
    assert not (tmp_path / "ran").exists()


@attack(
    "packages",
    "a pip.py in the folder where Snakemake runs",
    "pip itself is asked for its settings; pip.py does not run",
)
def test_pip_in_the_working_folder_does_not_run(index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pip.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    packages.extract_file(Package(**wheel(index, {"texts/rows.json": "[]"})), tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../texts", "-r", "./texts", "texts --index-url=http://x", "texts @ file:///x"])
@attack(
    "packages",
    "a `package.name` or `version` that is an option, a path or a URL",
    "{name}=={version}: expected an archive, found no name and version of a package; correct them in the config",
)
def test_what_is_no_name_is_refused(index, tmp_path, outcome, name):
    entry = wheel(index, {"texts/rows.json": "[]"})
    assert refusal({**entry, "name": name}, tmp_path) == outcome.format(name=name, version="1.0")
    assert refusal({**entry, "version": name}, tmp_path) == outcome.format(name="texts", version=name)


# Pages of an index


@pytest.mark.parametrize("form", ["relative", "absolute", "base", "redirect", "no checksum"])
def test_links_of_an_index(server, tmp_path, form):
    """By any kind of link, with the index's user and password on its own host."""
    entry = sdist(tmp_path, {"texts-1.0/rows.json": b"[1]"})
    server.pages["/files/texts-1.0.tar.gz"] = (tmp_path / "texts-1.0.tar.gz").read_bytes()
    name = f"texts-1.0.tar.gz#sha256={entry['sha256']}"
    link = {
        "relative": f'<a href="../../files/{name}">x</a>',
        "absolute": f'<a href="{server.url()}/files/{name}" data-yanked="">x</a>',
        "base": f'<base href="/files/"><a href="{name}">x</a>',
        "redirect": f'<a href="/moved/{name}">x</a>',
        "no checksum": '<a href="/files/texts-1.0.tar.gz">x</a>',
    }[form]
    other = '<a href="texts-2.0.tar.gz">2</a><a href="texts-1.0.tar.gz#sha256=00">?</a><a href="http://[">?</a><a>'
    server.pages["/simple/texts/"] = f"<!DOCTYPE html><html><body>{other}{link}</body></html>".encode()
    server.redirects["/moved/texts-1.0.tar.gz"] = "/files/texts-1.0.tar.gz"
    entry["name"] = "Texts"
    assert packages.extract_file(Package(**entry), tmp_path).read_bytes() == b"[1]"
    password = f"Basic {base64.b64encode(b'me:hunter2').decode()}"
    assert set(server.authorizations) == {password}


def test_links_of_a_page_that_has_moved(server, tmp_path):
    """They are relative to where it is now."""
    entry = wheel(tmp_path, {"texts/rows.json": b"[1]"})
    name = "texts-1.0-py3-none-any.whl"
    server.redirects["/simple/texts/"] = "/new/simple/texts/"
    server.pages["/new/simple/texts/"] = f'<a href="../../{name}">x</a>'.encode()
    server.pages[f"/new/{name}"] = (tmp_path / name).read_bytes()
    assert packages.extract_file(Package(**entry), tmp_path).read_bytes() == b"[1]"


def test_an_archive_is_taken_as_it_is(server, tmp_path):
    """Servers call a `.tar.gz` encoded, whose content would have another checksum."""
    entry = sdist(tmp_path, {"texts-1.0/rows.json": b"[1]"})
    server.pages["/texts-1.0.tar.gz"] = (tmp_path / "texts-1.0.tar.gz").read_bytes()
    server.pages["/simple/texts/"] = gzip.compress(b'<a href="/texts-1.0.tar.gz">x</a>')
    server.headers["Content-Encoding"] = "gzip"
    assert packages.extract_file(Package(**entry), tmp_path).read_bytes() == b"[1]"


@attack(
    "packages", "an index that sends an archive byte by byte, for days", "one line after a minute of less than 60 kB"
)
def test_an_archive_that_drips_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "STALLED", 0.1)
    entry = wheel(tmp_path, {"texts/rows.json": "[]"})
    server.pages["/simple/texts/"] = b'<a href="/texts-1.0-py3-none-any.whl">x</a>'
    server.pages["/texts-1.0-py3-none-any.whl"] = bytes(400)
    server.seconds = 0.01
    assert f"and ReadTimeout at {server.url()}/simple/texts/; check name" in refusal(entry, tmp_path)


@attack("secrets", "an index that redirects a download to another host", "the index's password is not sent there")
def test_another_host_gets_no_password(server, tmp_path, monkeypatch):
    entry = sdist(tmp_path, {"texts-1.0/rows.json": b"[1]"})
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Server() as other:
        other.pages["/texts-1.0.tar.gz"] = b"another file"
        other.pages["/moved"] = (tmp_path / "texts-1.0.tar.gz").read_bytes()
        url = other.url().replace("127.0.0.1", "localhost")
        server.pages["/simple/texts/"] = (
            f'<a href="{url}/texts-1.0.tar.gz">1</a><a href="/texts-1.0.tar.gz">2</a>'.encode()
        )
        server.redirects["/texts-1.0.tar.gz"] = f"{url}/moved"
        assert packages.extract_file(Package(**entry), tmp_path).read_bytes() == b"[1]"
        assert other.authorizations == [None, None]
        other.shutdown()


@attack(
    "secrets",
    "an index that cannot be reached, with a password in its URL",
    "texts==1.0: expected an archive with sha256 {sha256}, found none with this name and version, and ConnectionError "
    "at {url}/simple/texts/; check name, version, checksum and the network",
)
def test_no_password_in_a_message(server, tmp_path, outcome):
    server.shutdown()
    server.server_close()
    entry = wheel(tmp_path, {"texts/rows.json": "[]"})
    assert refusal(entry, tmp_path) == outcome.format(sha256=entry["sha256"], url=server.url())


@attack("packages", "an index whose page links a local file", "the file is not read")
def test_a_page_links_no_local_file(server, tmp_path):
    entry = wheel(tmp_path, {"texts/rows.json": "[]"})
    uri = (tmp_path / "texts-1.0-py3-none-any.whl").as_uri()
    server.pages["/simple/texts/"] = f'<a href="{uri}">x</a><a href="/moved/texts-1.0-py3-none-any.whl">x</a>'.encode()
    server.redirects["/moved/texts-1.0-py3-none-any.whl"] = uri
    assert "found another checksum, and InvalidSchema at" in refusal(entry, tmp_path)


@pytest.mark.parametrize(
    "href", ["/..%2F..%2Ftexts-1.0.tar.gz", "/%2Ftmp%2Ftexts-1.0.tar.gz", "/texts-1.0%00.tar.gz", "/%2e%2e"]
)
@attack(
    "packages",
    "an index whose links have names with `../` or control characters, also as %2F",
    "they stay in one folder",
)
def test_names_of_archives_stay_in_their_folder(server, tmp_path, href):
    entry = sdist(tmp_path, {"texts-1.0/rows.json": b"[1]"})
    content = (tmp_path / "texts-1.0.tar.gz").read_bytes()
    server.pages |= {"/simple/texts/": f'<a href="{href}">x</a>'.encode(), href: content}
    before = sorted(tmp_path.rglob("*"))
    try:
        packages.extract_file(Package(**entry), tmp_path).unlink()
    except StudyError as error:
        assert "found none with this name and version" in str(error)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("host", ["a..b", "127.0.0.1:99999", "[::1", "x" * 300])
@attack("malformed", "an index that links or redirects to what is no address", "one line")
def test_what_is_no_address_is_one_line(server, tmp_path, host):
    entry = wheel(tmp_path, {"texts/rows.json": "[]"})
    server.pages["/simple/texts/"] = f'<a href="http://{host}/texts-1.0-py3-none-any.whl">x</a>'.encode()
    assert "texts==1.0: expected an archive with sha256" in refusal(entry, tmp_path)
    server.pages["/simple/texts/"] = b'<a href="/texts-1.0-py3-none-any.whl">x</a>'
    server.redirects["/texts-1.0-py3-none-any.whl"] = f"http://{host}/x"
    assert "found another checksum, and " in refusal(entry, tmp_path)


@pytest.mark.parametrize(
    "page", [b"<![a]><![a]>", b"<!", b"<!DOCTYPE [", b"<a href='&#1114112;&#xD800;'>", b"\xff\x00" * 9]
)
@attack("malformed", "an index whose page is no HTML", "one line")
def test_a_page_that_is_no_html_is_one_line(server, tmp_path, page):
    entry = wheel(tmp_path, {"texts/rows.json": "[]"})
    server.pages["/simple/texts/"] = page
    assert "texts==1.0: expected an archive with sha256" in refusal(entry, tmp_path)


@attack("packages", "an archive with the right name and another checksum", "refused before it is opened")
def test_another_checksum_is_not_opened(server, tmp_path, monkeypatch):
    entry = wheel(tmp_path, {"texts/rows.json": "[]"})
    server.pages["/simple/texts/"] = b'<a href="/texts-1.0-py3-none-any.whl">x</a>'
    server.pages["/texts-1.0-py3-none-any.whl"] = b"another"
    monkeypatch.setattr(packages, "_content", lambda *_: pytest.fail("opened"))
    assert "found another checksum; check name" in refusal(entry, tmp_path)


@attack(
    "packages",
    "an index that sends a page or an archive without end",
    "{url}: expected at most 1000 bytes, found more; use another index or archive",
)
def test_what_is_too_long_is_refused(server, tmp_path, monkeypatch, outcome):
    entry = wheel(tmp_path, {"texts/rows.json": "[]"})
    server.pages["/simple/texts/"] = b'<a href="/texts-1.0-py3-none-any.whl">x</a>'
    server.pages["/texts-1.0-py3-none-any.whl"] = bytes(1001)
    monkeypatch.setattr(package_index, "LARGEST", 1000)
    assert refusal(entry, tmp_path) == outcome.format(url=f"{server.url()}/texts-1.0-py3-none-any.whl")
    monkeypatch.setattr(package_index, "LONGEST_PAGE", 1000)
    server.pages["/simple/texts/"] += b" " * 1000
    assert refusal(entry, tmp_path) == outcome.format(url=f"{server.url()}/simple/texts/")


# Settings of pip


def test_settings_of_pip(tmp_path, monkeypatch):
    """The environment before a file's section, this before `global`; a relative folder; a file index."""
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = http://127.0.0.1:9/simple\nretries = 0\nextra-index-url =\n    http://a.invalid/\n    file:///b\n"
        "[download]\nindex-url = http://127.0.0.1:9/other\n[install]\nindex-url = http://127.0.0.1:9/not-read\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels http://127.0.0.1:9/links.html")
    monkeypatch.chdir(tmp_path)
    read = package_index._pip_settings
    pages = package_index._Reader(read()).pages("texts")
    assert pages[0] == "http://127.0.0.1:9/other/texts/"
    assert pages[1:3] == ["http://a.invalid/texts/", "file:///b/texts/index.html"]
    assert pages[-2:] == [(tmp_path / "wheels").as_uri(), "http://127.0.0.1:9/links.html"]
    monkeypatch.setenv("PIP_INDEX_URL", "simple")
    assert package_index._Reader(read()).pages("texts")[0] == (tmp_path / "simple/texts/index.html").as_uri()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert len(package_index._Reader(read()).pages("texts")) == 2


def test_the_default_index_is_that_of_pip():
    assert package_index._default_index().startswith("https://")


@attack("malformed", "a pip.conf that pip cannot read", "one line with pip's own words")
def test_broken_settings_of_pip_are_one_line(tmp_path, monkeypatch):
    (tmp_path / "pip.conf").write_text("index-url = https://a.invalid/\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    message = refusal(wheel(tmp_path, {"texts/rows.json": "[]"}), tmp_path)
    assert message.startswith("pip config list: expected pip's settings, found ")
    assert message.endswith("; correct pip or its files")
