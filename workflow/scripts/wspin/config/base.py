"""What every section of the configuration is made of: its base class, and the types of its values."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, WithJsonSchema

T = TypeVar("T")
PerIteration = Annotated[T | list[T], Field(union_mode="left_to_right")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
NotNegative = Annotated[FiniteFloat, Field(ge=0.0)]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]*$")]
Precision = Literal["float32", "bfloat16"]
ALIASES = {"tis-dpo": "wspin", "tisdpo": "wspin"}  # the published code's names of a loss
LOSSES = ("sft", "dpo", "spin", "wspin")
Loss = Annotated[
    Literal[LOSSES],
    BeforeValidator(lambda name: ALIASES.get(name, name) if isinstance(name, str) else name),
    WithJsonSchema({"enum": [*LOSSES, *ALIASES], "type": "string"}),
]


class Section(BaseModel):
    """A part of the configuration. Unknown keys are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def one_of(section: Section, *keys: str) -> str:
    """The one key of `keys` that is given; anything but exactly one is an error."""
    given = [key for key in keys if getattr(section, key) is not None]
    if len(given) != 1:
        of, found = (", ".join(key.rstrip("_") for key in some) for some in (keys, given))
        raise ValueError(f"give exactly one of {of}; found {found or 'none'}")
    return given[0]


def needs_revision(section: Section) -> None:
    """A hub name without a commit hash would let the study change under its feet."""
    if (section.hub is None) != (section.revision is None):
        raise ValueError(
            "hub and revision belong together: a name on the hub and the 40 hex digits of a commit; "
            "`make revisions` asks for those that are missing"
        )
