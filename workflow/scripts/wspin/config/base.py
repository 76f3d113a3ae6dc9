"""The base class of configuration sections, the types of their values, and checks that several of them share."""

import math
import os
import re
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator

from wspin.credentials import without_credentials

T = TypeVar("T")
LARGEST = 10**9  # of a count: above it are slips, which would fill memory or never end
MOST_ROUNDS = 1000  # iterations of an arm
MOST_DRAWS = 10**6  # of the bootstrap
LONGEST_PART = 255  # bytes of a file's name, on the usual file systems
LONGEST_NAME = 100  # characters
# Names on the hub, which `hub_name` limits further: without `--`, `..` and `.git` at the end
_PART = r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
ENTRY_NAME = r"[a-z][a-z0-9_.-]*"  # of models and arms
# A row of a published table: method, iteration, variant
ROW = r"^([\w.+-]+)(?:@(\d+))?(?: \(([^()]+)\))?$"
HUB_NAME, PUSH_NAME = rf"^({_PART}/)?{_PART}$", rf"^{_PART}/{_PART}$"


def _no_truth_value(value: Any) -> Any:
    """Python takes `true` for 1."""
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


def _setting(value: Any) -> Any:
    if not isinstance(value, (bool, int, float, str)) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("expected a finite number, text, true or false")
    return _without_secrets(value) if isinstance(value, str) else value


def _without_secrets(text: str) -> str:
    """The configuration is copied to the results, records and cards."""
    if without_credentials(text) != text:
        raise ValueError("expected no user, password, token or query of an address; set them in the environment")
    return text


def _text(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("expected text in one line, without blanks around it or control characters")
    return _without_secrets(text)


def _path(path: str) -> str:
    """A path as the shell, Snakemake and the file system will all read it."""
    if path.startswith("~") or "$" in path:
        raise ValueError(f"expected a path without `~` and `$`, which are not expanded here; write {_expanded(path)}")
    if "{" in path or "}" in path:
        raise ValueError("expected a path without braces, which are wildcards to Snakemake; rename the folder")
    if re.search(r"<.*>", path):
        raise ValueError("expected a path without `<...>`, which is a variable to Snakemake; rename the folder")
    if path.startswith("-"):
        raise ValueError("expected a path that begins without `-`, as options do; rename the folder")
    if any(len(part.encode()) > LONGEST_PART for part in path.split("/")):
        raise ValueError(f"expected names of at most {LONGEST_PART} bytes in a path; shorten them")
    return _text(path)


def _expanded(path: str) -> str:
    expanded = os.path.expandvars(os.path.expanduser(path))
    return "it out" if expanded == path else expanded


def hub_name(name: str) -> str:
    """A name that the hub may have for a repository. Raises `ValueError` for another."""
    if not re.fullmatch(HUB_NAME, name):
        raise ValueError(f"expected {PATTERNS[HUB_NAME]}")
    if re.search(r"--|\.\.|\.git$", name):
        raise ValueError("expected a name without `--`, `..` and a `.git` at its end, as on the hub; correct it")
    return name


NoTruthValue = BeforeValidator(_no_truth_value)
Number = Annotated[FiniteFloat, NoTruthValue]
Positive = Annotated[FiniteFloat, Field(gt=0.0), NoTruthValue]
NotNegative = Annotated[FiniteFloat, Field(ge=0.0), NoTruthValue]
Share = Annotated[FiniteFloat, Field(ge=0.0, le=1.0), NoTruthValue]
Fraction = Annotated[FiniteFloat, Field(gt=0.0, le=1.0), NoTruthValue]
BelowHalf = Annotated[FiniteFloat, Field(ge=0.0, lt=0.5), NoTruthValue]
Confidence = Annotated[FiniteFloat, Field(gt=0.0, lt=1.0), NoTruthValue]
Count = Annotated[int, Field(gt=0, le=LARGEST), NoTruthValue]
CountOrZero = Annotated[int, Field(ge=0, le=LARGEST), NoTruthValue]
Draws = Annotated[int, Field(ge=2, le=MOST_DRAWS), NoTruthValue]
Rounds = Annotated[int, Field(gt=0, le=MOST_ROUNDS), NoTruthValue]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1), NoTruthValue]  # as numpy and lm-eval take it
PerIteration = Annotated[T | list[T], Field(union_mode="left_to_right")]
Setting = Annotated[int | float | str | bool, BeforeValidator(_setting)]
Text = Annotated[str, Field(min_length=1), AfterValidator(_text)]
FilePath = Annotated[str, Field(min_length=1), AfterValidator(_path)]
Hub = Annotated[str, Field(pattern=HUB_NAME), AfterValidator(hub_name)]
RowName = Annotated[str, Field(pattern=ROW)]
PushTo = Annotated[str, Field(pattern=PUSH_NAME), AfterValidator(hub_name)]
Split = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
Task = Annotated[str, Field(pattern=r"^[\w.+-]+$")]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FolderName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=LONGEST_NAME)]
Name = Annotated[str, Field(pattern=f"^{ENTRY_NAME}$", max_length=LONGEST_NAME)]
PATTERNS = {  # in the words of messages
    r"^\w[\w.-]*$": "the name of a split, without slices or folders; `prompts` and `pairs` limit its rows",
    r"^[\w.+-]+$": "the name of a task of lm-eval, without folders",
    HUB_NAME: "a name on the hub, `owner/name`; a local folder is given as `path`",
    r"^[0-9a-f]{40}$": "the 40 hex digits of a commit; `make revisions` looks them up where the key is missing",
    ROW: "a row as `method`, `method@iteration`, `method (variant)` or `method@iteration (variant)`",
    PUSH_NAME: "a repository on the hub, `owner/name`",
    r"^[0-9a-f]{64}$": "the 64 hex digits of a checksum",
    r"^[a-z][a-z0-9_-]*$": "the name of a folder, of a-z, 0-9, `_` and `-`, that begins with a letter",
    f"^{ENTRY_NAME}$": "a name of a-z, 0-9, `_`, `.` and `-` that begins with a letter; rename it",
}
Engine = Literal["transformers", "vllm"]
PRECISIONS = ("float32", "bfloat16")
Precision = Literal[PRECISIONS]


class Section(BaseModel):
    """A part of the configuration. Unknown keys are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @property
    def required_keys(self) -> frozenset[str]:
        """The optional keys that the values of the other keys make necessary."""
        return frozenset()

    def missing_keys(self) -> list[str]:
        return [key for key in sorted(self.required_keys) if getattr(self, key) is None]

    @classmethod
    def optional_keys(cls) -> frozenset[str]:
        return frozenset(name for name, info in cls.model_fields.items() if not info.is_required())

    def without_unused_keys(self) -> Self:
        """The same section without optional keys that are not required: an edit of those re-runs nothing."""
        return self.model_copy(update=dict.fromkeys(self.optional_keys() - self.required_keys))


class Replicated(Section):
    """What may be trained several times, each time with other random numbers."""

    seed: Seed | None = Field(None, description="seed of a replicate; default: the study's `seed`")
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = Field(
        None,
        description="a replicate for each of these seeds: the study's keeps the name, the others are `{name}.s{seed}`",
    )

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.seed is not None and self.seeds is not None:
            raise ValueError("expected seed or seeds, found both; remove one")
        return self


def source_key(section: Section, *keys: str) -> str:
    """The one key of `keys` that has a value: where a section takes what it describes from.

    Raises `ValueError` if several or none have one, or for a hub name without a commit hash: without it the files
    behind the name could change during a study.
    """
    given = [key for key in keys if getattr(section, key) is not None]
    if len(given) != 1:
        expected, found = (", ".join(key.rstrip("_") for key in names) for names in (keys, given))
        remedy = "set the others to null" if given else "give one"
        raise ValueError(f"expected exactly one of {expected}, found {found or 'none'}; {remedy}")
    if (section.hub is None) != (section.revision is None):
        raise ValueError(
            "hub and revision belong together: a name on the hub and the 40 hex digits of a commit; "
            "`make revisions` looks up missing commits"
        )
    return given[0]
