"""Work of a finished study: FLOPs that its trainings and scorings computed, and FLOPs that its results need.

Trainings log them in their curves, other programs in the records beside their files. A study needs every model to score
every set of answers once; scoring a set with the same model a second time is not needed.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import ROOT
from ..measure import Row

STUDY = ROOT / "results/demo"
RECORD = ".provenance.json"


def run(quick: bool, device: str, study: Path = STUDY) -> Iterator[Row]:
    """FLOPs needed and computed of every training and scored file; slot-steps of every file of generations.

    Nothing if the study is not finished.
    """
    if not (study / "tables/scores.md").exists():
        return
    yield from training_work(study)
    scored = ScoredAnswers()
    for path in sorted(study.rglob(f"*.parquet{RECORD}")):
        record = json.loads(path.read_text())
        work, name = record.get("work", {}), str(path.relative_to(study)).removesuffix(RECORD)
        if "needed" in work:
            shares = scored.add(study / name, record["command"])
            work = {**work, "needed": round(work["needed"] * shares.pop("fresh")), **shares}
            yield from (Row("work", "scoring", name, 0, *entry) for entry in work.items())
        elif "slot_steps" in work:
            yield from (Row("work", "generation", name, 0, *entry) for entry in work.items())


def training_work(study: Path) -> Iterator[Row]:
    """FLOPs needed and computed of every trained model."""
    for curve in sorted(study.rglob("metrics.jsonl")):
        steps = [json.loads(line) for line in curve.read_text().splitlines()]
        if ".state" in curve.parts or not steps or "work/needed" not in steps[0]:
            continue
        model = str(curve.parent.relative_to(study))
        for quantity in ("needed", "computed"):
            yield Row("work", "training", model, 0, quantity, sum(int(step[f"work/{quantity}"]) for step in steps))


class ScoredAnswers:
    """What models have scored so far: sets of answers, by their source, and single answers."""

    def __init__(self) -> None:
        self.sets: set[tuple[Any, ...]] = set()
        self.answers: set[tuple[Any, ...]] = set()

    def add(self, file: Path, command: Sequence[str]) -> dict[str, float]:
        """Add a file; returns two shares of its answer tokens.

        `fresh`: of sets that the model had not scored before. `alike`: of answers that the model had scored for the
        same prompt, in any set.
        """
        import pyarrow.parquet as pq

        table = pq.read_table(file)
        columns = [name for name in table.column_names if name.endswith("token_ids")]
        model, shard = (flag_values(command, flag) for flag in ("model", "shard"))
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


def sources(command: Sequence[str], columns: int) -> list[str]:
    """Source of each column's answers: columns of the rows, then generations, replayed ones last."""
    rows = flag_values(command, "rows")[0]
    generations = flag_values(command, "generations") + flag_values(command, "replayed")
    if "teacher" in command and generations:
        return generations
    return [f"{rows} {column}" for column in range(columns - len(generations))] + generations


def flag_values(command: Sequence[str], flag: str) -> list[str]:
    values = []
    if f"--{flag}" in command:
        for word in command[command.index(f"--{flag}") + 1 :]:
            if word.startswith("--"):
                break
            values.append(word)
    return values
