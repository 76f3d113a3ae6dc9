"""Files get the modes of the umask, whatever library wrote them; who may not read or write is told whom to ask."""

import errno
import os
import stat
import struct
from types import SimpleNamespace

import pytest
import torch
from attacks import attack
from safetensors.torch import save_file

from wspin.errors import StudyError
from wspin.fetch import hub
from wspin.storage.files import whole_file, whole_folder
from wspin.storage.permissions import check_writable, denial
from wspin.train import journal


@pytest.fixture(params=[0o022, 0o002, 0o027, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder):
    """Path -> mode, of a folder and all below it."""
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


def save_weights(path):
    save_file({"weight": torch.zeros(2)}, path)


@attack("shared folders", "weights that their library writes for their owner alone", "files get the modes of the umask")
def test_a_whole_file_and_folder_have_the_modes_of_the_umask(tmp_path, umask):
    with whole_file(tmp_path / "a.safetensors") as path:
        save_weights(path)
    with whole_folder(tmp_path / "model") as folder:
        save_weights(folder / "model.safetensors")
        (folder / "below").mkdir(mode=0o700)
        (folder / "below/tool").touch()
        (folder / "below/tool").chmod(0o4755)
    file, place = 0o666 & ~umask, 0o777 & ~umask
    assert modes(tmp_path / "model") == {".": place, "below": place, "below/tool": file, "model.safetensors": file}
    assert modes(tmp_path)["a.safetensors"] == file


def test_a_saved_state_has_the_modes_of_the_umask(tmp_path, umask):
    saved = tmp_path / "checkpoint-2"
    saved.mkdir()
    save_weights(saved / "model.safetensors")
    torch.save({}, saved / "optimizer.pt")
    journal.mark_complete(saved)
    file = 0o666 & ~umask
    expected = dict.fromkeys(("model.safetensors", "optimizer.pt", journal.COMPLETE), file)
    assert modes(saved) == {".": 0o777 & ~umask, **expected}


def test_what_a_killed_process_left_in_a_saved_state_is_no_part_of_it(tmp_path):
    """The step is saved again into the same folder."""
    (tmp_path / ".complete.0a1b2c3d").mkdir()
    (tmp_path / "optimizer.pt").touch()
    journal.mark_complete(tmp_path)
    assert journal.is_whole(tmp_path)


@pytest.mark.parametrize("copy", [hub.link_or_copy, hub.shutil.copyfile])
def test_copies_and_links_of_private_and_executable_files(tmp_path, umask, copy):
    source = tmp_path / "source"
    source.mkdir()
    for name, mode in (("private", 0o600), ("read-only", 0o444), ("tool", 0o777)):
        (source / name).touch()
        (source / name).chmod(mode)
    with whole_folder(tmp_path / "copy") as folder:
        hub.copy_files(source, sorted(source.iterdir()), folder, copy)
    file = 0o666 & ~umask
    assert modes(tmp_path / "copy") == {".": 0o777 & ~umask, "private": file, "read-only": file, "tool": file}


def test_a_folder_of_a_group_stays_one(tmp_path):
    """Setgid is inherited, and the group with it."""
    os.chown(tmp_path, -1, os.getegid())
    tmp_path.chmod(0o2770)
    before = os.umask(0o002)
    try:
        with whole_folder(tmp_path / "model") as folder:
            (folder / "below").mkdir()
            save_weights(folder / "model.safetensors")
        with whole_folder(tmp_path / "model") as folder:
            (folder / "below").mkdir()
            save_weights(folder / "model.safetensors")
    finally:
        os.umask(before)
    assert modes(tmp_path / "model") == {".": 0o2775, "below": 0o2775, "model.safetensors": 0o664}


def test_a_default_acl_stands_in_place_of_the_umask(tmp_path, umask):
    """The members of a group that it names may write what a library wrote for its owner alone."""
    owner, group, named, mask, other = (1, 7), (4, 5), (8, 7), (16, 7), (32, 0)  # (tag, rwx), as in acl(5)
    entries = [struct.pack("<HHI", *entry, 48100 if entry == named else 2**32 - 1) for entry in (owner, group, named)]
    entries += [struct.pack("<HHI", *entry, 2**32 - 1) for entry in (mask, other)]
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", struct.pack("<I", 2) + b"".join(entries))
    except OSError as error:
        pytest.skip(f"no ACL on this file system: {error}")
    with whole_folder(tmp_path / "model") as folder:
        save_weights(folder / "model.safetensors")
        (folder / "below").mkdir()
    with whole_file(tmp_path / "a.safetensors") as path:
        save_weights(path)
    assert modes(tmp_path / "model") == {".": 0o770, "below": 0o770, "model.safetensors": 0o660}
    assert modes(tmp_path)["a.safetensors"] == 0o660  # the bits of the group are the mask


def test_links_in_a_folder_are_left_alone(tmp_path):
    outside = tmp_path / "outside"
    outside.touch(mode=0o600)
    with whole_folder(tmp_path / "model") as folder:
        (folder / "link").symlink_to(outside)
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600


def test_folders_that_are_links_to_nowhere_are_one_line(tmp_path, monkeypatch):
    """As those to a scratch disk that has been cleaned."""
    monkeypatch.chdir(tmp_path)
    for name in ("results", "model"):
        os.symlink("/nowhere/scratch", name)
    with pytest.raises(StudyError) as error:
        check_writable(["results/wspin/model"])
    expected = "expected a folder, found a link to /nowhere/scratch, which cannot be reached"
    assert str(error.value) == f"results: {expected}; make that, or remove the link"
    check_writable(["model"])  # an output takes the place of a link


def test_a_read_only_file_system_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    line = denial(PermissionError(errno.EACCES, "", str(tmp_path / "results")))
    assert line == f"{tmp_path}: expected permission to write there, found a read-only file system; use another folder"
