"""Checksums within files: what is read back is what was written, or one line names the file.

A file of the study holds one entry `wspin-sha256:{digest}:wspin`, the sha256 of all its other bytes, where its format
allows any: between the pages and the footer of a parquet file, as a value of a JSON object. Files without an entry,
those of earlier versions and of other programs, are read as they are. As the entry has a mark at each end, no changed
byte makes a file with one look like a file without.
"""

import hashlib
import os
import re
from pathlib import Path

from wspin.errors import StudyError

from .opening import readable

START, END, DIGITS = b"wspin-sha256:", b":wspin", 64
CUT = re.compile(b"[0-9a-f]{%d}%s" % (DIGITS, END))  # an entry without its beginning; other texts may hold the end too


def entry(digest: str) -> bytes:
    """The entry of a file whose other bytes have this sha256 in hex."""
    return START + digest.encode() + END


def read_checked(path: str | Path, remedy: str = "delete it and run again") -> bytes:
    """The bytes of a file, compared with its checksum if it holds one.

    Raises `StudyError` if they differ, or for what is no file or larger than this machine's memory.
    """
    with open(path, "rb", opener=readable) as file:
        size, memory = os.fstat(file.fileno()).st_size, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if size > memory:
            raise StudyError(f"{path}: expected a file that fits in memory, found {size / 1e9:.0f} GB; {remedy}")
        content = file.read()
    start = content.rfind(START)
    if start < 0 and not CUT.search(content):
        return content
    end = start + len(START) + DIGITS
    others = hashlib.sha256(memoryview(content)[: max(start, 0)])
    others.update(memoryview(content)[end + len(END) :])
    if start < 0 or content[start : end + len(END)] != entry(others.hexdigest()):
        difference = "expected the bytes of its checksum, found others: it is damaged or cut off"
        raise StudyError(f"{path}: {difference}; {remedy}")
    return content
