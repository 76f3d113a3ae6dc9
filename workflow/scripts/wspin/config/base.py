"""The base class of configuration sections, the types of their values, and checks that several of them share."""

from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, WithJsonSchema

T = TypeVar("T")
PerIteration = Annotated[T | list[T], Field(union_mode="left_to_right")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]
NotNegative = Annotated[FiniteFloat, Field(ge=0.0)]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]*$")]
Engine = Literal["transformers", "vllm"]
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


def source_key(section: Section, *keys: str) -> str:
    """The one key of `keys` that has a value: where a section takes what it describes from.

    Raises `ValueError` if several or none have one, or for a hub name without a commit hash: without it the files
    behind the name could change during a study.
    """
    given = [key for key in keys if getattr(section, key) is not None]
    if len(given) != 1:
        expected, found = (", ".join(key.rstrip("_") for key in names) for names in (keys, given))
        raise ValueError(f"give exactly one of {expected}; found {found or 'none'}")
    if (section.hub is None) != (section.revision is None):
        raise ValueError(
            "hub and revision belong together: a name on the hub and the 40 hex digits of a commit; "
            "`make revisions` looks up missing commits"
        )
    return given[0]
