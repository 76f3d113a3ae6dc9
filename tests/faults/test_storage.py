"""Disks that are full, read-only or that change what they hold: one line, nothing half-written, and a way on."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from faults.points import Operation
from faults.stages import Job, Study
from runs import DEMO

PAGE = 4096  # bytes, of which a tmpfs gives whole ones
DATA = ("sft", "heldout", "preferences")
WRITERS = ["data", "train", "generate", "logprobs_reference", "weigh", "eval", "report_scores"]


class Disk:
    """A small file system of its own, mounted at a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()

    def mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.folder]
        return subprocess.run(command, capture_output=True).returncode == 0

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.folder], check=True)

    def empty(self) -> None:
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def used(self) -> tuple[int, int]:
        """(bytes, inodes)"""
        found = os.statvfs(self.folder)
        return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_files - found.f_ffree


@pytest.fixture
def disk(tmp_path):
    made = Disk(tmp_path / "disk")
    if not made.mount("size=64m,nr_inodes=10000"):
        pytest.skip("mounting a small file system needs root")
    yield made
    subprocess.run(["umount", "--lazy", made.folder], check=True)


def on_disk(job: Job, disk: Disk) -> Job:
    """The job with its outputs and its state on another disk."""

    def place(word: str) -> str:
        moved = word in job.outputs or word.startswith(f"{DEMO}/.state/")
        return str(disk.folder / word.removeprefix(f"{DEMO}/")) if moved else word

    return replace(job, argv=tuple(map(place, job.argv)))


def outputs(job: Job, disk: Disk) -> dict[str, bytes]:
    """The outputs on a disk, without records and cards."""
    paths = [disk.folder / output.removeprefix(f"{DEMO}/") for output in job.outputs]
    found = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return {str(file): file.read_bytes() for file in found if file.name not in ("provenance.json", "README.md")}


def error_line(run) -> str:
    """The one line of an error that ends a program."""
    errors = [line for line in run.output.splitlines() if ".py: error: " in line]
    assert run.code == 1, run.output
    assert errors == run.output.splitlines()[-1:], run.output
    return errors[0]


def is_full(line: str) -> bool:
    return "No space left on device" in line or "is the disk full?" in line


def fails_until(study: Study, job: Job, disk: Disk, whole: dict[str, bytes], small: str, large: str) -> str:
    """The error on a disk that is too small; on a larger one the same job then makes the same files."""
    disk.empty()
    disk.remount(small)
    line = error_line(study.run(job))
    assert not outputs(job, disk).keys() - whole.keys()
    for name, content in outputs(job, disk).items():
        assert content == whole[name], name
    disk.remount(large)
    again = study.run(job)
    assert again.code == 0, again.output
    assert outputs(job, disk) == whole
    return line


@pytest.mark.faults
@pytest.mark.fault(
    "storage",
    "a disk that fills up, at a quarter, half and three quarters of what a program writes",
    "the program ends; after space is made it goes on, and its files are the same",
    "`generate.py: error: results/…/00.parquet: No space left on device`",
)
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk(tiny, disk, name):
    job = on_disk(tiny.job(name), disk)
    assert tiny.run(job).code == 0
    whole, (used, _) = outputs(job, disk), disk.used()
    for share in (0.25, 0.5, 0.75):
        size = int(used * share) // PAGE * PAGE
        line = fails_until(tiny, job, disk, whole, f"size={max(size, PAGE)}", "size=64m")
        assert is_full(line), line


@pytest.mark.faults
@pytest.mark.fault(
    "storage",
    "a file system without inodes left",
    "as a full disk",
    "`weigh.py: error: results/…/00.parquet: No space left on device`",
)
@pytest.mark.parametrize("name", WRITERS)
def test_no_inodes_left(tiny, disk, name):
    job = on_disk(tiny.job(name), disk)
    assert tiny.run(job).code == 0
    whole, (_, inodes) = outputs(job, disk), disk.used()
    for number in (inodes // 3, inodes - 2):
        line = fails_until(tiny, job, disk, whole, f"nr_inodes={max(number, 2)}", "nr_inodes=10000")
        assert is_full(line), line


@pytest.mark.faults
@pytest.mark.fault(
    "storage",
    "a file system that has become read-only",
    "the program ends; afterwards it runs as usual",
    "`data.py: error: results/data: Read-only file system`",
)
@pytest.mark.parametrize("name", WRITERS)
def test_a_read_only_file_system(tiny, disk, name):
    job = on_disk(tiny.job(name), disk)
    assert tiny.run(job).code == 0
    whole = outputs(job, disk)
    line = fails_until(tiny, job, disk, whole, "ro", "rw")
    assert "ead-only file system" in line, line


@pytest.mark.faults
@pytest.mark.fault(
    "storage",
    "a disk that takes long to flush a file, while a second program makes the same one",
    "nothing gets its name before it is on the disk; the second waits, or writes the same whole file",
    "nothing",
)
@pytest.mark.parametrize("name", WRITERS)
def test_a_slow_flush(tiny, name):
    job = tiny.job(name)
    tiny.remove(tiny.job("manage.py push"))
    whole = tiny.published()
    tiny.reset(job)
    with ThreadPoolExecutor(2) as pool:
        slow, other = pool.map(lambda seconds: tiny.program(job, flush=seconds).run(), (0.2, 0.0))
    assert (slow.code, other.code) == (0, 0), slow.output + other.output
    assert tiny.published() == whole
    assert list(unflushed(slow.operations)) == []


def unflushed(operations: Sequence[Operation]) -> Iterator[str]:
    """What got another name before it was flushed to the disk."""
    flushed = set()
    for operation in operations:
        if operation.kind == "fsync":
            flushed.add(operation.path)
        elif operation.kind == "rename" and operation.path not in flushed:
            yield operation.path


# Files that are damaged after they were written


def cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def read_files(study: Study, job: Job) -> list[Path]:
    """The results of other jobs that a job reads, without hashes of fetched folders, which it copies to its record."""
    made = [study.folder / output for output in job.outputs]
    others = ("provenance.json", "README.md", "config.yaml", *(f"fetched/{name}.json" for name in DATA))
    found = [file for file in study.run(job).read if file.is_relative_to(study.results) and file.is_file()]
    found = [file for file in found if "/." not in str(file) and not str(file).endswith(others)]
    return sorted(file for file in found if not any(file.is_relative_to(path) for path in made))


def maker(study: Study, file: Path) -> Job:
    """The job that made a file."""
    name = str(file.relative_to(study.folder))
    return next(job for job in study.planned if any(f"{name}/".startswith(f"{output}/") for output in job.outputs))


AGAIN = "refused by every program that reads it; its job alone makes it again"
DAMAGES = {
    flip: (
        "a changed bit in a file of the results",
        "`00.parquet: expected the bytes of its checksum, found others …`",
    ),
    cut: (
        "a file of the results that is cut off",
        "`00.parquet: expected the bytes of its checksum, found others …`",
    ),
    remove: (
        "a file of the results that is missing",
        "`…/model: expected the 5 files of …, found no file …`",
    ),
}


@pytest.mark.faults
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage, marks=pytest.mark.fault("storage", broken, AGAIN, line))
        for damage, (broken, line) in DAMAGES.items()
    ],
)
def test_a_damaged_file(tiny, damage):
    tiny.remove(tiny.job("manage.py push"))
    whole = tiny.published()
    for job in (job for job in tiny.jobs() if job in tiny.planned):
        rng = random.Random(f"{job.name} {damage.__name__}")
        for file in rng.sample(files := read_files(tiny, job), min(1, len(files))):
            damage(file, rng)
            line = error_line(tiny.run(job))
            assert file.name in line or file.parent.name in line, (file, line)
            tiny.remove(maker(tiny, file))
            assert tiny.run(maker(tiny, file)).code == 0
            assert tiny.published() == whole
            assert tiny.run(job).code == 0
            assert tiny.published() == whole
