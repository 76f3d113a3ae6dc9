"""Sections of the configuration that no result depends on: what jobs ask for, what is assumed, what is shown."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from .sections import NotNegative, Section


class Resource(Section):
    gpu: Annotated[int, Field(ge=0)] = Field(0, description="GPUs of a job")
    threads: PositiveInt = Field(1, description="CPU threads of a job; bitwise claims hold for equal threads")
    mem_mb: PositiveInt = Field(description="memory of a job in MB")
    runtime: PositiveInt = Field(description="minutes of a job; grows with the attempt")


class Resources(Section):
    fetch: Resource
    data: Resource
    train: Resource
    generate: Resource
    logprobs: Resource
    weigh: Resource
    eval: Resource
    report: Resource


class Preflight(Section):
    """What `preflight` assumes of GPUs, prices and lengths; nothing else reads it."""

    gpu_memory_gb: PositiveFloat = Field(description="memory of a GPU")
    tflops: PositiveFloat = Field(description="its peak in the study's precision")
    bandwidth_tb: PositiveFloat = Field(description="its memory's bandwidth, TB per second")
    utilisation: Annotated[float, Field(gt=0.0, le=1.0)] = Field(description="share of both that jobs reach")
    price: NotNegative = Field(description="of a GPU for an hour, in whatever currency")
    prompt_tokens: PositiveFloat = Field(description="mean tokens of a prompt, until `data` exists")
    response_tokens: PositiveFloat = Field(description="mean tokens of a real answer, until `data` exists")
    generated_tokens: PositiveFloat = Field(description="mean tokens of a generated answer, until there are some")
    evaluation_tokens: PositiveFloat = Field(description="tokens that all suites together read, for one model")


class Report(Section):
    metrics: dict[str, str] = Field(
        description="task: its metric in the tables, as lm-eval writes it (`acc_norm,none`)"
    )
    baseline: str = Field(description="arm that every other arm is compared to, iteration by iteration")
    examples: PositiveInt = Field(description="prompts shown with every model's answers and their weights")
    bootstrap: PositiveInt = Field(description="draws of the paired bootstrap over items")
    confidence: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(description="level of the intervals")
