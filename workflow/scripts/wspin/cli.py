"""What every program does around its work: read flags, end in one line on the user's mistakes, leave a record."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from wspin.config.base import Section
from wspin.config.flags import add_flags, from_flags
from wspin.errors import StudyError
from wspin.storage import provenance


def parser(program: str, description: str | None, *sections: type[Section]) -> argparse.ArgumentParser:
    """A parser with the flags of the given sections; the program adds its files."""
    made = argparse.ArgumentParser(
        prog=f"{program}.py",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.set_defaults(program=program, started=time.time())
    for section in sections:
        add_flags(made, section)
    return made


def settings(arguments: argparse.Namespace, section: type[Section]) -> Any:
    """The section that the flags describe. Raises `StudyError` if one is missing that the others make it read."""
    made = from_flags(arguments, section)
    for key in sorted(getattr(made, "reads", ())):
        if getattr(made, key) is None:
            flag = "--" + key.replace("_", "-")
            raise StudyError(f"{flag}: expected a value, found none; nothing is defaulted silently")
    return made


def leave_record(arguments: argparse.Namespace, outputs: Iterable[str], inputs: Iterable[str], **more: Any) -> None:
    """Write the record of this run beside each output."""
    entry = provenance.record(arguments.program, arguments.started, list(inputs), **more)
    for output in outputs:
        provenance.write_record(output, entry)


def run(main: Callable[[], None]) -> None:
    """Run a program: a `StudyError` or a failed disk ends it with one line per mistake and exit code 1."""
    name = Path(sys.argv[0]).name
    try:
        main()
    except StudyError as error:
        for line in str(error).splitlines():
            print(f"{name}: error: {line}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"{name}: error: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        print(f"{name}: error: the GPU has too little memory; lower token_budget or batch_size", file=sys.stderr)
        sys.exit(1)
    finally:
        gc.freeze()  # Python looks for garbage as it ends: in all of torch, for half a second
