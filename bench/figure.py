"""The figure: seconds and FLOPs of a training step against pairs, length and vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .numbers import Numbers

COLOURS = {"ours": "#0072b2", "TRL": "#e69f00", "padded": "#999999"}
AXES = {
    "pairs": "pairs per step",
    "length": "tokens of a pair, prompt counted once",
    "vocabulary": "vocabulary",
}
QUANTITIES = {"seconds per step": ("reference_seconds", "seconds"), "GFLOPs per step": ("flops",)}
SCALE = {"seconds per step": 1.0, "GFLOPs per step": 1e-9}


def draw(numbers: Numbers, path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    style = {"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(style):
        figure, places = plt.subplots(2, len(AXES), figsize=(10, 5.5), layout="constrained", sharey="row")
        for row, label in zip(places, QUANTITIES, strict=True):
            for place, axis in zip(row, AXES, strict=True):
                _panel(place, numbers, axis, label)
            row[0].set_ylabel(label)
        places[0, 0].legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _panel(place: Any, numbers: Numbers, axis: str, label: str) -> None:
    cases = [case for case in numbers.cases("growth") if case.startswith(f"{axis} ")]
    for contender, colour in COLOURS.items():
        found = [numbers.of("growth", case, contender, *QUANTITIES[label]) for case in cases]
        steps = [float(numbers.one("growth", case, "steps")) for case in cases]
        heights = [SCALE[label] * one.median / n for one, n in zip(found, steps, strict=True)]
        place.plot([_at(numbers, axis, case) for case in cases], heights, "o-", color=colour, label=contender)
    place.set(xscale="log", yscale="log", xlabel=AXES[axis])
    place.set_xticks(ticks := [_at(numbers, axis, case) for case in cases], [f"{tick:,.0f}" for tick in ticks])
    place.minorticks_off()


def _at(numbers: Numbers, axis: str, case: str) -> float:
    if axis == "length":
        return sum(float(numbers.one("growth", case, part)) for part in ("prompt", "chosen", "rejected"))
    return float(case.split()[1])
