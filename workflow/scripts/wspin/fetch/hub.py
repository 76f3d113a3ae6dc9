"""The model hub: snapshots of repositories at a commit, resumed after a killed fetch, every file checked.

Files stay in a state folder until all of them are complete and match the checksums that the hub gives: sha256 of a
large file, git's blob id of a small one. Nothing of a listing is used before its form is checked, and a name becomes a
path by `path_below` alone. Errors of huggingface_hub are never quoted: they may contain a signed download's address.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, Field, ValidationError

from wspin.errors import StudyError
from wspin.escaping import escaped
from wspin.progress import with_progress
from wspin.storage.files import digest, sha256
from wspin.storage.locks import discard_state, locked
from wspin.storage.names import check_distinct, path_below

from .downloads import REPORT, client, download, read

HIDDEN = re.compile(r"(^|/)\.[^./]")  # .gitattributes, .ipynb_checkpoints/: no part of a model or data set
METADATA_REMEDY = "check HF_ENDPOINT and the proxy, and report to the hub or mirror"


class Unreachable(StudyError):
    """The hub cannot be reached: no network, or it is switched off."""


class Missing(StudyError):
    """The hub has no such repository that this account may see."""


@dataclass(frozen=True)
class Repository:
    """A repository on the hub, at a commit."""

    name: str
    kind: Literal["model", "dataset"]
    revision: str | None  # None: the current commit of `main`

    def __str__(self) -> str:
        return f"{self.name}@{self.revision or 'main'}"

    @property
    def page(self) -> str:
        """Its address for readers, and where its files lie."""
        return f"{client().constants.ENDPOINT}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"

    def url(self, file: str) -> str:
        """The address of a file at the commit."""
        return f"{self.page}/resolve/{quote(self.revision or 'main', safe='')}/{quote(file)}"

    def api(self, request: str) -> str:
        """The address of a request about it."""
        return f"{client().constants.ENDPOINT}/api/{self.kind}s/{self.name}{request}"


Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class RepositoryInfo(BaseModel, strict=True):
    """What the hub says about a repository: other keys are not read."""

    sha: Commit
    private: bool = False


class _Large(BaseModel, strict=True):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class RemoteFile(BaseModel, strict=True):
    """A file of a repository, as the hub lists it. Mirrors may leave out what they do not know."""

    path: str = Field(alias="rfilename")
    size: Annotated[int, Field(ge=0, lt=2**63)] | None = None  # bytes
    blobId: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    lfs: _Large | None = None

    @property
    def checksum(self) -> str:
        """sha256 of a file in large storage, git's blob id of another; empty without either."""
        return self.lfs.sha256 if self.lfs else f"git blob {self.blobId}" if self.blobId else ""

    def checksum_of(self, local: Path) -> str:
        """The checksum of a local file, of the same kind."""
        return sha256(local) if self.lfs else _git_blob(local.read_bytes())


class _Listing(RepositoryInfo, strict=True):
    siblings: list[RemoteFile]


def _git_blob(content: bytes) -> str:
    header = b"blob %d\0" % len(content)
    return f"git blob {hashlib.sha1(header + content, usedforsecurity=False).hexdigest()}"


@contextlib.contextmanager
def snapshot(repository: Repository, patterns: Sequence[str], state: str | Path | None) -> Iterator[Path]:
    """A folder with the files whose whole paths match `patterns`; removed when the block ends without an error.

    `state`: folder for what a fetch has so far. A fetch holds its lock, and a later one resumes there. Raises
    `StudyError` if the repository is not found, access is denied, there is no network, or a file fails its checksum.
    """
    if state is None:
        raise StudyError(f"{repository}: --state: expected a folder for unfinished downloads, found none; name one")
    # One folder per set of patterns: a data set's card is fetched before its data, which may be there in part already.
    folder = Path(state) / re.sub(r"[^\w.-]+", "--", f"{repository.kind}-{repository}-{digest([*patterns])[:8]}")
    with locked(folder):
        wanted = re.compile("|".join(map(translate, patterns)))  # at once: `fnmatch` forgets what it compiled
        files = [file for file in list_files(repository) if wanted.match(file.path)]
        if repository.kind == "model":  # its folders hold other formats of the same weights
            files = [file for file in files if "/" not in file.path]
        if not files:
            raise StudyError(f"{repository}: expected files like {', '.join(patterns[:4])}, found none")
        targets = _targets(repository, files, folder / "files")
        for number, (file, target) in enumerate(zip(files, targets, strict=True), 1):
            name = f"{file.path} ({number} of {len(files)}, {file.size / 1e6:.1f} MB)"
            print(f"fetch: {repository}: {name}", flush=True)
            _fetch(repository, file, target, folder / "partial" / file.checksum)
        yield folder / "files"
    discard_state(folder)


def fetch(repository: Repository, patterns: Sequence[str], state: str | Path | None, folder: Path) -> None:
    """Put the files of a `snapshot` into `folder`, as links where the disk allows."""
    with snapshot(repository, patterns, state) as source:
        copy_files(source, filter(Path.is_file, source.rglob("*")), folder, link_or_copy)


def copy_files(source: Path, files: Iterable[Path], folder: Path, copy: Callable[[Path, Path], Any]) -> None:
    """Copy files in `source` to the same places in `folder`."""
    files = list(files)
    for file in with_progress(files, len(files), "fetch: copies", "files"):
        target = folder / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        copy(file, target)


def _targets(repository: Repository, files: Sequence[RemoteFile], folder: Path) -> list[Path]:
    """The path of every file in a folder.

    Raises `StudyError` for a name that leaves it or that two files share, and for a file without size and checksum.
    """
    if file := next((file for file in files if file.size is None or not file.checksum), None):
        place = f"in the metadata of {client().constants.ENDPOINT}"
        expected = f"expected size and checksum of {escaped(file.path)} {place}"
        raise StudyError(f"{repository}: {expected}, found none; {METADATA_REMEDY}")
    try:
        check_distinct(file.path for file in files)
        return [path_below(folder, file.path) for file in files]
    except StudyError as error:
        raise StudyError(f"{repository}: {error}") from None


def list_files(repository: Repository) -> list[RemoteFile]:
    """The files of a repository at its commit, sorted by path, without hidden ones. Raises `StudyError` as
    `repository_info`.

    Their names are the hub's: they become paths in `snapshot` alone.
    """
    files = _metadata(repository, _Listing, "?blobs=true").siblings
    return sorted((file for file in files if not HIDDEN.search(file.path)), key=lambda file: file.path)


def repository_info(repository: Repository) -> RepositoryInfo:
    """What the hub says about a repository, its commit `sha` too.

    Raises `StudyError` as `as_study_errors`, and if it is not of the form of the hub's metadata.
    """
    return _metadata(repository, RepositoryInfo, "")


def _metadata(repository: Repository, form: type[RepositoryInfo], query: str) -> Any:
    """What the hub says about a repository at its commit, in the form that is expected."""
    revision = f"/revision/{quote(repository.revision, safe='')}" if repository.revision else ""
    with as_study_errors(repository):
        content = read(str(repository), repository.api(f"{revision}{query}"))
    try:
        metadata = form.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        found = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
    else:
        if repository.revision in (None, metadata.sha):
            return metadata
        found = f"those of commit {metadata.sha}"
    expected = f"expected metadata of {client().constants.ENDPOINT}"
    raise StudyError(f"{repository}: {expected}, found {found}; {METADATA_REMEDY}")


def check_access(repository: Repository) -> None:
    """Raises `StudyError` unless the repository has this commit and this account may read its files."""
    repository_info(repository)
    with as_study_errors(repository):
        read(str(repository), repository.api("/auth-check"))


def link_or_copy(file: Path, target: Path) -> None:
    """A hard link, or a copy where links are not supported or the target is on another disk."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _fetch(repository: Repository, file: RemoteFile, target: Path, partial: Path) -> None:
    """Download one file, resuming at the end of `partial`. A file that is at `target` was checked before."""
    if target.exists():
        return
    for path in (target, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not partial.exists() or partial.stat().st_size < file.size:
        with as_study_errors(repository, file.path):
            download(f"{repository}: {file.path}", repository.url(file.path), file.size, partial)
    if (found := file.checksum_of(partial)) != file.checksum:
        partial.unlink()
        found += f"; the file is deleted: {REPORT}"
        raise StudyError(f"{repository}: {file.path}: expected checksum {file.checksum}, found {found}")
    os.replace(partial, target)


@contextlib.contextmanager
def as_study_errors(repository: Repository, file: str = "") -> Iterator[None]:
    """Raise huggingface_hub's errors as a `StudyError` of one line, with what to do."""
    library = client()
    import httpx2
    from huggingface_hub import constants, errors

    place = f"{repository}: {file}" if file else str(repository)
    page = repository.page
    token = "HF_TOKEN is set" if library.get_token() else "no HF_TOKEN is set"
    try:
        yield
    except errors.GatedRepoError:
        message = f"expected access to a gated repository, found none ({token}); accept its terms at {page}"
        raise StudyError(f"{place}: {message}, then set HF_TOKEN to a token that may read it") from None
    except errors.RepositoryNotFoundError:
        message = f"expected a {repository.kind}, found none that this account may see ({token})"
        raise Missing(f"{place}: {message}; check its name, and HF_TOKEN if it is private: {page}") from None
    except errors.RevisionNotFoundError:
        raise StudyError(f"{place}: expected that commit, found none; take one from {page}/commits/main") from None
    except errors.EntryNotFoundError:
        raise StudyError(f"{place}: expected the file, found none at this commit; see {page}") from None
    except errors.OfflineModeIsEnabled:
        message = "HF_HUB_OFFLINE is set; unset it where the hub can be reached, or set `path:`"
        raise Unreachable(f"{place}: {message}") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no status")
        remedy = "check what HF_TOKEN allows" if status in (401, 403) else "try again later"
        message = f"found HTTP status {status} ({token}); {remedy}"
        raise StudyError(f"{place}: expected a response from {constants.ENDPOINT}, {message}") from None
    except (httpx2.RequestError, httpx2.InvalidURL, ConnectionError) as error:
        message = f"found {type(error).__name__}; check the network, HF_ENDPOINT and the proxy"
        raise Unreachable(f"{place}: expected to reach {constants.ENDPOINT}, {message}, or set `path:`") from None
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:  # of the library, for other JSON
        message = f"found another ({type(error).__name__}); check HF_ENDPOINT and the proxy"
        raise StudyError(f"{place}: expected a response as the hub's from {constants.ENDPOINT}, {message}") from None
