"""What is put in place of a study's files, where they are read: a line names it, and no reader waits or takes it in."""

import os
import socket

import pytest
from attacks import attack

from wspin.errors import StudyError
from wspin.models import checks, folders
from wspin.report import comparison
from wspin.storage import files, tables
from wspin.storage.provenance import read_record

READERS = {
    "table": lambda path: tables.read(path, "prompts"),
    "record": read_record,
    "manifest": folders.read_manifest,
    "hash": files.sha256,
    "weights": checks.check_stored,
    "averages": comparison.read_averages,
}


def refusal(reader):
    """The line with which `input`, a path of the current folder, is refused."""
    with pytest.raises(StudyError) as error:
        reader("input")
    return str(error.value)


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@attack(
    "shared folders",
    "a named pipe in place of a table, record, manifest, model file or CSV that is read",
    "input: expected a file, found a named pipe; remove it",
)
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_pipe_is_not_waited_for(reader, outcome):
    os.mkfifo("input")
    assert refusal(reader) == outcome


@attack(
    "shared folders",
    "a link to a device without end (`/dev/zero`) in place of a file that is read",
    "input: expected a file, found a device; remove it",
)
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_device_is_not_read(reader, outcome):
    os.symlink("/dev/zero", "input")
    assert refusal(reader) == outcome


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_link_is_followed_and_a_folder_or_socket_is_no_file(reader, tmp_path):
    os.mkdir("input")
    assert refusal(reader) == "input: expected a file, found a folder; remove it"
    os.rmdir("input")
    server = socket.socket(socket.AF_UNIX)
    server.bind("input")
    with pytest.raises((OSError, StudyError), match="No such device or address"):
        reader("input")
    server.close()
    os.unlink("input")
    (tmp_path / "file").write_bytes(b"content")
    os.symlink("file", "input")
    if reader in (READERS["hash"], READERS["weights"]):
        reader("input")
    else:
        assert "found a link" not in refusal(reader)


@attack(
    "shared folders",
    "a sparse file of terabytes in place of a table or record",
    "input: expected a file that fits in memory, found 8796 GB; {remedy}",
)
@pytest.mark.parametrize(
    ("name", "remedy"), [("table", "delete it and run again"), ("record", "make the result again")]
)
def test_a_file_larger_than_memory_is_not_read(name, remedy, outcome):
    with open("input", "wb") as file:
        file.truncate(2**43)
    assert refusal(READERS[name]) == outcome.format(remedy=remedy)
