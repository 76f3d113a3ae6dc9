"""Draws the hours of all jobs by stage: a bar for each iteration, registry model, and what all arms share."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from wspin.escaping import escaped
from wspin.iteration import Iteration
from wspin.report.style import empty_figure, fit_height, legend_below, styled

BAR = 0.13  # inches: of a bar and the gap below it


def hours_by_stage(hours: Mapping[tuple[str, str], float], order: Sequence[str]) -> Figure:
    """Stacked bars with a colour for each stage; (bar, stage) -> wall hours, summed over jobs. Iterations stand last.

    `order` of the stages; others follow.
    """
    names = sorted({name for name, _ in hours}, key=_place)
    stages = sorted({stage for _, stage in hours}, key=lambda stage: ([*order, stage].index(stage), stage))
    with styled():
        figure = empty_figure(1.0)
        if not names:
            figure.text(0.5, 0.5, "no job has a record", ha="center", va="center")
            return figure
        axes, ends, places = figure.add_subplot(), np.zeros(len(names)), np.arange(len(names))
        keys = []
        for stage, colour in zip(stages, cycle(matplotlib.color_sequences["petroff10"]), strict=False):
            widths = np.array([hours.get((name, stage), 0.0) for name in names])
            axes.barh(places, widths, left=ends, color=colour)
            ends += widths
            keys.append(Patch(color=colour, label=escaped(stage)))
        axes.set_yticks(places, list(map(escaped, names)))
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params("y", length=0)
        axes.set_xlabel("wall hours, summed over jobs")
        legend_below(figure, keys, [key.get_label() for key in keys], columns=5)
        fit_height(figure, axes, BAR * (len(names) + 0.2))
    return figure


def _place(name: str) -> tuple[int, str, int]:
    """Where a bar stands: iterations last, by arm and number."""
    iteration = Iteration.parse(name)
    return (1, *iteration) if iteration else (0, name, 0)
