"""Work ratio of a finished study: FLOPs that its trainings and scorings computed, over those that its results need.

Trainings tell in their curves and the other programs in the records beside their files. What a study needs is that
every model reads every set of answers once; a file that holds a model's second reading of a set is no need.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import ROOT
from .measure import Row

STUDY = ROOT / "results/demo"
RECORD = ".provenance.json"


def run(quick: bool, device: str, study: Path = STUDY) -> Iterator[Row]:
    """Of every training and file the FLOPs needed and computed, of every file of generations its slot-steps.

    Nothing of a study that is not finished.
    """
    if not (study / "tables/scores.md").exists():
        return
    for told in trainings(study):
        yield Row("work", "training", *told)
    readings = Readings()
    for path in sorted(study.rglob(f"*.parquet{RECORD}")):
        record = json.loads(path.read_text())
        work, name = record.get("work", {}), str(path.relative_to(study)).removesuffix(RECORD)
        if "needed" in work:
            told = {**work, **readings.of(study / name, record["command"])}
            told["needed"] = round(told["needed"] * told.pop("fresh"))
            yield from (Row("work", "scoring", name, 0, *entry) for entry in told.items())
        elif "slot_steps" in work:
            yield from (Row("work", "generation", name, 0, *entry) for entry in work.items())


def trainings(study: Path) -> Iterator[tuple[str, int, str, int]]:
    """(model, 0, quantity, FLOPs) of every trained model."""
    for curve in sorted(study.rglob("metrics.jsonl")):
        steps = [json.loads(line) for line in curve.read_text().splitlines()]
        if ".state" in curve.parts or not steps or "work/needed" not in steps[0]:
            continue
        for quantity in ("needed", "computed"):
            yield (
                str(curve.parent.relative_to(study)),
                0,
                quantity,
                sum(int(step[f"work/{quantity}"]) for step in steps),
            )


class Readings:
    """What models have read so far: sets of answers by where they come from, and single answers."""

    def __init__(self) -> None:
        self.sets: set[tuple[Any, ...]] = set()
        self.answers: set[tuple[Any, ...]] = set()

    def of(self, file: Path, command: Sequence[str]) -> dict[str, float]:
        """Shares of a file's answer tokens: `fresh`, from sets that its model has not read before; `alike`, of answers
        that it happens to have read to the same prompt, in whatever set.
        """
        import pyarrow.parquet as pq

        table = pq.read_table(file)
        columns = [name for name in table.column_names if name.endswith("token_ids")]
        model, shard = (values(command, flag) for flag in ("model", "shard"))
        total = fresh = alike = 0
        for column, source in zip(columns, sources(command, len(columns)), strict=True):
            is_new = (*model, *shard, source) not in self.sets
            self.sets.add((*model, *shard, source))
            for prompt, ids in zip(table["prompt_id"].to_pylist(), table[column].to_pylist(), strict=True):
                answer = (*model, prompt, *ids)
                total, fresh = total + len(ids), fresh + len(ids) * is_new
                alike += len(ids) * (answer in self.answers)
                self.answers.add(answer)
        return {"fresh": fresh / max(total, 1), "alike": alike / max(total, 1)}


def sources(command: Sequence[str], count: int) -> list[str]:
    """Where the answers of each column come from: the rows' own, then generations, those replayed last."""
    rows, made = values(command, "rows")[0], values(command, "generations") + values(command, "replayed")
    if "teacher" in command and made:
        return made
    own = count - len(made)
    return [f"{rows} {column}" for column in range(own)] + made


def values(command: Sequence[str], flag: str) -> list[str]:
    """What a flag was given."""
    found = []
    if f"--{flag}" in command:
        for word in command[command.index(f"--{flag}") + 1 :]:
            if word.startswith("--"):
                break
            found.append(word)
    return found
