"""Checksums within files: what is read back is what was written, or one line names the file.

A file of the study holds one entry `wspin-sha256:{digest}:wspin`, the sha256 of all its other bytes, where its format
allows any: between the pages and the footer of a parquet file, as a value of a JSON object. Files without an entry,
those of earlier versions and of other programs, are read as they are. As the entry has a mark at each end, no changed
byte makes a file with one look like a file without. Long tables also hold the sha256 of their first row group and
their footer.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO

from wspin.errors import StudyError

from .opening import readable

START, END, DIGITS = b"wspin-sha256:", b":wspin", 64
HEAD = re.compile(rb"wspin-head:([0-9]{12}):([0-9a-f]{64}):")  # the bytes of the first row group, and its sha256
HEAD_LENGTH, LENGTH = len("wspin-head:") + 12 + 1 + DIGITS + 1, len(START) + DIGITS + len(END)
DAMAGED = "expected the bytes of its checksum, found others: it is damaged or cut off"
CUT = re.compile(b"[0-9a-f]{%d}%s" % (DIGITS, END))  # an entry without its beginning; other texts may hold the end too


def entry(digest: str) -> bytes:
    """The entry of a file whose other bytes have this sha256 in hex."""
    return START + digest.encode() + END


def head_entry(head: bytes, footer: bytes) -> bytes:
    """The entry for the first row group of a parquet file, which begins at the file's beginning, and for its footer."""
    return b"wspin-head:%012d:%s:" % (len(head), hashlib.sha256(head + footer).hexdigest().encode())


def footer_start(file: BinaryIO) -> int:
    """The offset of a parquet file's footer; negative if its last bytes are none of such a file."""
    end = file.seek(0, os.SEEK_END) - 8  # the length of the footer in four bytes, and the format's name
    file.seek(max(0, end))
    return end - int.from_bytes(file.read(4), "little")


def read_head(path: str | Path, remedy: str = "delete it and run again") -> bytearray | None:
    """A parquet file with zeros for all but its first row group and its footer, compared with their checksum.

    None if it holds no such checksum: read all of it then. Raises as `read_checked`.
    """
    with open(path, "rb", opener=readable) as file:
        size = _checked_size(path, file.fileno(), remedy)
        start = footer_start(file) - LENGTH - HEAD_LENGTH
        file.seek(max(0, start))
        found = HEAD.match(entries := file.read())
        if not found or start < 0:
            return None
        file.seek(0)
        head, footer = file.read(min(int(found[1]), start)), entries[HEAD_LENGTH + LENGTH :]
    if found[0] != head_entry(head, footer):
        raise StudyError(f"{path}: {DAMAGED}; {remedy}")
    content = bytearray(size)  # takes memory where it is written
    content[: len(head)], content[size - len(footer) :] = head, footer
    return content


def read_checked(path: str | Path, remedy: str = "delete it and run again") -> bytes:
    """The bytes of a file, compared with its checksum if it holds one.

    Raises `StudyError` if they differ, or for what is no file or larger than this machine's memory.
    """
    with open(path, "rb", opener=readable) as file:
        _checked_size(path, file.fileno(), remedy)
        content = file.read()
    start = content.rfind(START)
    if start < 0 and not CUT.search(content):
        return content
    end = start + len(START) + DIGITS
    others = hashlib.sha256(memoryview(content)[: max(start, 0)])
    others.update(memoryview(content)[end + len(END) :])
    if start < 0 or content[start : end + len(END)] != entry(others.hexdigest()):
        raise StudyError(f"{path}: {DAMAGED}; {remedy}")
    return content


def _checked_size(path: str | Path, handle: int, remedy: str) -> int:
    """Bytes of an open file. Raises `StudyError` if this machine's memory has less."""
    size, memory = os.fstat(handle).st_size, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise StudyError(f"{path}: expected a file that fits in memory, found {size / 1e9:.0f} GB; {remedy}")
    return size
