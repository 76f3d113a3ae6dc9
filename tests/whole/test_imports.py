"""What the programs import, because that is most of what a short job costs.

A study is a hundred processes, and each imports anew: torch 1 s, transformers 2 s, pandas or scipy a quarter. A package
that comes to stand here needs a reason; lm-eval's are pandas and datasets.
"""

import subprocess
import sys

import environments
import pytest
import structure
import workflow
import yaml

from wspin.config.load import load_study
from wspin.config.published import COLUMNS
from wspin.config.study import merge
from wspin.storage import code_hash
from wspin.storage.files import write_yaml
from wspin.study.paths import StudyPaths
from wspin.study.rule_flags import RuleFlags

SMALL = [
    workflow.ROOT / file for file in ("config/config.yaml", "config/overlays/demo.yaml", "tests/configs/small.yaml")
]
TINY = {
    "data": {"sft": {"reasoning_gym": {"rows": 60}, "prompts": 4, "shard": 4}, "heldout": {"prompts": 4}},
    "train": {"sft": {"epochs": 1}},
    "generate": {"max_new_tokens": 4},
}
HEAVY = {
    *("torch", "torch._dynamo", "torch._inductor", "torchvision", "transformers", "transformers.trainer", "accelerate"),
    *("datasets", "pandas", "scipy", "sklearn", "matplotlib", "lm_eval", "reasoning_gym", "trl", "vllm"),
}
# transformers' models bring these three, whatever is asked of them
MODELS = {"torch", "torch._dynamo", "torch._inductor", "transformers", "accelerate"}
TABLES = {"pandas"}  # pyarrow looks whether the first list it is given is one of pandas'
IMPORTED = {
    "fetch data": {"reasoning_gym", "matplotlib"} | TABLES,
    "fetch tasks": set(),
    "fetch model": MODELS,
    "data prompts": MODELS | TABLES,
    "data heldout": MODELS | TABLES,
    "generate": MODELS | TABLES,
    "logprobs reference": MODELS | TABLES,
    "weigh": TABLES,
    "exchange export": TABLES,
    "exchange import": TABLES,
    "generate_given": MODELS | TABLES,
    "weigh_given": TABLES,
    "train": MODELS | {"transformers.trainer"},
    "eval": MODELS | TABLES | {"lm_eval", "datasets", "scipy"},  # `datasets` patches scipy's reader of files
    "report scores": TABLES,
    "report_reproduction": TABLES,
    "report differences": TABLES | {"scipy"},
    "report_tests": TABLES | {"scipy"},
    "report_figure": TABLES | {"matplotlib", "scipy"},
    "report_pooled": TABLES | {"matplotlib", "scipy"},
    "report_rewards": TABLES | {"matplotlib"},
    "report_histograms": TABLES | {"matplotlib"},
    "report_lengths": TABLES | {"matplotlib"},
    "report weights": TABLES,
    "report_answers": TABLES,
    "report_tokens": TABLES,
    "report examples": TABLES,
    "manage stale": set(),
    "manage clean_state": set(),
    "manage cost": TABLES | {"matplotlib"},
    "manage cards": TABLES,
}

# Runs a program as Python would, and names the modules that are there at its end
OBSERVED = """
import atexit, runpy, sys
atexit.register(lambda: print(*(name for name, module in sys.modules.items() if module), file=sys.stderr))
sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0].rpartition("/")[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What each program has imported at the end of a run."""
    return {name: imported(name, words) for name, words in commands(tmp_path_factory.mktemp("study"))}


def test_a_program_imports_what_it_needs_and_no_more(loaded):
    assert {name: modules & HEAVY for name, modules in loaded.items()} == IMPORTED


def uncovered(program, modules):
    """Modules of the library that a run has loaded and the program's code hash does not cover.

    What it leaves out (`UNHASHED`) does not count, nor what is loaded for its sake alone.
    """
    covered = set(map(code_hash.module_name, code_hash.code_files(program)))
    below = structure.graph(structure.LIBRARY)
    unhashed = {file for file in below if file.name == "__init__.py"}  # a docstring each
    pending = [file for file in below if code_hash.is_unhashed(code_hash.module_name(file))]
    while pending:
        if (file := pending.pop()) not in unhashed:
            unhashed.add(file)
            pending += below[file]
    library = {name for name in modules if name.split(".")[0] == "wspin"}
    return library - covered - set(map(code_hash.module_name, unhashed))


def test_what_a_program_loads_is_covered_by_its_code_hash(loaded):
    """Else an edit would leave its results fresh, and a killed job would go on with other code."""
    missing = {name: uncovered(name.split()[0], modules) for name, modules in loaded.items()}
    assert missing == {name: set() for name in loaded}
    assert uncovered("weigh", loaded["train"]) >= {"wspin.train.losses", "wspin.train.trainer", "wspin.engine.head"}


def test_what_a_programs_modules_import_is_in_the_environment_of_its_rule(loaded):
    given, by_hand = environments.of_programs(), {"exchange export", "exchange import"}
    files = {code_hash.module_name(file): file for file in structure.files(structure.LIBRARY)}
    missing = {
        name: environments.imported(files[module] for module in modules & files.keys())
        - environments.packages(given[name]).keys()
        for name, modules in loaded.items()
        if name not in by_hand
    }
    assert missing == {name: set() for name in loaded.keys() - by_hand}


def imported(name, words):
    """Modules that a program has imported at the end of a run with such flags."""
    program, *command = name.split()
    path = workflow.ROOT / f"workflow/scripts/{program}.py"
    done = subprocess.run(
        [sys.executable, "-c", OBSERVED, path, *command, *map(str, words)],
        cwd=workflow.ROOT,
        env=workflow.environment(),
        text=True,
        capture_output=True,
    )
    *told, modules = done.stderr.splitlines()
    assert done.returncode == 0, "\n".join([name, *told])
    return set(modules.split())


def commands(folder):
    """(program, flags) of a study of four prompts, each from the files of those before it."""
    settings = [*(yaml.safe_load(file.read_text()) for file in SMALL), {**TINY, "results": str(folder)}]
    study = load_study(merge(*settings), SMALL)
    write_yaml(folder / "config.yaml", study.model_dump(mode="json", by_alias=True, exclude_none=True))
    flags = RuleFlags(StudyPaths(study))
    raw, rows = folder / "fetched/sft", folder / "data/prompts.parquet"
    base, model = ["--model", folder / "base", "--manifest", folder / "base.json"], folder / "sft"
    answers, reference = ["--generations", folder / "sft/generations/00.parquet"], folder / "sft/reference/00.parquet"
    weights = folder / "equal/ite0/weights/00.parquet"
    heldout, averages = folder / "heldout.parquet", ["--averages", folder / "averages.csv"]
    tables = ["--output", *(folder / f"table.{suffix}" for suffix in ("csv", "md", "tex"))]
    scored = folder / "sft/scores/demo"
    shard = {"responses": "sft", "shard": "00"}
    yield "fetch data", [*flags.fetch_data("sft"), "--output", raw]
    yield "fetch tasks", [*flags.fetch_tasks("demo"), "--output", folder / "tasks"]
    made = ["--output", folder / "base", "--output-manifest", folder / "base.json"]
    yield "fetch model", [*flags.fetch("base"), "--text", raw, *made]
    fits, digest = ["--fits", folder / "base"], ["--output-digest", folder / "rows.json"]
    yield "data prompts", ["--source", raw, *fits, *flags.data(), *digest, "--output", rows]
    yield (
        "data heldout",
        ["--source", raw, "--training", raw, *fits, *flags.data_heldout(), *digest, "--output", heldout],
    )
    made = ["--state", folder / ".state/generate", "--output", answers[1]]
    yield "generate", [*base, "--prompts", rows, *flags.generate(**shard), *made]
    read = [*base, "--rows", rows, *answers, *flags.logprobs_reference(**shard)]
    yield "logprobs reference", [*read, "--output", reference]
    weighed = ["--rows", rows, *answers, "--reference", reference, *flags.weigh("equal/ite0", "00")]
    yield "weigh", [*weighed, "--output", weights]
    weighed = ["--weights", weights, "--output", folder / "a.jsonl"]
    yield "exchange export", ["--format", "tis-dpo", "--rows", rows, *answers, *weighed]
    yield "exchange import", ["--format", "tis-dpo", "--train", folder / "a.jsonl", "--output", folder / "given"]
    given, generations = ["--given", folder / "given/pairs.jsonl"], folder / "given.parquet"
    made = ["--output", generations]
    yield "generate_given", [*base, "--prompts", rows, *given, *flags.generate_given(**shard), *made]
    read = ["--rows", rows, *given, "--generations", generations, "--reference", reference]
    yield "weigh_given", [*read, *flags.weigh_given("equal/ite0", "00"), "--output", folder / "given_weights"]
    made = ["--output", model / "model", "--output-manifest", model / "manifest.json", "--metrics", model / "curve"]
    yield (
        "train",
        [*base, "--rows", rows, *flags.train("sft"), *flags.untracked_train_flags("sft"), "--processes", 1, *made],
    )
    read = ["--model", model / "model", "--manifest", model / "manifest.json", "--tasks", folder / "tasks"]
    read += ["--heldout", heldout]
    made = ["--scores", f"{scored}.json", "--samples", f"{scored}.samples.parquet", "--state", folder / ".state/eval"]
    yield "eval", [*read, *flags.eval("sft", "demo"), *made]
    yield "report scores", [*flags.report_scores(), "--models", "sft", *tables]
    cells = [",".join(COLUMNS), "A paper,Table 1,sft,,,spell_backward,exact_match,40.00"]
    (folder / "cells.csv").write_text("\n".join(cells))
    beside = ["--table", folder / "cells.csv", "Table 1", "sft=sft"]
    yield "report_reproduction", [*flags.report_reproduction(), "--models", "sft", *beside, *tables[:3]]
    compared = [*flags.report_differences(), "--models", "sft", "--against", "--bootstrap", 10]
    yield "report differences", [*compared, *tables, *averages]
    below = ["--differences", tables[1], "--output", folder / "averages.svg"]
    yield "report_figure", [*flags.report_figure(), *averages, *below]
    pooled = [*flags.report_pooled(), "--models", "sft", "--against"]
    yield "report_pooled", [*pooled, "--output", folder / "pooled.md", folder / "pooled.svg"]
    (folder / "curve").write_text('{"step": 1, "rewards/margin": 0.0, "unweighted/margin": 0.0}\n')
    drawn = ["--curves", folder / "curve", "--output", folder / "rewards.svg"]
    yield "report_rewards", ["--iterations", "equal/ite0", *drawn]
    yield "report_tests", [*flags.report_tests(), "--models", "sft", "--contrasts", "sft=sft", *tables[:3]]
    kinds = {"weights": weights.parent, "reference": reference.parent, "generations": answers[1].parent}
    shards = ["--prompts", rows, "--shards", "00", "--iterations", "equal/ite0"]
    shards += [word for kind, path in kinds.items() for word in (f"--{kind}", path)]
    yield "report weights", [*shards, *tables[:3]]
    output = ["--output", folder / "histograms.svg"]
    yield "report_histograms", [*shards[2:-2], *output]
    drawn = ["--shards", "00", "--iterations", "equal/ite0", "--generations", kinds["generations"]]
    yield "report_lengths", [*drawn, "--real", kinds["reference"], "--output", folder / "lengths.svg"]
    shown = ["--count", 1, "--opponents", "sft", "--answers", answers[1], "--output", folder / "examples.md"]
    yield "report examples", [*shards, *shown]
    shown = ["--models", "sft", "--answers", answers[1], "--output", folder / "answers.html"]
    yield "report_answers", ["--rows", rows, "--count", 1, *shown]
    pages = ["--iteration", "equal/ite0", "--rows", rows, "--weights", weights, "--reference", reference, *answers]
    yield "report_tokens", [*pages, "--output", folder / "tokens.html"]
    for command in ("stale", "clean_state", "cost", "cards"):
        yield f"manage {command}", ["--results", folder]


def test_a_job_with_a_model_is_kept_from_the_network_and_from_tf32():
    """Whatever its environment says: hub and data sets are switched off before they are imported."""
    asked = "import huggingface_hub.constants as hub, datasets.config as data"
    asked += "; import torch; precision = torch.get_float32_matmul_precision()"
    asked += "; print(hub.HF_HUB_OFFLINE, data.HF_HUB_OFFLINE, precision, torch.backends.cuda.matmul.allow_tf32)"
    done = subprocess.run(
        [sys.executable, "-c", f"from wspin.models.offline import import_transformers_offline as go; go(); {asked}"],
        cwd=workflow.ROOT / "workflow/scripts",
        env={**workflow.environment(), "HF_HUB_OFFLINE": "0", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"},
        text=True,
        capture_output=True,
    )
    assert done.stdout.split() == ["True", "True", "highest", "False"], done.stderr
    programs = {
        file.stem
        for file in (workflow.ROOT / "workflow/scripts").glob("*.py")
        if "import_transformers_offline()" in file.read_text()
    }
    assert {"data", "generate", "logprobs", "train", "eval"} <= programs
