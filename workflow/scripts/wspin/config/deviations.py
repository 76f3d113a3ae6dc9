"""docs/deviations.md: what papers, released code and this study set, from `config/published/settings.yaml`.

It is rewritten by `python tests/update.py`; a test fails while it differs from the configuration.
"""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter

from wspin.errors import StudyError

from .base import Section, Text
from .document import flow_text
from .reader import read_plain, read_text
from .study import Study

SETTINGS = "config/published/settings.yaml"
MOST_NODES = 5000
INTRODUCTION = """\
# Deviations

<!-- Generated from config/published/settings.yaml and config/config.yaml by `python tests/update.py`. -->

What the papers say, what their released code does, and what this study sets, with the reason. The fourth column is
the default configuration, `config/config.yaml`; an [overlay](../config/overlays/README.md) may set other values. SPIN:
arXiv 2401.01335v3 and its code; SWIFT: NeurIPS 2025 (OpenReview 3VvdoCcVPU) and its code; WSPIN: SWIFT's earlier code.
Published results are in [published.md](published.md), faults of the released code in
[from-the-original.md](from-the-original.md#what-the-published-code-computes).

| point | paper | released code | this study | reason |
|---|---|---|---|---|
"""


class Setting(Section):
    """A point on which papers, code and this study may differ; sources -> what they say."""

    point: Text
    paper: dict[str, int | float | Text] = Field(min_length=1)
    code: dict[str, int | float | Text] = Field(min_length=1)
    keys: list[Text] = []
    study: Text | None = None
    reason: Text


def read_settings(path: str | Path) -> list[Setting]:
    """The points of a file of settings. Raises `StudyError` for what is no YAML, `ValidationError` for other points."""
    return TypeAdapter(list[Setting]).validate_python(read_plain(read_text(Path(path)), str(path), MOST_NODES))


def deviations(settings: Sequence[Setting], study: Study) -> str:
    """The page. Raises `StudyError` for a key that the study does not have, or that two points show."""
    values, shown = study.model_dump(mode="json", by_alias=True), set()
    lines = []
    for setting in settings:
        if repeated := shown & {*setting.keys}:
            raise StudyError(f"{setting.point}: expected keys of no other point, found {', '.join(repeated)}")
        shown.update(setting.keys)
        ours = [f"`{key}`: `{flow_text(_value(values, setting.point, key))}`" for key in setting.keys]
        cells = (
            setting.point,
            _by_source(setting.paper),
            _by_source(setting.code),
            "; ".join(ours) or setting.study,
            setting.reason,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return INTRODUCTION + "".join(lines)


def _by_source(sources: dict[str, Any]) -> str:
    return "; ".join(f"{source}: {text}" for source, text in sources.items())


def _value(values: dict[str, Any], point: str, key: str) -> Any:
    try:
        return reduce(lambda section, name: section[name], key.split("."), values)
    except (KeyError, TypeError):
        raise StudyError(f"{point}: expected a key of the configuration, found {key!r}; correct it") from None
