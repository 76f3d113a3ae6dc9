"""Methods whose answers are kept: a study's shards ask the same questions, thousands of times."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def memoized_method(method: F) -> F:
    """Let an object that never changes work out each of a method's answers once: every shard of a study asks again."""

    @wraps(method)
    def ask(self: Any, *given: Any, **named: Any) -> Any:
        answers = self.__dict__.setdefault(f"answers of {method.__name__}", {})
        question = (*given, *named.items())
        if question not in answers:
            answers[question] = method(self, *given, **named)
        return answers[question]

    return ask
