"""Which layer of the configuration a contradiction comes from.

A check names the place that it looked at, which may stand in a file that was valid until another was laid over it. What
its author has to change is the key of the later layer.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .explain import Complaint
from .reader import Layer, Place, complaint_line, show
from .study import Study

MOST_TRIALS = 60  # studies that are validated to find keys: a large one takes tenths of a second


class Checked(NamedTuple):
    """What merged layers describe."""

    study: Study | None
    stage: int  # how many of the checks were made: those of sections, of seeds, between sections
    complaints: list[Complaint]


class Blame:
    """The lines of the complaints about some layers; `check` validates layers."""

    def __init__(self, layers: Sequence[Layer], check: Callable[[Sequence[Layer]], Checked]):
        self.layers = list(layers)
        self.check = check
        self.checked = check(self.layers)
        self.places = {place: line for layer in self.layers for place, line in layer.places.items()}
        self._trials: dict[tuple[int, Place], Checked] = {}

    def lines(self) -> list[str]:
        """One line for each complaint, at the key that has to change."""
        return list(dict.fromkeys(map(self._line, self.checked.complaints)))

    def _line(self, complaint: Complaint) -> str:
        line = complaint_line(self.places, *complaint)
        later = range(self._home(complaint[0]) + 1, len(self.layers))
        cause = next((found for index in later if (found := self._cause(index, complaint[0]))), None)
        return f"{self.places[cause]}: {show(cause)}: contradicts {line}" if cause else line

    def _home(self, place: Place) -> int:
        """The last layer that has a place, or the nearest key above it."""
        depth = next((depth for depth in range(len(place), -1, -1) if place[:depth] in self.places), 0)
        having = [index for index, layer in enumerate(self.layers) if place[:depth] in layer.places]
        return having[-1] if having else len(self.layers)

    def _cause(self, index: int, place: Place) -> Place | None:
        """The key of a layer without which there would be fewer complaints about a place."""
        cause, values = (), self.layers[index].values
        while isinstance(values, dict):
            below = next(((*cause, key) for key in values if self._heals(index, (*cause, key), place)), None)
            if below is None:
                break
            cause, values = below, values[below[-1]]
        return cause or None

    def _heals(self, index: int, key: Place, place: Place) -> bool:
        if (index, key) not in self._trials:
            if len(self._trials) >= MOST_TRIALS:
                return False
            layer = self.layers[index]
            without = layer._replace(values=_without(layer.values, key))
            self._trials[index, key] = self.check([*self.layers[:index], without, *self.layers[index + 1 :]])
        trial = self._trials[index, key]
        return trial.stage >= self.checked.stage and _count(trial, place) < _count(self.checked, place)


def _count(checked: Checked, place: Place) -> int:
    return sum(where == place for where, _ in checked.complaints)


def _without(values: dict[str, Any], key: Place) -> dict[str, Any]:
    first, *below = key
    if not below:
        return {name: value for name, value in values.items() if name != first}
    return {**values, first: _without(values[first], tuple(below))}
