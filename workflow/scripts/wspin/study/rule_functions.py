"""The functions behind the inputs and params of rules.

Flags are functions of wildcards alone. Snakemake compares such params and re-runs a job when they change; a function
that takes `resources` is left out of these re-run checks.
"""

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any


def flags(method: Callable[..., Any]) -> Callable[..., Any]:
    """The flags of a rule's program: the sections of the config that it depends on, resolved for these wildcards."""
    return _with_signature(lambda wildcards: method(**wildcards))


def inputs(method: Callable[..., Any]) -> Callable[..., Any]:
    """An input function: what a method of the study's paths returns for the wildcards that it takes."""
    names = signature(method).parameters
    return _with_signature(lambda wildcards: method(**{name: wildcards[name] for name in names}))


def _with_signature(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its signature stored: Snakemake inspects it several times per job."""
    function.__signature__ = signature(function)
    return function


def local_files(path: str | Path | None, pattern: str = "**/*") -> list[str]:
    """The files of a local source, so that an edit of them triggers a re-run; nothing for other sources."""
    return sorted(str(file) for file in Path(path).glob(pattern) if file.is_file()) if path else []
