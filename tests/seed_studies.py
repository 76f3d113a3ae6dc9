"""Made-up studies of several seeds, whose differences are tested."""

from wspin.config.preregistration import Preregistration
from wspin.report.hypotheses import PermutationDraws, StudySamples
from wspin.report.samples import TaskSamples
from wspin.rng import row_generator

DRAWS = PermutationDraws(999, 42)
SEEDS = (42, 43, 44, 45, 46)
SIZES = {"spell": 60, "choice": 40}
SHIFTS = {"planted": 0.2}  # points by which an arm answers more often right; the others: none


def replicate(name, seed):
    return name if seed == 42 else f"{name}.s{seed}"


def task_samples(task, values):
    documents = [(i, f"{task} {i}") for i in range(len(values))]
    return [TaskSamples("samples", task, documents, [f"prompt {i}" for i in range(len(values))], values)]


def model_samples(arm, seed, k, mc2=False):
    """A model's tasks: documents have difficulties, trainings their own luck with each."""
    tasks = {}
    for task, n in SIZES.items():
        difficulty = row_generator("difficulty", task).random(n)
        luck = row_generator("luck", arm, seed, k, task).normal(0.0, 0.2, n)
        right = (0.4 + SHIFTS.get(arm, 0.0) + luck > difficulty).astype(float)
        tasks[task] = task_samples(task, right)
    if mc2:
        tasks["mc2"] = task_samples("mc2", row_generator("mc2", arm, seed).random(30) + SHIFTS.get(arm, 0.0))
    return tasks


def study(arms=("spin", "planted", "null"), seeds=SEEDS, iterations=2, registry=(), groups=None, mc2=False):
    models = {replicate(name, seed): model_samples(name, seed, 0, mc2) for name in registry for seed in seeds}
    models |= {
        f"{replicate(arm, seed)}/ite{k}": model_samples(arm, seed, k, mc2)
        for arm in arms
        for seed in seeds
        for k in range(iterations)
    }
    names = (*arms, *registry)
    seed_of = {replicate(name, seed): seed for name in names for seed in seeds}
    replicates = [(name, replicate(name, seed)) for name in names for seed in seeds if seed != 42]
    return StudySamples(models, seed_of, replicates, groups or {}, DRAWS)


def family(**changes):
    given = {"level": 0.05, "contrasts": ["planted - spin", "null - spin"], "tasks": ["average"]}
    return Preregistration(**{**given, "iterations": ["last"], "tests": ["seeds"], **changes})


CONTRASTS = [("planted", "spin"), ("null", "spin")]


def rows_of(frame, **where):
    for column, value in where.items():
        frame = frame[frame[column] == value]
    return frame


def row_of(frame, **where):
    (row,) = rows_of(frame, **where).itertuples()
    return row


def drop(samples, *names):
    for name in names:
        for k in range(2):
            del samples.models[f"{name}/ite{k}"]
    return samples
