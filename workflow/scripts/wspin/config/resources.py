"""The section `resources`: what a job of each stage gets."""

from typing import Self

from pydantic import Field, model_validator

from .base import Count, CountOrZero, Section


class Resource(Section):
    gpu: CountOrZero = Field(0, description="GPUs of a job")
    threads: Count = Field(1, description="CPU threads of a job; results are bitwise equal for equal threads")
    mem_mb: Count = Field(description="memory of a job in MB")
    runtime: Count = Field(description="minutes of a job")
    max_runtime: Count | None = Field(
        None,
        description="minutes that no attempt exceeds: the second asks for twice `runtime`, the third for three times; "
        "default: every attempt asks for `runtime`",
    )

    @model_validator(mode="after")
    def _room_to_grow(self) -> Self:
        if self.max_runtime is not None and self.max_runtime < self.runtime:
            raise ValueError(
                f"expected max_runtime of at least runtime, {self.runtime} minutes, found {self.max_runtime}; "
                "raise it, or lower runtime"
            )
        return self

    def minutes(self, attempt: int) -> int:
        """Minutes that an attempt asks for; the first is 1."""
        return min(attempt * self.runtime, self.max_runtime or self.runtime)


class Resources(Section):
    fetch: Resource
    data: Resource
    train: Resource
    generate: Resource
    logprobs: Resource
    weigh: Resource
    eval: Resource
    report: Resource
