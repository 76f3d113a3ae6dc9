"""Downloads archives of Python packages from the indexes that pip is configured for.

pip itself would run an archive's own code: it builds the metadata of every sdist that it downloads.
"""

import ast
import contextlib
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, unquote, urljoin, urlsplit, urlunsplit

import requests
import urllib3
from packaging.utils import InvalidName, canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from wspin.config.sources import Package
from wspin.errors import StudyError
from wspin.storage.files import writing
from wspin.storage.names import path_below

from .downloads import limited, steady

LARGEST = 2**35  # bytes of an archive
LONGEST_PAGE = 2**26  # bytes of an index's page
CHUNK = 2**20  # bytes


def download(package: Package, folder: Path) -> Path:
    """Put the archive with the package's checksum into `folder`; nothing in it is opened. Returns its path.

    Raises `StudyError` if no index has it.
    """
    expected = f"{package.name}=={package.version}: expected an archive"
    try:
        name, version = canonicalize_name(package.name, validate=True), Version(package.version)
    except (InvalidName, InvalidVersion):
        raise StudyError(f"{expected}, found no name and version of a package; correct them in the config") from None
    found, reader = "none with this name and version", _Reader(_pip_settings())
    for page in reader.pages(name):
        try:
            for url in reader.links(page):
                if _name_and_version(url) == (name, version):
                    found = "another checksum"
                    if parse_qs(urlsplit(url).fragment).get("sha256", [package.sha256]) == [package.sha256]:
                        archive = path_below(folder, _file_name(url))
                        if reader.save(url, archive) == package.sha256:
                            return archive
                        archive.unlink()
        # Their texts are long. HTMLParser raises the last of them.
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError, AssertionError) as error:
            response = getattr(error, "response", None)
            reason = type(error).__name__ if response is None else f"HTTP {response.status_code}"
            found += f", and {reason} at {page}"
    remedy = "check name, version, checksum and the network"
    raise StudyError(f"{expected} with sha256 {package.sha256}, found {found}; {remedy}")


def _pip_settings() -> dict[str, str]:
    """pip's options from its files and the environment, as `pip download` would see them."""
    lines = _pip("config", "list").splitlines()
    settings = {}
    for section in ("global.", "download.", ":env:."):  # later ones take precedence
        for line in (line for line in lines if line.startswith(section)):
            key, _, value = line.removeprefix(section).partition("=")
            repeated = sum(other.startswith(f"{section}{key}=") for other in lines) > 1  # in several files
            settings[key] = _pip("config", "get", section + key).strip() if repeated else ast.literal_eval(value)
    return settings


def _default_index() -> str:
    """The index that pip takes without a setting: its help names it."""
    match = re.search(r"--index-url <url>.*?\(default\s+([^\s)]+)\)", _pip("download", "--help"), re.DOTALL)
    return match[1] if match else ""


def _pip(*command: str) -> str:
    """What pip prints; isolated, so that no `pip.py` in the working folder takes its place, and without hub tokens.

    Raises `StudyError` if pip is not there or cannot read its files.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE_"))}
    environment["COLUMNS"] = "1000"  # no URL is broken into lines
    line = (sys.executable, "-I", "-m", "pip", *command)
    result = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        found = " ".join(result.stderr.split()) or f"exit code {result.returncode}"
        raise StudyError(f"pip {' '.join(command)}: expected pip's settings, found {found}; correct pip or its files")
    return result.stdout


class _Reader:
    """Reads pages and archives with pip's proxy, certificates and time limit; those of local folders without them."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.settings = settings
        self.session = requests.Session()
        self.session.headers.update({"Accept": "text/html, */*;q=0.1", "Accept-Encoding": "identity"})
        if proxy := settings.get("proxy"):
            self.session.proxies = {"http": proxy, "https": proxy}

    def pages(self, name: str) -> list[str]:
        """URLs of the pages and folders that may list a package's archives."""
        indexes = []
        if self.settings.get("no-index", "").lower() not in ("1", "true", "yes", "on", "t", "y"):
            index = self.settings.get("index-url") or _default_index()
            indexes = [index, *self.settings.get("extra-index-url", "").split()]
        pages = [_url(index).rstrip("/") + f"/{name}/" for index in indexes]
        pages = [page + "index.html" if page.startswith("file:") else page for page in pages]
        return pages + [_url(place) for place in self.settings.get("find-links", "").split()]

    def links(self, page: str) -> Iterator[str]:
        """URLs of the files that a page or a local folder lists; a page of a server links no local file."""
        if page.startswith("file:") and (folder := _path(page)).is_dir():
            yield from (file.absolute().as_uri() for file in sorted(folder.iterdir()))
            return
        with self.open(page, LONGEST_PAGE, decode=True) as (url, chunks):
            parser = _Links(page, url)
            parser.feed(b"".join(chunks).decode(errors="replace"))
        yield from (link for link in parser.links if urlsplit(link).scheme in ("http", "https", urlsplit(page).scheme))

    @contextlib.contextmanager
    def open(self, url: str, limit: int, decode: bool = False) -> Iterator[tuple[str, Iterator[bytes]]]:
        """(URL after redirects, its bytes in pieces); none if a local file is missing.

        `decode`: undo an encoding of the response; of an archive that would give other bytes. Raises `StudyError` for
        more than `limit` bytes.
        """
        parts = urlsplit(url)
        too_long = f"{url}: expected at most {limit} bytes, found more; use another index or archive"
        if parts.scheme == "file":
            with open(_path(url) if _path(url).is_file() else os.devnull, "rb") as file:
                yield url, limited(iter(lambda: file.read(CHUNK), b""), limit, too_long)
            return
        trusted = {parts.hostname, f"{parts.hostname}:{parts.port}"} & set(
            self.settings.get("trusted-host", "").split()
        )
        certificates = not trusted and (self.settings.get("cert") or True)
        timeout = float(self.settings.get("timeout") or self.settings.get("default-timeout") or 15)
        options = {"verify": certificates, "cert": self.settings.get("client-cert"), "timeout": timeout}
        with self.session.get(url, stream=True, **options) as response:
            response.raise_for_status()
            chunks = iter(lambda: response.raw.read1(CHUNK, decode_content=decode), b"")
            yield response.url, limited(steady(chunks, requests.ReadTimeout("too slow")), limit, too_long)

    def save(self, url: str, path: Path) -> str:
        """Download a file; returns its sha256. Raises `StudyError` if it is larger than `LARGEST`."""
        checksum = hashlib.sha256()
        with self.open(url, LARGEST) as (_, chunks), writing(path), open(path, "wb") as file:
            for chunk in chunks:
                checksum.update(chunk)
                file.write(chunk)
        return checksum.hexdigest()


class _Links(HTMLParser):
    """The absolute URLs of a page's links, relative to `base`; those on the page's host keep its user and password."""

    def __init__(self, page: str, base: str) -> None:
        super().__init__()
        self.base, self.page, self.links = base, urlsplit(page), list[str]()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        href = dict(attributes).get("href")
        if href and tag in ("a", "base"):
            try:
                url = urlsplit(urljoin(self.base, href))
                same_host = (url.scheme, url.hostname, url.port) == (
                    self.page.scheme,
                    self.page.hostname,
                    self.page.port,
                )
            except ValueError:  # no URL
                return
            has_user = "@" in url.netloc
            link = urlunsplit(url._replace(netloc=self.page.netloc) if same_host and not has_user else url)
            if tag == "a":
                self.links.append(link)
            else:
                self.base = link


def _name_and_version(url: str) -> tuple[str, Version] | None:
    """Those of the archive at a URL; None if it is no wheel or sdist."""
    name = _file_name(url)
    try:
        return (parse_wheel_filename if name.endswith(".whl") else parse_sdist_filename)(name)[:2]
    except ValueError:
        return None


def _file_name(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2]


def _url(place: str) -> str:
    """A URL, of a local path too."""
    return place if re.match(r"(https?|file):", place) else Path(place).absolute().as_uri()


def _path(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))
