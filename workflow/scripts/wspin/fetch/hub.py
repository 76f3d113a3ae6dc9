"""The model hub: snapshots of repositories at a commit, resumed after a killed fetch, every file checked.

Files stay in a state folder until all of them are complete and match the checksums that the hub gives: sha256 of a
large file, git's blob id of a small one. HF_TOKEN and HF_ENDPOINT are read by huggingface_hub. The token is sent to the
hub alone, and errors of huggingface_hub are never quoted: they may contain the address of a signed download.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from wspin.errors import StudyError
from wspin.progress import progress_printer
from wspin.storage.files import digest, sha256
from wspin.storage.locks import discard_state, locked
from wspin.storage.opening import regular


class Unreachable(StudyError):
    """The hub cannot be reached: no network, or it is switched off."""


@dataclass(frozen=True)
class Repository:
    """A repository on the hub, at a commit."""

    name: str
    kind: Literal["model", "dataset"]
    revision: str | None  # None: the current commit of `main`

    def __str__(self) -> str:
        return f"{self.name}@{self.revision or 'main'}"


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, as the hub lists it."""

    path: str
    size: int  # bytes
    checksum: str  # sha256 of files in large storage, git's blob id of the others

    def checksum_of(self, local: Path) -> str:
        """The checksum of a local file, of the same kind."""
        return _git_blob(local.read_bytes()) if self.checksum.startswith("git blob ") else sha256(local)


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
        files = [file for file in list_files(repository) if any(fnmatch(file.path, pattern) for pattern in patterns)]
        if repository.kind == "model":  # its folders hold other formats of the same weights
            files = [file for file in files if "/" not in file.path]
        if not files:
            raise StudyError(f"{repository}: expected files like {', '.join(patterns[:4])}, found none")
        for number, file in enumerate(files, 1):
            name = f"{file.path} ({number} of {len(files)}, {file.size / 1e6:.1f} MB)"
            print(f"fetch: {repository}: {name}", flush=True)
            _fetch(repository, file, folder / "files" / file.path, folder / "partial" / file.checksum)
        yield folder / "files"
    discard_state(folder)


def fetch(repository: Repository, patterns: Sequence[str], state: str | Path | None, folder: Path) -> None:
    """Put the files of a `snapshot` into `folder`, as links where the disk allows."""
    with snapshot(repository, patterns, state) as source:
        copy_files(source, filter(Path.is_file, source.rglob("*")), folder, link_or_copy)


def copy_files(source: Path, files: Iterable[Path], folder: Path, copy: Callable[[Path, Path], Any]) -> None:
    """Copy files in `source` to the same places in `folder`."""
    for file in files:
        target = folder / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        copy(file, target)


def list_files(repository: Repository) -> list[RemoteFile]:
    """The files of a repository at its commit, sorted by path. Raises `StudyError` as `as_study_errors`."""
    siblings = sorted(repository_info(repository, files_metadata=True).siblings, key=lambda file: file.rfilename)
    checksums = [file.lfs.sha256 if file.lfs else f"git blob {file.blob_id}" for file in siblings]
    return [RemoteFile(file.rfilename, file.size, checksum) for file, checksum in zip(siblings, checksums, strict=True)]


def check_access(repository: Repository) -> None:
    """Raises `StudyError` unless the repository has this commit and this account may read its files."""
    repository_info(repository)
    with as_study_errors(repository):
        client().HfApi().auth_check(repository.name, repo_type=repository.kind)


def link_or_copy(file: Path, target: Path) -> None:
    """A hard link, or a copy where links are not supported or the target is on another disk."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def client() -> Any:
    """huggingface_hub without Xet, which keeps no partial files, so that a killed fetch would begin again.

    Its warnings are off too: they contain download addresses.
    """
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    import huggingface_hub

    huggingface_hub.logging.set_verbosity_error()
    return huggingface_hub


def repository_info(repository: Repository, **options: bool) -> Any:
    """What the hub says about a repository, its commit `sha` too. Raises `StudyError` as `as_study_errors`."""
    with as_study_errors(repository):
        api = client().HfApi()
        return api.repo_info(repository.name, repo_type=repository.kind, revision=repository.revision, **options)


def _fetch(repository: Repository, file: RemoteFile, target: Path, partial: Path) -> None:
    """Download one file, resuming at the end of `partial`. A file that is at `target` was checked before."""
    if target.exists():
        return
    for path in (target, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not partial.exists() or partial.stat().st_size < file.size:
        with as_study_errors(repository, file.path):
            _download(repository, file, partial)
    if (found := file.checksum_of(partial)) != file.checksum:
        partial.unlink()
        remedy = "the file is deleted: run again, and report to the hub or mirror if it repeats"
        raise StudyError(f"{repository}: {file.path}: expected checksum {file.checksum}, found {found}; {remedy}")
    os.replace(partial, target)


def _download(repository: Repository, file: RemoteFile, partial: Path) -> None:
    library = client()
    from huggingface_hub.file_download import get_hf_file_metadata, http_get

    source = {"repo_id": repository.name, "repo_type": repository.kind, "revision": repository.revision}
    url, headers = library.hf_hub_url(filename=file.path, **source), library.utils.build_hf_headers()
    location = get_hf_file_metadata(url, headers=headers).location
    if location.split("/")[:3] != url.split("/")[:3]:
        headers.pop("authorization", None)  # another host gets a signed address; the token is for the hub alone
    progress = {"expected_size": file.size, "displayed_filename": file.path, "tqdm_class": ProgressLines}
    with open(partial, "ab", opener=regular) as output:
        http_get(location, output, resume_size=output.tell(), headers=headers, **progress)


class ProgressLines(contextlib.AbstractContextManager):
    """Progress as a line every half minute, in place of huggingface_hub's bar."""

    def __init__(self, desc: str, total: int | None, initial: int = 0, **_: Any):
        self.received = initial  # bytes
        self.report = progress_printer(f"fetch: {desc} (kB)", (total or 0) // 1000)

    def update(self, count: int) -> None:
        self.received += count
        if self.received >= 1000:
            self.report(self.received // 1000)

    def __exit__(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def as_study_errors(repository: Repository, file: str = "") -> Iterator[None]:
    """Raise huggingface_hub's errors as a `StudyError` of one line, with what to do."""
    library = client()
    import httpx2
    from huggingface_hub import constants, errors

    place = f"{repository}: {file}" if file else str(repository)
    page = f"{constants.ENDPOINT}/{'datasets/' if repository.kind == 'dataset' else ''}{repository.name}"
    token = "HF_TOKEN is set" if library.get_token() else "no HF_TOKEN is set"
    try:
        yield
    except errors.GatedRepoError:
        message = f"expected access to a gated repository, found none ({token}); accept its terms at {page}"
        raise StudyError(f"{place}: {message}, then set HF_TOKEN to a token that may read it") from None
    except errors.RepositoryNotFoundError:
        message = f"expected a {repository.kind}, found none that this account may see ({token})"
        raise StudyError(f"{place}: {message}; check its name, and HF_TOKEN if it is private: {page}") from None
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
    except (httpx2.TransportError, ConnectionError) as error:
        message = f"found {type(error).__name__}; check the network, HF_ENDPOINT and the proxy"
        raise Unreachable(f"{place}: expected to reach {constants.ENDPOINT}, {message}, or set `path:`") from None
