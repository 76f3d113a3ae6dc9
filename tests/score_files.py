"""Score files and samples of made-up models, as `eval` writes them, and the commands that report them."""

import copy
import json
import math

import pandas as pd
import pytest

from wspin.errors import StudyError
from wspin.eval.results import write_samples
from wspin.report import comparison, samples, scores
from wspin.report.comparison import Average, Draws
from wspin.report.tables import (
    score_tables,
)
from wspin.rng import row_generator
from wspin.storage.files import digest

SCORES = {
    "suite": "demo",
    "model": "f1",
    "engine": "transformers",
    "dtype": "float32",
    "autocast": "float32",
    "token_budget": 2048,
    "batch_size": 128,
    "seeds": [0, 1234, 1234, 1234],
    "versions": {"lm_eval": "0.4.13", "transformers": "5.19.0", "torch": "2.13.0"},
    "template": "human-assistant",
    "tasks": {
        "spell": {
            "shots": 0,
            "version": 1.0,
            "n": 400,
            "prompt_hash": "aa",
            "metrics": {"exact_match,none": 0.475},
            "stderr": {"exact_match,none": 0.025},
        },
        "gsm8k": {
            "shots": 5,
            "version": 3.0,
            "n": 1320,  # 0.1 and 1/3 are shares of them
            "prompt_hash": "bb",
            "metrics": {"exact_match,strict-match": 0.1, "exact_match,flexible-extract": 1 / 3},
            "stderr": {"exact_match,strict-match": 0.006, "exact_match,flexible-extract": 0.012},
        },
    },
}
METRICS = {"spell": "exact_match,none", "gsm8k": "exact_match,strict-match"}
MODELS = ("sft", "spin/ite0")


def put(results, model, change=lambda scores: None, suite="demo"):
    """Write the scores of a model, after a change to them."""
    scores = copy.deepcopy(SCORES)
    change(scores)
    path = results / model / "scores" / f"{suite}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(scores))
    return path


def score_texts(results, models=MODELS, metrics=METRICS):
    """CSV, Markdown and LaTeX of the scores, as texts."""
    return list(score_tables(scores.read_scores(results, models, ["demo"]), metrics).values())


def cells(markdown):
    """The cells of a Markdown table by line, header first, without the rule."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


def command(kind, results, *more, metrics=METRICS, models=MODELS):
    """Arguments of one of the program's two tables, which are written to `results/tables/{kind}.*`."""
    outputs = ["--output", *(str(results / f"tables/{kind}.{suffix}") for suffix in ("csv", "md", "tex"))]
    chosen = [f"{task}={metric}" for task, metric in metrics.items()]
    tasks = ["--suites", "demo", "--metrics", *chosen]
    return [kind, "--results", str(results), "--models", *models, *tasks, *outputs, *map(str, more)]


def check_records(outputs, inputs, program="report"):
    for path in outputs:
        record = json.loads(path.with_name(path.name + ".provenance.json").read_text())
        assert record["program"] == program
        assert set(record["inputs"]) == set(map(str, inputs))


SIZES = {"spell": {"spell": 40}, "gsm8k": {"gsm8k": 30}, "mmlu": {"mmlu_law": 20, "mmlu_art": 5}}
CHOSEN = {"spell": "acc_norm,none", "mmlu": "acc,none", "gsm8k": "exact_match,strict-match"}
COMPARED = ("sft", "spin/ite0", "wspin/ite0")
PAIR = ("wspin/ite0", "spin/ite0")
DRAWS = Draws(500, 0.9, 42)


def got(model, leaf, metric, n):
    """(n,) zeros and ones: what a model got on the documents of a leaf task."""
    return row_generator("got", model, leaf, metric).integers(0, 2, n).astype(float)


def rows_of(model, leaf, n):
    """Rows of samples: GSM8K's twice, once for each filter, as lm-eval has them; the last document comes first."""
    filters, measured = ("none",), ("acc", "acc_norm")
    if leaf == "gsm8k":
        filters, measured = ("strict-match", "flexible-extract"), ("exact_match",)
    values = {(metric, one): got(model, leaf, metric + one, n) for metric in measured for one in filters}
    return [
        {
            "task": leaf,
            "doc_id": i,
            "doc_hash": f"doc {leaf} {i}",
            "prompt_hash": f"prompt {leaf} {i}",
            "target_hash": "",
            "filter": one,
            "target": "",
            "answer": "",
            "metrics": json.dumps({metric: values[metric, one][i] for metric in measured}),
        }
        for i in reversed(range(n))
        for one in filters
    ]


def result_of(rows):
    """The scores that lm-eval gives to rows."""
    keys = sorted({(metric, row["filter"]) for row in rows for metric in json.loads(row["metrics"])})
    values = {key: [json.loads(row["metrics"])[key[0]] for row in rows if row["filter"] == key[1]] for key in keys}
    prompts = [row["prompt_hash"] for row in sorted(rows, key=lambda row: (row["task"], row["doc_id"]))]
    metrics = {",".join(key): math.fsum(of_key) / len(of_key) for key, of_key in values.items()}
    n = len({(row["task"], row["doc_id"]) for row in rows})
    fixed = {"shots": 0, "version": "1.0", "n": n, "prompt_hash": digest(prompts)}
    return {**fixed, "metrics": metrics, "stderr": dict.fromkeys(metrics, 0.01)}


def put_both(results, model, of_rows=lambda rows: None, of_scores=lambda scores: None):
    """Write scores and samples of a model; rows are changed before they are scored, scores before they are written."""
    rows = {
        task: [row for leaf, n in leaves.items() for row in rows_of(model, leaf, n)] for task, leaves in SIZES.items()
    }
    for of_task in rows.values():
        of_rows(of_task)
    scored = {**copy.deepcopy(SCORES), "model": f"fingerprint of {model}"}
    scored["tasks"] = {task: result_of(of_task) for task, of_task in rows.items()}
    for leaf in SIZES["mmlu"]:
        below = scored["tasks"]["mmlu"].setdefault("subtasks", {})
        below[leaf] = result_of([row for row in rows["mmlu"] if row["task"] == leaf])
    of_scores(scored)
    path = results / model / "scores/demo.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(scored))
    made_with = {key: value for key, value in scored.items() if key != "tasks"}
    write_samples(samples.samples_path(path), [row for of_task in rows.values() for row in of_task], made_with)
    return samples.samples_path(path)


def read_items(results, models=COMPARED, metrics=CHOSEN):
    return samples.read_samples(scores.read_scores(results, models, ["demo"]), metrics)


def refused(results, *parts, metrics=CHOSEN, models=COMPARED):
    """The comparison is refused in one line that holds all `parts`."""
    with pytest.raises(StudyError) as error:
        comparison.differences(read_items(results, models, metrics), [PAIR], DRAWS)
    assert "\n" not in str(error.value)
    for part in parts:
        assert str(part) in str(error.value)


def average_frame(rows):
    return pd.DataFrame(rows, columns=Average._fields).astype({"iteration": "Int64"})


def tuples(frame):
    """The rows of a frame, by the names of its columns; None where there is no value."""
    return list(frame.astype(object).where(frame.notna(), None).itertuples(index=False))


def averages_of(arms, iterations=4, registry=("sft",)):
    """A table of averages; arms stand within a few points of each other, the last of ten begins late."""
    rows = [(model, None, None, 0.4 + 0.004 * i, 0.39, 0.41) for i, model in enumerate(registry)]
    for place, arm in enumerate(arms):
        for k in range(3 if arm == "late" else 0, max(iterations, 4) if arm == "late" else iterations):
            value = 0.41 + 0.002 * place + 0.005 * k
            rows.append((f"{arm}/ite{k}", arm, k, value, value - 0.008, value + 0.009))
    return average_frame(rows)
