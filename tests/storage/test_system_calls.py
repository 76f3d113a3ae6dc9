"""Flushes and locks that the system refuses."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from wspin.storage import files, locks


@pytest.mark.fault(
    "storage",
    "a disk that fails while a file is flushed",
    "the file keeps its former content",
    "`results/x.json: Input/output error`",
)
def test_a_flush_that_fails(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    files.write_json(path, 1)

    def fails(handle):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError) as error:
        files.write_json(path, 2)
    assert error.value.filename == str(path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["1\n"]


@pytest.mark.fault(
    "storage",
    "a file system without locks (NFS without its lock daemon)",
    "the program ends before it computes",
    "`results/.state/….lock: No locks available`",
)
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("lock", ["state", "alive", "driver"])
def test_a_lock_that_cannot_be_taken(tmp_path, monkeypatch, number, lock):
    def fails(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fails)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake").mkdir()
    with pytest.raises(OSError) as error:
        if lock == "state":
            with locks.locked(Path("state")):
                pass
        else:
            {"alive": locks.show_alive, "driver": locks.show_driver}[lock]()
    assert error.value.filename == {"state": "state.lock"}.get(lock, f".snakemake/{lock}")
