"""The tables of SPIN's and SWIFT's papers as targets, and what each plans, counted from the study's paths."""

import re
from dataclasses import dataclass
from functools import cache

import estimated
import workflow
from tabulate import tabulate
from transformers import AutoConfig

from wspin.config.load import read_study
from wspin.config.study import Study
from wspin.preflight.estimates import Estimate
from wspin.preflight.sizes import Size
from wspin.study import jobs
from wspin.study.paths import StudyPaths

OVERLAYS, PAPER = "config/overlays", "config/overlays/paper"
ZEPHYR = f"{OVERLAYS}/spin_zephyr.yaml"
SHAPES = workflow.ROOT / "config/architectures"
HEADER = ("table", "command", "jobs", "new", "GPU hours", "new")


@dataclass(frozen=True)
class Target:
    """A table, the overlays that describe it, and the rules of its command.

    `at_least`: its suites' answers are chains of thought, which are counted only after the suites are fetched.
    """

    name: str
    table: str
    overlays: tuple[str, ...]
    rules: tuple[str, ...] = ("tables", "figures")
    at_least: bool = False

    @property
    def command(self) -> str:
        return f"snakemake --profile slurm {' '.join(self.rules)} --configfile {' '.join(self.overlays)}"

    @property
    def paths(self) -> StudyPaths:
        return paths_of(*self.overlays)

    @property
    def below(self) -> StudyPaths | None:
        """The study whose results the target adds to; None for one with results of its own."""
        *others, _ = self.overlays
        study = paths_of(*others)
        return study if study.results == self.paths.results else None


def _target(name: str, table: str, *below: str, rules: tuple[str, ...] = Target.rules, **more: bool) -> Target:
    return Target(name, table, (*below, f"{PAPER}/{name}.yaml"), rules, **more)


TARGETS = (
    _target("swift1", "SWIFT 1 and its figure 2: methods"),
    _target("swift3", "SWIFT 3: sources of weights"),
    _target("swift6_7", "SWIFT 6, 7: hours, with `cost` afterwards", f"{OVERLAYS}/swift_paper.yaml", rules=("models",)),
    _target("swift9", "SWIFT 9: noise on the weights"),
    _target("swift12_mistral", "SWIFT 12: student Mistral-7B-v0.1"),
    _target("swift12_qwen", "SWIFT 12: student Qwen2.5-7B-Instruct"),
    _target(
        "swift10",
        "SWIFT 10: BIG-Bench Hard, without DROP",
        f"{PAPER}/swift12_qwen.yaml",
        rules=("tables",),
        at_least=True,
    ),
    _target("swift13", "SWIFT 13: teachers"),
    _target("swift14", "SWIFT 14: MMLU by domain"),
    Target("spin2", "SPIN 2: hours, with `cost` afterwards", (ZEPHYR,), ("models",)),
    _target("spin3", "SPIN 3: DPO, and SPIN + DPO", ZEPHYR, rules=("tables",)),
    _target("spin4", "SPIN 4: iterations", ZEPHYR),
    _target("spin5", "SPIN 5: more SFT", ZEPHYR, rules=("tables",)),
    _target("spin6", "SPIN 6, without MT-Bench", ZEPHYR, rules=("tables",), at_least=True),
    Target("controls", "controls and ablations", (f"{OVERLAYS}/controls.yaml",)),
)


@cache
def paths_of(*overlays: str) -> StudyPaths:
    return StudyPaths(read_study([workflow.ROOT / name for name in ("config/config.yaml", *overlays)]))


# Jobs


def outputs(paths: StudyPaths, rules: tuple[str, ...]) -> dict[str, str]:
    """First output of every job of these rules from nothing -> its stage; the rules' own jobs are not among them."""
    tables, figures = (rule in rules for rule in ("tables", "figures"))
    columns = [name for name in jobs.COLUMNS if name != "scores" or tables]
    planned = [job for row in jobs.rows(paths).values() for name in columns for job in row[name]]
    groups = jobs.other_jobs(paths)
    for job in (job for name, group in groups.items() if name != "pages" for job in group):  # pages: of `all` alone
        path = job.outputs[0]
        tasks = path.startswith(f"{paths.results}/fetched/tasks/") or path.endswith("heldout.parquet")
        if tables if tasks or path in paths.tables() else figures if path in paths.figures() else True:
            planned.append(job)
    sums = [path for folder in paths.weighted_folders for path in paths.weight_sums(folder)]
    stages = {job.outputs[0]: re.match(r"logs/(\w+)", job.log.removeprefix(f"{paths.results}/"))[1] for job in planned}
    return stages | dict.fromkeys(sums, "weigh")


def needed(paths: StudyPaths, tables: bool) -> set[str]:
    """The models without which the rules' files cannot be made."""
    waiting, models = [*(paths.table_models() if tables else paths.iteration_models()), *paths.contrast_models], set()
    while waiting:
        model = waiting.pop()
        if model not in models:
            models.add(model)
            entry = paths.study.models.get(model)
            scorers = paths.scorer_pair(model) if paths.weighted(model) and "/plus" not in model else ()
            waiting += [*paths.ancestors(model), *([entry.of] if entry and entry.of else [])]
            waiting += [scorer.partition("@")[0] for scorer in scorers if scorer]
    return models


# GPU hours


class Shape(Size):
    """A size without its activations, which take seconds to count and no part in hours."""

    def activations(self, precision: str, checkpointing: bool = False) -> float:
        return 0.0


@cache
def shape(hub: str) -> Shape:
    return Shape(AutoConfig.from_pretrained(SHAPES / hub))


def estimates(paths: StudyPaths, rules: tuple[str, ...]) -> list[Estimate]:
    """What `preflight` estimates before anything is fetched, of the stages that these rules need."""
    study: Study = paths.study.model_copy(update={"results": "results/none"})  # without lengths measured here
    sizes = {name: shape(study.models[name].hub) for name in paths.fetched_models}
    every = estimated.estimator_of(StudyPaths(study), sizes).all()
    return [estimate for estimate in every if estimate.stage != "eval" or "tables" in rules]


def gpu_hours(target: Target) -> tuple[float, float]:
    """GPU hours from nothing, and what remains of them once the study below is complete."""
    before: dict[tuple[str, str], int] = {}
    if target.below:
        suites = target.paths.study.eval.suites.keys() & target.below.study.eval.suites.keys()  # a job of each
        for estimate in estimates(target.below, ("tables",)):
            key = (estimate.stage, estimate.what)
            before[key] = before.get(key, 0) + (len(suites) if estimate.stage == "eval" else estimate.jobs)
    whole = remaining = 0.0
    for estimate in estimates(target.paths, target.rules):
        key = (estimate.stage, estimate.what)
        finished = min(estimate.jobs, before.get(key, 0))
        before[key] = before.get(key, 0) - finished
        whole += estimate.gpu_hours
        remaining += estimate.gpu_hours * (estimate.jobs - finished) / estimate.jobs
    return whole, remaining


def counts(target: Target) -> tuple[int, int]:
    """Jobs from nothing, those of the rules themselves included, and without those of the study below."""
    planned = outputs(target.paths, target.rules)
    finished = outputs(target.below, ("tables", "figures")) if target.below else {}
    return len(planned) + len(target.rules), len(planned.keys() - finished.keys()) + len(target.rules)


def markdown() -> str:
    """The table of docs/targets.md."""
    rows = []
    for target in TARGETS:
        (jobs_, new), bound = counts(target), "at least " if target.at_least else ""
        hours, new_hours = (f"{bound}{_shown(value)}" for value in gpu_hours(target))
        rows.append((target.table, f"`{target.command}`", jobs_, new, hours, new_hours))
    sides = ["left", "left", "right", "right", "right", "right"]
    return tabulate(rows, HEADER, tablefmt="pipe", disable_numparse=True, colalign=sides) + "\n"


def _shown(hours: float) -> str:
    return f"{hours:.1f}" if hours < 10 else f"{hours:,.0f}"
