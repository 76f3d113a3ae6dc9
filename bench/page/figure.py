"""The figure: seconds and FLOPs of a training step against pairs, length and vocabulary."""

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
        figure, panels = plt.subplots(2, len(AXES), figsize=(10, 5.5), layout="constrained", sharey="row")
        for row, label in zip(panels, QUANTITIES, strict=True):
            for panel, axis in zip(row, AXES, strict=True):
                _draw_panel(panel, numbers, axis, label)
            row[0].set_ylabel(label)
        panels[0, 0].legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _draw_panel(panel: Any, numbers: Numbers, axis: str, label: str) -> None:
    cases = [case for case in numbers.cases("growth") if case.startswith(f"{axis} ")]
    for contender, colour in COLOURS.items():
        totals = [numbers.of("growth", case, contender, *QUANTITIES[label]) for case in cases]
        steps = [float(numbers.single("growth", case, "steps")) for case in cases]
        heights = [SCALE[label] * total.median / n for total, n in zip(totals, steps, strict=True)]
        panel.plot([_at(numbers, axis, case) for case in cases], heights, "o-", color=colour, label=contender)
    panel.set(xscale="log", yscale="log", xlabel=AXES[axis])
    panel.set_xticks(ticks := [_at(numbers, axis, case) for case in cases], [f"{tick:,.0f}" for tick in ticks])
    panel.minorticks_off()


def _at(numbers: Numbers, axis: str, case: str) -> float:
    if axis == "length":
        return sum(float(numbers.single("growth", case, part)) for part in ("prompt", "chosen", "rejected"))
    return float(case.split()[1])
