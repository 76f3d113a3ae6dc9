"""The model hub: snapshots of repositories by commit, continued where a killed fetch stood, every file checked.

What is fetched lies in a state folder until all of it is there and has the checksum that the hub tells: sha256 of a
large file, git's blob id of a small one. HF_TOKEN and HF_ENDPOINT are the library's own: a token is sent to the hub
alone, and no text of the library's errors is repeated, since it may hold the address of a signed download.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from wspin.errors import StudyError
from wspin.storage.files import digest, sha256
from wspin.storage.locks import locked, remove_state


class Unreachable(StudyError):
    """There is no hub to ask: no network, or it is switched off."""


Kind = Literal["model", "dataset"]


@dataclass(frozen=True)
class Repository:
    """A repository on the hub, at a commit."""

    name: str
    kind: Kind
    revision: str | None  # none: where `main` is now

    def __str__(self) -> str:
        return f"{self.name}@{self.revision or 'main'}"


@dataclass(frozen=True)
class Entry:
    """A file of a repository, as the hub describes it."""

    path: str
    size: int
    sha256: str | None  # of files in large storage
    blob: str  # git's id of the others

    def matches(self, file: Path) -> bool:
        return sha256(file) == self.sha256 if self.sha256 else git_blob(file) == self.blob

    @property
    def checksum(self) -> str:
        return self.sha256 or f"git blob {self.blob}"


def git_blob(file: Path) -> str:
    """Git's id of a file's content: sha1 of a header with its length and the content."""
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def snapshot(repository: Repository, wanted: Sequence[str], state: str | Path | None) -> Iterator[Path]:
    """A folder with the files that match `wanted` (patterns of whole paths), gone when the block ends without an error.

    `state` is where files lie meanwhile; one fetch at a time holds it, and the next one goes on from there. Raises
    `StudyError` with what to do: not found, no access, no network, a file that is not what the hub says it is.
    """
    if state is None:
        raise StudyError(f"{repository}: --state: expected a folder where what has come is kept, found none; name one")
    # By what is wanted too: a data set's card is fetched before its data, of which a part may be there already.
    folder = Path(state) / re.sub(r"[^\w.-]+", "--", f"{repository.kind}-{repository}-{digest([*wanted])[:8]}")
    with locked(folder):
        files = [entry for entry in entries(repository) if _is_wanted(entry.path, repository, wanted)]
        if not files:
            raise StudyError(f"{repository}: expected files like {', '.join(wanted[:4])}, found none")
        for number, entry in enumerate(files, 1):
            place = f"{entry.path} ({number} of {len(files)}, {entry.size / 1e6:.1f} MB)"
            print(f"fetch: {repository}: {place}", flush=True)
            _fetch(repository, entry, folder / "files" / entry.path, folder / "partial" / entry.checksum)
        yield folder / "files"
    remove_state(folder)


def _is_wanted(path: str, repository: Repository, wanted: Sequence[str]) -> bool:
    """Of a model only files beside its config: folders hold other formats of it."""
    return any(fnmatch(path, one) for one in wanted) and (repository.kind == "dataset" or "/" not in path)


def entries(repository: Repository) -> list[Entry]:
    """The files of a repository at its commit. Raises `StudyError` with what to do."""
    found = _info(repository, files_metadata=True).siblings
    return [
        Entry(one.rfilename, one.size, one.lfs.sha256 if one.lfs else None, one.blob_id)
        for one in sorted(found, key=lambda one: one.rfilename)
    ]


def commit(repository: Repository) -> str:
    """The commit that a repository is at. Raises `StudyError` with what to do."""
    return _info(repository).sha


def check(repository: Repository) -> None:
    """Ask whether a repository has this commit and this account may read its files. Raises `StudyError` if not."""
    _info(repository)
    with in_one_line(repository):
        client().HfApi().auth_check(repository.name, repo_type=repository.kind)


def give(source: Path, folder: Path) -> None:
    """Put the files of a snapshot into `folder` too, without a second copy of them where the disk allows."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        target = folder / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        link(file, target)


def link(file: Path, target: Path) -> None:
    """The same file at a second place; a copy where the disk knows no links, or is another."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def client() -> Any:
    """huggingface_hub without Xet: its client keeps no part of a file, and a killed fetch would begin again.

    And without its warnings, which hold the addresses that it fetches from.
    """
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    import huggingface_hub

    huggingface_hub.logging.set_verbosity_error()
    return huggingface_hub


def _info(repository: Repository, **options: bool) -> Any:
    with in_one_line(repository):
        api = client().HfApi()
        return api.repo_info(repository.name, repo_type=repository.kind, revision=repository.revision, **options)


def _fetch(repository: Repository, entry: Entry, target: Path, partial: Path) -> None:
    """Fetch one file, from where its part ends; a file that is there has been checked."""
    if target.exists():
        return
    for path in (target, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not partial.exists() or partial.stat().st_size < entry.size:
        with in_one_line(repository, entry.path):
            _download(repository, entry, partial)
    if not entry.matches(partial):
        found = f"found {sha256(partial) if entry.sha256 else git_blob(partial)}"
        partial.unlink()
        asked = f"{repository}: {entry.path}: expected checksum {entry.checksum}"
        raise StudyError(f"{asked}, {found}; what was fetched is deleted: run again, and ask the mirror if it stays so")
    os.replace(partial, target)


def _download(repository: Repository, entry: Entry, partial: Path) -> None:
    library = client()
    from huggingface_hub.file_download import get_hf_file_metadata, http_get

    place = {"repo_id": repository.name, "repo_type": repository.kind, "revision": repository.revision}
    url, headers = library.hf_hub_url(filename=entry.path, **place), library.utils.build_hf_headers()
    location = get_hf_file_metadata(url, headers=headers).location
    if location.split("/")[:3] != url.split("/")[:3]:
        headers.pop("authorization", None)  # a storage elsewhere has signed addresses: the token is the hub's alone
    with open(partial, "ab") as file:
        http_get(
            location,
            file,
            resume_size=file.tell(),
            headers=headers,
            expected_size=entry.size,
            displayed_filename=entry.path,
            tqdm_class=Lines,
        )


class Lines:
    """Progress as a line every half minute, in place of a bar: huggingface_hub tells it the bytes that came."""

    EVERY = 30.0  # seconds

    def __init__(self, desc: str, total: int | None, initial: int = 0, **_: Any):
        from wspin.progress import progress_printer

        self.done, self.tell = (
            initial // 1000,
            progress_printer(f"fetch: {desc} (kB)", (total or 0) // 1000, self.EVERY),
        )
        self.rest = initial % 1000

    def update(self, count: int) -> None:
        self.rest += count
        self.done, self.rest = self.done + self.rest // 1000, self.rest % 1000
        if self.done:
            self.tell(self.done)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        return None


@contextlib.contextmanager
def in_one_line(repository: Repository, file: str = "") -> Iterator[None]:
    """Turn the library's errors into one line with what to do."""
    library = client()
    import httpx2
    from huggingface_hub import constants, errors

    place = f"{repository}: {file}" if file else str(repository)
    page = f"{constants.ENDPOINT}/{'datasets/' if repository.kind == 'dataset' else ''}{repository.name}"
    token = "HF_TOKEN is set" if library.get_token() else "no HF_TOKEN is set"
    try:
        yield
    except errors.GatedRepoError:
        told = f"expected access to a gated repository, found none ({token}); accept its terms at {page}"
        raise StudyError(f"{place}: {told}, then set HF_TOKEN to a token that may read it") from None
    except errors.RepositoryNotFoundError:
        told = f"expected a {repository.kind}, found none that this account may see ({token})"
        raise StudyError(f"{place}: {told}; check its name, and HF_TOKEN if it is private: {page}") from None
    except errors.RevisionNotFoundError:
        raise StudyError(f"{place}: expected that commit, found none; take one from {page}/commits/main") from None
    except errors.EntryNotFoundError:
        raise StudyError(f"{place}: expected the file, found none at this commit; see {page}") from None
    except errors.OfflineModeIsEnabled:
        raise Unreachable(
            f"{place}: HF_HUB_OFFLINE is set; unset it where the hub is reached, or give `path:`"
        ) from None
    except errors.HfHubHTTPError as error:
        code = getattr(error.response, "status_code", "no status")
        todo = "check what HF_TOKEN allows" if code in (401, 403) else "try again later"
        told = f"found HTTP status {code} ({token}); {todo}"
        raise StudyError(f"{place}: expected an answer of {constants.ENDPOINT}, {told}") from None
    except (httpx2.TransportError, ConnectionError) as error:
        told = f"found {type(error).__name__}; check the network, HF_ENDPOINT and the proxy"
        raise Unreachable(f"{place}: expected to reach {constants.ENDPOINT}, {told}, or give `path:`") from None
