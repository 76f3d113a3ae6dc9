"""Asks a language model of lm-eval's task by task and keeps each task's responses: a killed evaluation resumes.

lm-eval's `evaluate` calls the model once for each type of request, with the requests of all tasks. Here such a call is
divided by task, and what the model has responded to a task lies in the state folder before the next one is asked. A
file's name is the digest of what was asked, so that responses are never given to other requests.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wspin.errors import StudyError
from wspin.progress import progress_printer
from wspin.storage.files import read_json, write_checked_json

# By type of request: a response as lm-eval expects it, of what the model or JSON gives
TYPES: dict[str, Callable[[Any], Any]] = {
    "loglikelihood": lambda response: (float(response[0]), bool(response[1])),
    "loglikelihood_rolling": float,
    "generate_until": lambda response: response,
}


class ResumableLM:
    """A language model of lm-eval's, `lm`, whose responses to a task are kept as soon as they are complete.

    `state`: a folder whose lock the caller holds, for this model and these settings alone. `seed`: called before each
    task, so that sampled responses do not depend on the tasks before, and after the last, so that what follows does not
    depend on what was kept. `total`: requests of all calls, for the progress. Where the model has an attribute
    `on_progress`, it holds meanwhile a function that the model calls with the number of requests that are done. All
    other attributes are the model's.
    """

    def __init__(self, lm: Any, state: Path, seed: Callable[[], None], total: int):
        self.lm, self._state, self._seed = lm, state, seed
        self._done = self._kept = 0
        self._print_progress = progress_printer("eval", total, "requests")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lm, name)

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        return self._respond("loglikelihood", requests)

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        return self._respond("loglikelihood_rolling", requests)

    def generate_until(self, requests: list[Any]) -> list[str]:
        return self._respond("generate_until", requests)

    def _respond(self, kind: str, requests: list[Any]) -> list[Any]:
        """The responses in the order of the requests, whose type is `kind`."""
        places: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            places.setdefault(request.task_name, []).append(i)
        tasks = [TaskRequests(kind, name, [requests[i] for i in indices]) for name, indices in places.items()]
        kept = {task.name: responses for task in tasks if (responses := task.read(self._state)) is not None}
        if kept:
            print(f"eval: {kind}: {len(kept)} of {len(tasks)} tasks kept from an earlier attempt", flush=True)
            self._count(sum(map(len, kept.values())), kept=True)
        responses: list[Any] = [None] * len(requests)
        for task in tasks:
            of_task = kept[task.name] if task.name in kept else self._ask(task)
            for i, response in zip(places[task.name], of_task, strict=True):
                responses[i] = response
        self._seed()
        return responses

    def _ask(self, task: "TaskRequests") -> list[Any]:
        self._seed()
        if hasattr(self.lm, "on_progress"):  # which may count the windows of a long text
            self.lm.on_progress = lambda done: self._show(self._done + min(done, len(task.requests) - 1))
        responses = getattr(self.lm, task.kind)(task.requests, disable_tqdm=True)
        responses = [TYPES[task.kind](response) for response in responses]
        task.write(self._state, responses)
        self._count(len(responses))
        return responses

    def _count(self, number: int, kept: bool = False) -> None:
        self._done += number
        self._kept += number if kept else 0
        self._show(self._done)

    def _show(self, done: int) -> None:
        self._print_progress(done, self._kept)


class TaskRequests:
    """The requests of one type that a task makes, and the file of the responses to them."""

    def __init__(self, kind: str, name: str, requests: list[Any]):
        self.kind, self.name, self.requests = kind, name, requests
        hashed = hashlib.sha256(repr((kind, name)).encode())
        for request in requests:  # one after the other: together they may take a gigabyte
            hashed.update(b"\n" + repr(request.args).encode())
        self.digest = hashed.hexdigest()

    def write(self, state: Path, responses: list[Any]) -> None:
        write_checked_json(self._path(state), {"task": self.name, "requests": self.digest, "responses": responses})

    def read(self, state: Path) -> list[Any] | None:
        """The kept responses; None if there are none, or, with a line, if they are damaged or respond to others."""
        path, content, remedy = self._path(state), "kept responses", "the task is asked again"
        try:
            entries = read_json(path, content, remedy)
            if entries.get("requests") != self.digest or not self._fit(values := entries.get("responses")):
                raise StudyError(f"{path}: expected {content} to these requests of {self.name}, found others; {remedy}")
        except FileNotFoundError:
            return None
        except StudyError as error:
            print(f"eval: {error}", flush=True)
            return None
        return [TYPES[self.kind](value) for value in values]

    def _path(self, state: Path) -> Path:
        return state / f"{self.digest[:32]}.json"

    def _fit(self, values: Any) -> bool:
        """Whether a value from JSON holds a response of the right type to each request."""
        if not isinstance(values, list) or len(values) != len(self.requests):
            return False
        expected = {"loglikelihood": [float, bool], "loglikelihood_rolling": float, "generate_until": str}[self.kind]
        types = (list(map(type, value)) if isinstance(value, list) else type(value) for value in values)
        return all(of_value == expected for of_value in types)
