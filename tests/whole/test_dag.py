"""What Snakemake plans for every target, and what an edit makes it plan again."""

import json
import os
import shutil
import subprocess

import pytest
import workflow
import yaml

from wspin.config.load import load_study, merge
from wspin.study.paths import StudyPaths
from wspin.study.rule_flags import RuleFlags

RESULTS = "results/two"
STAGES = ("fetch", "data", "train", "generate", "logprobs", "weigh", "eval", "report")
# What follows from scores, from trainings, from answers, from weights
COMPARED = {f"report_{what}": 1 for what in ("scores", "differences", "tests", "figure", "pooled")}
TRAINED = {**COMPARED, "report_rewards": 1}
ANSWERED = {**TRAINED, "report_examples": 1, "report_answers": 1, "report_lengths": 1}
RETRAINED = {**ANSWERED, "generate_examples": 1}  # an arm, to its last iteration
REPORT = {**ANSWERED, "report_weights": 1, "report_histograms": 1}
FETCHES = {"fetch": 2, "fetch_data": 2, "fetch_tasks": 6}
MODELS = {
    "data": 1,
    "data_preferences": 1,
    "train": 14,
    "generate": 50,
    "logprobs_reference": 50,
    "logprobs_scorer": 40,
    "logprobs_preferences": 5,
    "weigh": 40,
}
ITERATION = {
    "fetch": 2,  # base, and the teacher, which decides which rows fit
    "fetch_data": 1,
    "fetch_tasks": 6,
    "data": 1,
    "train": 5,  # sft, ite0 to ite3
    "generate": 20,  # five shards, ite0 to ite3
    "logprobs_reference": 20,
    "eval": 6,
}
PUBLISHED = {"report_reproduction": 1}
TABLES = {f"report_{table}": 1 for table in ("scores", "differences", "tests", "weights", "examples")} | PUBLISHED
WEIGHED = {**ITERATION, "logprobs_scorer": 25, "weigh": 20}  # the real answers, and those of ite0 to ite3


def models(outputs, file="model"):
    """Models with such a file among the outputs."""
    return {
        output.removeprefix(f"{RESULTS}/").removesuffix(f"/{file}") for output in outputs if output.endswith(f"/{file}")
    }


def shards(outputs):
    """Folders of the generations and log-probabilities among the outputs."""
    return sorted(
        output.removeprefix(f"{RESULTS}/") for output in outputs if "/generations/" in output or "/reference/" in output
    )


def only(folders, outputs):
    """Whether nothing but the files of an arm, or of several folders, and the report is made."""
    names = [folders] if isinstance(folders, str) else folders
    places = tuple(f"{RESULTS}/{name}/" for name in (*names, "tables", "figures", "pages"))
    return all(output.startswith(places) for output in outputs)


# Targets of the study in config.yaml


@pytest.fixture(scope="session")
def offline():
    """A command that keeps another from the network; nothing where there is no such command."""
    command = ("unshare", "--map-root-user", "--net")
    able = shutil.which("unshare") and not subprocess.run([*command, "true"], stderr=subprocess.DEVNULL).returncode
    return command if able else ()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("results/spin/ite3", ITERATION),
        ("results/spin/ite3/", ITERATION),
        ("results/wspin/ite3", WEIGHED),
        ("results/wspin/ite3/", WEIGHED),
        ("results/wspin.paper/ite3", WEIGHED),
        ("models", {"fetch": 2, "fetch_data": 2, **MODELS}),
        ("tables", {**FETCHES, **MODELS, "eval": 96, **TABLES}),  # six suites of four models and twelve iterations
        ("all", {**FETCHES, **MODELS, "eval": 96, **REPORT, **PUBLISHED, "generate_examples": 6, "report_tokens": 8}),
    ],
)
def test_a_target_plans_its_jobs_without_network(repository, offline, target, expected):
    assert repository.plan(target, before=offline).counts == {**expected, target: 1}


def test_nothing_asked_for_means_all(repository):
    assert "all" in repository.plan().counts


def test_an_unknown_iteration_is_refused(repository):
    done = repository.run("--dry-run", "results/spin/ite9")
    assert done.returncode != 0
    assert "MissingRuleException:\nNo rule to produce results/spin/ite9" in done.stdout


def test_arms_share_the_answers_of_iteration_0(repository):
    both = workflow.Repository(repository.folder, (workflow.TWO_ARMS,))
    planned = both.plan(f"{RESULTS}/spin/ite0", f"{RESULTS}/spin2/ite0")
    assert shards(planned.made()) == [
        f"sft/{kind}/0{shard}.parquet" for kind in ("generations", "reference") for shard in (0, 1)
    ]
    assert planned.counts["generate"] == planned.counts["logprobs_reference"] == 2


# Edits of a finished study


def test_a_finished_study_plans_nothing_for_any_target(finished):
    spellings = [f"{RESULTS}/spin/ite3", f"{RESULTS}/spin/ite3/", f"{RESULTS}/spin2/ite0/"]
    assert finished.plan("all", "models", "tables", *spellings).jobs == []


SAME = {
    "numbers as strings": {
        "train": {"beta": "0.10", "learning_rate": "1e-4"},
        "arms": {"spin2": {"train": {"beta": "2e-1"}}},
    },
    "one value per iteration": {"train": {"beta": [0.1, 0.1, 0.1, 0.1], "sft": {"beta": 0.1}, "dpo": {"beta": 0.1}}},
    "what a training only watches": {"train": {"save_every": 7, "parallel": "fsdp", "margin_bound": {"float32": 0.5}}},
    "a tracker": {"train": {"report_to": "tensorboard"}, "arms": {"spin2": {"train": {"report_to": "wandb"}}}},
    "what its loss does not read": {"train": {"reduction": "sum", "sft": {"beta": 0.7, "reduction": "token_mean"}}},
    "other machines": {
        "resources": {
            stage: {"gpu": 4, "threads": 2, "mem_mb": 7000, "runtime": 7, "max_runtime": 9} for stage in STAGES
        },
    },
}


@pytest.mark.parametrize("edit", SAME.values(), ids=SAME.keys())
def test_the_same_study_written_otherwise_plans_nothing(finished, edit):
    assert finished.overlay(edit).plan("all").jobs == []


def test_an_edited_task_file_is_fetched_and_scored_again(study):
    (study.folder / "given/tasks").mkdir(parents=True, exist_ok=True)
    (study.folder / "given/tasks/one.yaml").write_text("task: one")
    planned = study.plan("all")
    assert planned.counts["fetch_tasks"] == 2
    assert not {"train", "generate", "logprobs_reference"} & planned.counts.keys()


def test_keys_in_another_order_plan_nothing(study):
    for name in ("config/config.yaml", *study.configfiles):
        file = study.folder / name
        file.write_text(yaml.safe_dump(backwards(yaml.safe_load(file.read_text())), sort_keys=False))
    assert study.plan("all").jobs == []


def backwards(value):
    """A mapping with every order of keys turned round."""
    return {key: backwards(below) for key, below in reversed(value.items())} if isinstance(value, dict) else value


def test_a_value_on_the_command_line_is_the_same_value(finished):
    assert finished.plan("all", "--config", 'train={"beta": 0.10}').jobs == []
    assert finished.plan("all", "--config", 'generate={"temperature": 0.5}').counts["generate"] == 14


def test_an_edited_shell_command_plans_nothing(study):
    for file in study.folder.glob("rules/*.smk"):
        file.write_text(file.read_text().replace("exec &> >(tee", "exec  &> >(tee"))
    assert study.plan("all").jobs == []


def test_an_arms_setting_plans_its_own_jobs_only(finished):
    planned = finished.overlay({"arms": {"spin2": {"train": {"beta": 0.3}}}}).plan("all")
    assert planned.counts == {"train": 4, "generate": 6, "logprobs_reference": 6, "eval": 8, **RETRAINED, "all": 1}
    assert only("spin2", planned.made())


def test_the_studys_beta_trains_what_has_none_of_its_own(finished):
    planned = finished.overlay({"train": {"beta": 0.3}}).plan("all")
    assert models(planned.made()) == {"dpo", *(f"spin/ite{k}" for k in range(4))}


def test_the_studys_learning_rate_trains_the_arms_alone(finished):
    planned = finished.overlay({"train": {"learning_rate": 2.0e-4}}).plan("all")
    assert models(planned.made()) == {f"{arm}/ite{k}" for arm in ("spin", "spin2") for k in range(4)}


def test_a_setting_of_one_iteration_trains_from_there(finished):
    planned = finished.overlay({"train": {"learning_rate": [1.0e-4, 1.0e-4, 3.0e-4, 1.0e-4]}}).plan("models")
    assert models(planned.made()) == {f"{arm}/ite{k}" for arm in ("spin", "spin2") for k in (2, 3)}


def test_a_setting_of_the_evaluation_trains_nothing(finished):
    planned = finished.overlay({"eval": {"batch_size": 4}}).plan("all")
    assert planned.counts == {"eval": 24, **COMPARED, "all": 1}


@pytest.mark.parametrize("edit", [{"prompts": 1}, {"split": "validation"}], ids=["fewer", "of another split"])
def test_other_heldout_rows_train_nothing(finished, edit):
    planned = finished.overlay({"data": {"heldout": edit}}).plan("all")
    fetched = {"fetch_data": 1} if "split" in edit else {}
    assert planned.counts == {**fetched, "data_heldout": 1, "eval": 12, **COMPARED, "all": 1}
    assert all("scores/slow." in output for output in planned.made("eval"))


def test_other_rows_are_followed_and_equal_ones_written_otherwise_are_not(study):
    """It is the digest of the rows that later jobs track: the file also records how they were drawn."""
    for name in ("prompts", "heldout"):
        (study.folder / RESULTS / f"data/{name}.parquet").write_text("the same rows, drawn otherwise")
    assert study.plan("all").jobs == []
    (study.folder / RESULTS / "data/prompts.json").write_text("other rows")
    planned = study.plan("models")
    assert {rule: planned.counts[rule] for rule in ("train", "generate", "logprobs_reference")} == {
        "train": 10,
        "generate": 14,
        "logprobs_reference": 14,
    }


def test_another_engine_of_a_suite_scores_that_suite_alone_in_the_engines_python(finished):
    python = finished.folder / ".venv-vllm/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    here = finished.overlay({"eval": {"engine": {"quick": "vllm", "slow": "transformers"}}})
    output = here.run("--dry-run", "all").stdout
    shutil.rmtree(finished.folder / ".venv-vllm")
    planned = workflow.Plan(output)
    assert planned.counts == {"eval": 12, **COMPARED, "all": 1}
    assert all("scores/quick." in output for output in planned.made("eval"))
    assert output.count(f"{python} workflow/scripts/eval.py") == 12


def test_shots_of_a_suite_are_flags_of_that_suite_alone():
    shots = {"eval": {"suites": {"slow": {"two": 1}}}}
    for suite, same in (("quick", True), ("slow", False)):
        flags = [made.eval(model="sft", suite=suite) for made in (commands(), commands(**shots))]
        assert (flags[0] == flags[1]) == same


def test_a_rounded_model_is_a_flag_where_it_is_loaded_and_float32_is_none():
    jobs = {"logprobs_scorer": {"scorer": "teacher", "responses": "gold", "shard": "00"}}
    jobs["eval"] = {"model": "teacher", "suite": "quick"}
    for rule, job in jobs.items():
        plain, same, rounded = (
            getattr(commands(models={"teacher": {"dtype": dtype}} if dtype else {}), rule)(**job)
            for dtype in (None, "float32", "bfloat16")
        )
        assert plain == same and "--dtype" not in plain
        assert rounded == [*plain, "--dtype", "bfloat16"]
    other = commands(models={"teacher": {"dtype": "bfloat16"}})
    assert other.eval(model="spin/ite0", suite="quick") == commands().eval(model="spin/ite0", suite="quick")


def test_settings_of_the_other_engine_are_no_flags():
    edit = {"eval": {"engine": {"quick": "vllm", "slow": "transformers"}, "token_budget": 99}}
    quick, slow = (commands(**edit).eval(model="sft", suite=suite) for suite in ("quick", "slow"))
    assert "--token-budget" not in quick and slow[slow.index("--token-budget") + 1] == "99"


def test_another_metric_writes_the_tables_alone(finished):
    planned = finished.overlay({"report": {"metrics": {"one": "exact_match,none"}}}).plan("all")
    assert planned.counts == {**COMPARED, "all": 1}


def test_a_preregistration_tests_again_alone_and_a_mistake_in_it_is_one_line(finished):
    registered = finished.overlay({"report": {"preregistration": "config/preregistration.yaml"}})
    assert registered.plan("all").counts == {"report_tests": 1, "all": 1}
    done = finished.overlay({"report": {"preregistration": "config/config.yaml"}}).run("--dry-run", "all")
    assert done.returncode != 0
    assert "config/config.yaml: level: missing key; nothing is defaulted silently" in done.stdout.splitlines()


def test_a_published_table_is_one_job_which_new_cells_run_again(finished):
    cells = finished.folder / "cells.csv"
    cells.write_text("source,table,method,iteration,variant,task,metric,value\nA paper,Table 1,sft,,,one,acc,40.00\n")
    table = {"file": "cells.csv", "table": "Table 1", "rows": {"sft": "sft"}}
    beside = finished.overlay({"report": {"published": {"mine": table}}})
    beside.make("tables")
    command = (finished.folder / f"{RESULTS}/tables/reproduction.md").read_text()
    assert "--table cells.csv Table 1 sft=sft --output " in command
    cells.write_text(cells.read_text().replace("40.00", "41.00"))
    planned = beside.plan("tables")
    assert planned.counts == {"report_reproduction": 1, "tables": 1}


def test_one_more_iteration_plans_that_iteration_alone(finished):
    planned = finished.overlay({"iterations": 5}).plan("all")
    assert planned.counts == {
        "train": 2,
        "generate": 4,
        "logprobs_reference": 4,
        "eval": 4,
        **RETRAINED,
        "generate_examples": 2,
        "all": 1,
    }
    assert all("/ite4/" in output for output in planned.made("train", "generate", "logprobs_reference", "eval"))


def test_another_temperature_leaves_the_baselines_alone(finished):
    planned = finished.overlay({"generate": {"temperature": 0.5}}).plan("models")
    assert planned.counts == {"generate": 14, "logprobs_reference": 14, "train": 8, "models": 1}
    assert models(planned.made()) == {f"{arm}/ite{k}" for arm in ("spin", "spin2") for k in range(4)}


def test_an_arms_window_leaves_its_first_iteration_alone(finished):
    planned = finished.overlay({"arms": {"spin": {"data_window": 1}}}).plan("all")
    assert planned.counts == {"train": 3, "generate": 4, "logprobs_reference": 6, "eval": 6, **RETRAINED, "all": 1}
    assert only("spin", planned.made())


def test_two_more_seeds_answer_as_the_start_model_once_for_all_arms(finished):
    seeds = {"seeds": [42, 43, 44]}
    planned = finished.overlay({"arms": {"spin": seeds, "spin2": seeds}}).plan("all")
    first = [f"{RESULTS}/sft/s{seed}/{{}}/{shard}.parquet" for seed in (43, 44) for shard in ("00", "01")]
    for rule, kind in (("generate", "generations"), ("logprobs_reference", "reference")):
        later = {path for path in planned.made(rule) if "/ite" in path}
        assert planned.made(rule) - later == {path.format(kind) for path in first}
        assert len(later) == 4 * 3 * 2  # replicates, iterations 1 to 3, shards
    assert planned.counts["train"] == 4 * 4
    assert f"{RESULTS}/tables/pooled.md" in planned.made("report_pooled")
    assert only(("spin.s43", "spin.s44", "spin2.s43", "spin2.s44", "sft/s43", "sft/s44"), planned.made())


def test_a_seed_less_changes_tables_alone(finished):
    more = finished.overlay({"arms": {"spin": {"seeds": [42, 43]}}})
    more.make("models")
    assert more.plan("models").jobs == []
    assert finished.plan("all").jobs == []


def test_a_fork_shares_the_answers_it_starts_with_and_changes_no_job_there_is(finished):
    late = {"fork": {"from": "spin", "at": 2}, "train": {"beta": 0.5}}
    planned = finished.overlay({"arms": {"spin.late": late}}).plan("all")
    assert planned.counts == {"train": 2, "generate": 2, "logprobs_reference": 2, "eval": 4, **RETRAINED, "all": 1}
    assert only("spin.late", planned.made())


def test_another_baseline_is_one_training_and_its_scores(finished):
    more = {"from": "sft", "loss": "dpo", "data": "preferences", "train": {"beta": 0.5}}
    edit = {"models": {"dpo.strong": more}, "eval": {"models": ["base", "sft", "dpo", "dpo.strong"]}}
    planned = finished.overlay(edit).plan("all")
    assert planned.counts == {"train": 1, "eval": 2, **COMPARED, "report_answers": 1, "generate_examples": 1, "all": 1}


# Arms that weigh their tokens


def chain(arm, first=0):
    """Folders that a weighed arm makes from its iteration `first` on, in three iterations, and what scoring follows."""
    later = range(max(first, 1), 3)
    return {f"{arm}/ite{k}/{kind}" for k in later for kind in ("generations", "reference")} | {
        f"{arm}/ite{k}/{kind}" for k in range(first, 3) for kind in ("weights", "model", "manifest.json", "scores")
    }


def folders(planned):
    """Folders of what is planned, below the results, without curves, tables, figures and pages."""
    made = {output.removeprefix("results/weighed/") for output in planned.made()}
    beside = ("metrics.jsonl", "tokens.html", "examples.parquet")
    made = {name for name in made if not name.startswith(("tables", "figures", "pages")) and not name.endswith(beside)}
    return {name.rsplit("/", 1)[0] if name.endswith((".parquet", "quick.json")) else name for name in made}


def readings(*sets, teacher="teacher"):
    return {f"logprobs/{teacher}/{responses}" for responses in sets}


def test_a_teacher_reads_each_text_once(weighed):
    made = sorted(path.parent for path in weighed.folder.glob("results/weighed/logprobs/**/*.parquet"))
    read = {str(path.relative_to(weighed.folder / "results/weighed/logprobs")) for path in made}
    own = {f"teacher/{arm}/ite{k}" for arm in ("wspin", "wspin.paper") for k in (1, 2)}
    assert read == {"teacher/gold", "teacher/sft", *own}
    assert weighed.plan("all").jobs == []


def test_an_arms_clamp_plans_its_weights_and_what_follows(weighed):
    planned = weighed.overlay({"arms": {"wspin": {"weigh": {"upper": 1.0}}}}).plan("all")
    assert folders(planned) == chain("wspin") | readings("wspin/ite1", "wspin/ite2")
    assert planned.counts == {
        "weigh": 3,
        "train": 3,
        "generate": 2,
        "logprobs_reference": 2,
        "logprobs_scorer": 2,
        "eval": 3,
        **REPORT,
        "generate_examples": 1,
        "report_tokens": 3,
        "all": 1,
    }
    assert planned.made("report_tokens") == {f"results/weighed/wspin/ite{k}/tokens.html" for k in range(3)}


def test_the_studys_clamp_leaves_equal_weights_alone(weighed):
    planned = weighed.overlay({"weigh": {"lower": -1.0}}).plan("models")
    assert planned.counts["weigh"] == planned.counts["train"] == 6
    assert not any(name.startswith(("equal", "spin/")) for name in folders(planned))


def test_another_teacher_of_one_arm_reads_what_it_has_not_read(weighed, tmp_path):
    study = weighed.copy(tmp_path / "study")
    one = study.overlay({"arms": {"wspin.paper": {"teacher": "sft"}}})
    planned = one.plan("all")
    sets = ("gold", "sft", "wspin.paper/ite1", "wspin.paper/ite2")
    assert folders(planned) == chain("wspin.paper") | readings(*sets, teacher="sft")
    one.make("all")
    both = study.overlay({"arms": {"wspin.paper": {"teacher": "sft"}, "wspin": {"teacher": "sft"}}})
    assert folders(both.plan("all")) == chain("wspin") | readings("wspin/ite1", "wspin/ite2", teacher="sft")


def test_a_weighed_replicate_reads_its_own_answers_alone(weighed):
    arm = {"seed": 43, "train": {"loss": "wspin"}}
    planned = weighed.overlay({"arms": {"wspin.s43": arm}}).plan("all")
    own = {f"sft/s43/{kind}" for kind in ("generations", "reference")}
    read = readings("sft/s43", "wspin.s43/ite1", "wspin.s43/ite2")
    assert folders(planned) == chain("wspin.s43") | own | read


def test_a_weighed_fork_takes_over_its_parents_weights(weighed):
    arm = {"fork": {"from": "wspin", "at": 1}, "train": {"loss": "wspin"}, "weigh": {"upper": 1.0}}
    planned = weighed.overlay({"arms": {"wspin.late": arm}}).plan("all")
    fork = chain("wspin.late", first=1) - {"wspin.late/ite1/generations", "wspin.late/ite1/reference"}
    assert folders(planned) == fork | readings("wspin.late/ite2")


def test_a_weighed_fork_of_a_plain_arm_weighs_what_it_replays(weighed):
    arm = {"fork": {"from": "spin", "at": 1}, "train": {"loss": "wspin"}}
    planned = weighed.overlay({"arms": {"late": arm}}).plan("all")
    fork = chain("late", first=1) - {"late/ite1/generations", "late/ite1/reference"}
    assert folders(planned) == fork | {"late/ite0/weights"} | readings("spin/ite1", "late/ite2")


@pytest.mark.parametrize("name", ["tis-dpo", "tisdpo"])
def test_the_published_names_of_the_loss_plan_nothing(weighed, name):
    assert weighed.overlay({"arms": {"wspin": {"train": {"loss": name}}}}).plan("all").jobs == []


def test_another_alpha_trains_again_without_other_weights_for_iteration_0(weighed):
    planned = weighed.overlay({"arms": {"wspin": {"train": {"alpha": 0.5}}}}).plan("models")
    assert planned.counts["train"] == 3
    assert planned.counts["weigh"] == 2


def test_another_end_of_cut_answers_is_no_other_text_for_a_teacher(weighed):
    """Only the reference completes cut answers; what the teacher has read of iteration 0 stays, and so do baselines."""
    planned = weighed.overlay({"dialogue": {"eos_on_cut": True}}).plan("all")
    own = [f"{arm}/ite{k}" for arm in ("wspin", "wspin.paper") for k in (1, 2)]
    assert {name for name in folders(planned) if name.startswith("logprobs/")} == readings(*own)
    assert not {"logprobs_preferences", "fetch", "data"} & planned.counts.keys()
    assert not {"dpo/model", "teacher/model"} & folders(planned)


def test_another_baseline_arm_makes_tables_alone(weighed):
    planned = weighed.overlay({"report": {"baseline": "equal"}}).plan("all")
    assert planned.counts == {**ANSWERED, "all": 1}


def test_arms_in_another_order_plan_nothing(weighed, tmp_path):
    study = weighed.copy(tmp_path / "study")
    for name in ("config/config.yaml", *study.configfiles):
        file = study.folder / name
        file.write_text(yaml.safe_dump(backwards(yaml.safe_load(file.read_text())), sort_keys=False))
    assert study.plan("all").jobs == []


# Copies


def test_a_copy_with_new_times_plans_nothing(finished, tmp_path):
    """Contents count: of models, rows and fetched folders by what lies beside them, of other files by a checksum."""
    copy = shutil.copytree(finished.folder, tmp_path / "study", copy_function=shutil.copyfile)
    for age, path in enumerate(sorted((copy / "results").rglob("*"), reverse=True)):
        os.utime(path, (1.7e9 + age, 1.7e9 + age))  # as if the last were written first
    assert workflow.Repository(copy, finished.configfiles).plan("all").jobs == []


def test_task_files_of_a_fresh_clone_plan_nothing(study):
    (study.folder / "given/tasks").mkdir(parents=True)
    (study.folder / "given/tasks/one.yaml").write_text("task: one")
    study.make(*(f"{RESULTS}/fetched/tasks/{suite}" for suite in ("quick", "slow")))
    shutil.rmtree(study.folder / ".snakemake")
    for path in (study.folder / RESULTS).rglob("*"):
        os.utime(path, (1.7e9, 1.7e9))
    os.utime(study.folder / "given/tasks/one.yaml", (4e9, 4e9))
    assert study.plan("all").jobs == []


# Files that go missing


def test_a_deleted_model_is_made_again_only_for_who_asks_for_it(study):
    shutil.rmtree(study.folder / RESULTS / "spin/ite2/model")
    assert study.plan(f"{RESULTS}/spin/ite3").jobs == []
    together = study.plan("all")  # what follows from a model is planned before its bytes are known
    assert together.counts == {"train": 2, "generate": 2, "logprobs_reference": 2, "eval": 4, **RETRAINED, "all": 1}
    target = f"{RESULTS}/spin/ite2"
    planned = study.plan(target)
    assert planned.counts == {"train": 1, "eval": 2, target: 1}
    assert models(planned.made()) == {"spin/ite2"}
    assert all(output.startswith(f"{target}/") for output in planned.made())
    study.make(target)
    assert (study.folder / RESULTS / "spin/ite2/model").is_dir()
    assert study.plan("all").jobs == []


def test_a_missing_file_between_models_plans_nothing(study):
    """All asks for models and tables; status shows the file as missing (`tests/manage/test_status.py`)."""
    shutil.rmtree(study.folder / RESULTS / "sft/generations")
    assert study.plan("all").jobs == []


def test_another_model_in_its_place_is_followed(study):
    """What the test above relies on: it is the manifest's content that later jobs track."""
    (study.folder / RESULTS / "spin/ite2/manifest.json").write_text("another")
    planned = study.plan("all")
    assert models(planned.made()) == {"spin/ite3"}
    assert planned.counts == {"train": 1, "generate": 2, "logprobs_reference": 2, "eval": 4, **RETRAINED, "all": 1}


# Mistakes


def test_a_mistake_in_the_configuration_is_one_line(finished):
    done = finished.overlay({"seed": 1, "train": {"bta": 0.3}}).run("--dry-run", "all")
    assert done.returncode != 0
    snakemakes = ("Using profile", "Config file")  # what it says before it reads the study
    lines = [line for line in done.stdout.splitlines() if not line.startswith(snakemakes)]
    assert lines == [f"{finished.folder}/edit.yaml:3: train.bta: unknown key; did you mean `beta`?"]


# What Snakemake compares


def commands(**edit):
    """Flags of the two-arm study under an edit."""
    files = [workflow.ROOT / "config/config.yaml", workflow.ROOT / workflow.TWO_ARMS]
    layers = [yaml.safe_load(file.read_text()) for file in files]
    return RuleFlags(StudyPaths(load_study(merge(merge(*layers), edit))))


def every_flag(made, arms):
    """Flags of every kind of job."""
    rules = {
        "fetch": [{"model": "base"}],
        "fetch_data": [{"dataset": "sft"}],
        "fetch_tasks": [{"suite": "slow"}],
        "data": [{}],
        "data_preferences": [{}],
        "train": [{"model": model} for model in ("sft", "dpo", *(f"{arm}/ite1" for arm in arms))],
        "generate": [{"responses": name, "shard": "01"} for name in ("sft", *(f"{arm}/ite1" for arm in arms))],
        "logprobs_reference": [
            {"responses": name, "shard": "01"} for name in ("sft", *(f"{arm}/ite1" for arm in arms))
        ],
        "logprobs_scorer": [{"scorer": "teacher", "responses": f"{arms[0]}/ite1", "shard": "01"}],
        "logprobs_preferences": [{"scorer": "sft", "shard": "00"}],
        "weigh": [{"model": f"{arm}/ite1", "shard": "01"} for arm in arms],
        "report_figure": [{}],
        "eval": [{"model": model, "suite": "slow"} for model in ("sft", *(f"{arm}/ite1" for arm in arms))],
    }
    return {(rule, json.dumps(job)): getattr(made, rule)(**job) for rule, jobs in rules.items() for job in jobs}


def test_flags_hold_no_resource():
    numbers = {"gpu": 61, "threads": 823, "mem_mb": 827, "runtime": 829, "max_runtime": 839}
    given = every_flag(commands(resources=dict.fromkeys(STAGES, numbers)), ["spin", "spin2"])
    assert given == every_flag(commands(), ["spin", "spin2"])
    assert not {str(number) for number in numbers.values()} & {flag for flags in given.values() for flag in flags}


def test_flags_never_hold_an_arms_name():
    arms = {"spin": None, "spin2": None, "zebra": {"seed": 43}, "zebra.late": {"fork": {"from": "zebra", "at": 1}}}
    given = every_flag(commands(arms=arms, report={"baseline": "zebra"}), ["zebra", "zebra.late"])
    assert not [job for job, flags in given.items() if any("zebra" in flag for flag in flags)]


# Files in place of iteration 0


@pytest.fixture
def taken(weighed, tmp_path):
    """A finished study whose iteration 0 has its answers and weights from files; made by stubs."""
    study = weighed.copy(tmp_path / "study")
    for name in ("answers", "weights"):
        (study.folder / f"{name}.jsonl").write_text("{}\n")
    return study.overlay({"generate": {"given": "answers.jsonl"}, "weigh": {"given": "weights.jsonl"}})


def test_given_files_take_the_place_of_iteration_0(taken):
    """Arms that weigh otherwise weigh the given answers themselves; of the others no teacher reads them."""
    shutil.rmtree(taken.folder / "results")
    planned = taken.plan("results/weighed/wspin/ite1")
    assert planned.made("generate_given") == {"results/weighed/sft/generations/00.parquet"}
    assert planned.made("weigh_given") == {"results/weighed/wspin/ite0/weights/00.parquet"}
    assert planned.made("generate") == {"results/weighed/wspin/ite1/generations/00.parquet"}
    assert planned.made("weigh") == {"results/weighed/wspin/ite1/weights/00.parquet"}
    read = {f"results/weighed/logprobs/teacher/{name}/00.parquet" for name in ("gold", "wspin/ite1")}
    assert planned.made("logprobs_scorer") == read
    assert "logprobs_scorer" not in taken.plan("results/weighed/wspin/ite0").counts
    both = taken.plan("results/weighed/wspin/ite0", "results/weighed/wspin.paper/ite0")
    assert {path.split("/")[-3] for path in both.made("logprobs_scorer")} == {"teacher"}
    assert len(both.made("logprobs_scorer")) == 2
    assert both.made("weigh") == {"results/weighed/wspin.paper/ite0/weights/00.parquet"}


def test_an_edited_file_plans_what_depends_on_it_alone(taken):
    taken.make("all")
    assert taken.plan("all").jobs == []
    (taken.folder / "weights.jsonl").write_text("{}\n{}\n")
    planned = taken.plan("models")
    assert planned.counts["weigh_given"] == 1
    assert planned.counts["weigh"] == 2
    assert folders(planned) == {
        name for name in chain("wspin") | readings("wspin/ite1", "wspin/ite2") if "scores" not in name
    }
    (taken.folder / "answers.jsonl").write_text("{}\n{}\n")
    planned = taken.plan("models")
    assert planned.counts["generate_given"] == planned.counts["weigh_given"] == 1
    assert planned.counts["train"] == 12
    assert not {"fetch", "data", "fetch_data", "logprobs_preferences"} & planned.counts.keys()


def test_a_replicate_of_another_seed_samples_its_own_answers(taken):
    arm = {"seed": 43, "train": {"loss": "wspin"}}
    given = yaml.safe_load((taken.folder / "edit.yaml").read_text())
    planned = taken.overlay({**given, "arms": {"wspin.s43": arm}}).plan("results/weighed/wspin.s43/ite0")
    assert planned.made("generate") == {"results/weighed/sft/s43/generations/00.parquet"}
    assert planned.made("weigh") == {"results/weighed/wspin.s43/ite0/weights/00.parquet"}
    assert not {"generate_given", "weigh_given"} & planned.counts.keys()


def test_given_files_change_no_flag_of_other_jobs():
    arms = ["spin", "spin2"]
    assert every_flag(commands(generate={"given": "a.jsonl"}), arms) == every_flag(commands(), arms)
