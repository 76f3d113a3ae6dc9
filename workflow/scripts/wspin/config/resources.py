"""The section `resources`: what a job of each stage gets."""

from pydantic import Field

from .base import Count, CountOrZero, Section


class Resource(Section):
    gpu: CountOrZero = Field(0, description="GPUs of a job")
    threads: Count = Field(1, description="CPU threads of a job; results are bitwise equal for equal threads")
    mem_mb: Count = Field(description="memory of a job in MB")
    runtime: Count = Field(description="minutes of a job; grows with the attempt")


class Resources(Section):
    fetch: Resource
    data: Resource
    train: Resource
    generate: Resource
    logprobs: Resource
    weigh: Resource
    eval: Resource
    report: Resource
