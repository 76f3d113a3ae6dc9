"""Methods that keep their results."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def memoized_method(method: F) -> F:
    """Compute each of a method's results once per object, which must never change.

    A study with hundreds of shards needs the same few results thousands of times. `functools.cache` would share one
    cache among all objects and keep them alive.
    """

    @wraps(method)
    def lookup(self: Any, *arguments: Any, **keywords: Any) -> Any:
        results = self.__dict__.setdefault(f"results of {method.__name__}", {})
        key = (*arguments, *keywords.items())
        if key not in results:
            results[key] = method(self, *arguments, **keywords)
        return results[key]

    return lookup
