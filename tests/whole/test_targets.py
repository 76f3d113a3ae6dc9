"""The overlays of the papers' tables: short, apart from each other, and as many jobs as docs/targets.md says."""

import itertools

import pytest
import targets
import update
import workflow
import yaml
from targets import TARGETS

from wspin.config.preregistration import read_preregistration
from wspin.config.study import RESERVED
from wspin.iteration import Iteration
from wspin.study.rule_flags import RuleFlags

FOLDER = workflow.ROOT / targets.PAPER
PAGE = workflow.ROOT / "docs/targets.md"
STUDIES = {
    **{target.name: target.paths for target in TARGETS},
    **{name: targets.paths_of(*overlays) for name, overlays in (("study", ()), ("zephyr", (targets.ZEPHYR,)))},
}


def test_the_page_counts_jobs_and_hours():
    """`python tests/update.py` renews it."""
    page = PAGE.read_text()
    assert update.fill(page, "targets", targets.markdown()) == page


def test_every_overlay_is_a_target_and_short():
    overlays = {path.stem: path.read_text() for path in FOLDER.glob("*.yaml") if path.stem != "demo"}
    assert overlays.keys() <= {target.name for target in TARGETS}
    for target in TARGETS:
        if target.name in overlays:
            assert overlays[target.name].count("\n") <= 40
            assert f"\n#   {target.command}\n" in overlays[target.name]


def test_no_two_studies_write_the_same_tables():
    places = [study.report_folder("tables") for name, study in STUDIES.items() if name not in ("spin2", "zephyr")]
    assert len(set(places)) == len(places)
    for study in STUDIES.values():
        folder = study.results.removeprefix("results").removeprefix("/")
        assert not folder or folder in RESERVED


def made_of(study):
    """(rule, what it makes) -> flags and inputs, of all that studies with the same results could share."""
    flags, entries = RuleFlags(study), {}
    for model in (*study.study.models, *study.contrast_models, *study.iteration_models()):
        if model in study.fetched_models:
            entries["fetch", model] = flags.fetch(model)
            continue
        inputs = (study.parent(model), study.training_rows(model), study.training_reference(model))
        inputs += (study.training_weights(model), study.training_answers(model))
        entries["train", model] = (flags.train(model), *inputs)
    for folder in study.weighted_folders:
        scored = (study.positive_logprobs(folder, "00"), study.negative_logprobs(folder, "00"))
        entries["weigh", folder] = (flags.weigh(folder, "00"), study.weighted_reference(folder, "00"), *scored)
    for scorer, folder in itertools.product(study.scorers, [*study.weighted_folders]):
        if scorer in study.scorer_pair(folder):
            for side in study.scored_sides(folder):
                entries["logprobs_scorer", scorer, side] = flags.logprobs_scorer(scorer, side, "00")
    for responses in study.response_sets():
        entries["generate", responses] = (flags.generate(responses, "00"), study.generator(responses))
    for iteration in study.all_iterations():
        folder = study.reference_folder(iteration)
        replayed = study.replayed_sets(Iteration.parse(folder))
        entries["reference", folder] = (flags.logprobs_reference(folder, "00"), replayed)
    for model, suite in itertools.product(study.table_models(), study.study.eval.suites):
        entries["eval", model, suite] = (flags.eval(model, suite), flags.fetch_tasks(suite))
    return entries | {"data": flags.data(), "data_preferences": flags.data_preferences()}


def test_what_studies_share_they_make_alike():
    """Otherwise one target would make again what another has made."""
    folders = {study.results for study in STUDIES.values()}
    assert len(folders) == 5
    for folder in folders:
        entries = {}
        for name, study in STUDIES.items():
            for key, made in made_of(study).items() if study.results == folder else ():
                first, known = entries.setdefault(key, (name, made))
                assert made == known, f"{key} of {name} and of {first}"


def test_no_overlay_of_the_papers_trains_what_its_table_does_not_need():
    for target in TARGETS:
        names = {*target.paths.study.models, *target.paths.contrast_models}
        if target.name != "spin2":  # a whole preset
            assert names <= targets.needed(target.paths, "tables" in target.rules), target.name


def test_groups_leave_the_domains_of_mmlu_out_of_the_average():
    study = STUDIES["swift14"].study
    domains = {"mmlu_humanities", "mmlu_social_sciences", "mmlu_stem", "mmlu_other"}
    assert study.report.metrics.keys() - study.report.groups["average"] == domains
    assert sorted(study.report.groups["average"]) == sorted(STUDIES["study"].study.report.metrics)


def test_the_papers_signs_and_ranges():
    arms = STUDIES["swift3"].study
    assert [arms.arm_weigh(name).mu_rejected for name in ("wspin.paper", "contrast.paper", "reverse.paper")] == [
        1.0
    ] * 3
    assert (arms.arm_weigh("random").control, arms.arm_weigh("random").source) == ("random", "equal")
    assert STUDIES["swift9"].study.arm_weigh("noise.paper").control == "noise"
    assert STUDIES["controls"].study.arm_weigh("wspin").mu_rejected == -1.0


def test_the_controls_are_there():
    arms = {*STUDIES["controls"].study.arms}
    weights = "permuted random random_matched one_minus inverse noise mean_one equal.mean_one equal.sum_to stale"
    assert arms >= {
        *weights.split(),
        "teacher_surprisal",
        "wspin.paper",
        "contrast",
        "prompts",
        "log_mean",
        "sum_spread",
    }
    assert arms >= {"spin.beta5", "wspin.beta5", "spin.window1", "spin.all", "kl", "k.half", "k.two", "clamp.none"}
    study = STUDIES["controls"].study
    assert {"kd", "kd.long", "sft.long"} <= {*study.eval.models}
    assert study.model_train("kd.long") == study.model_train("sft.long")
    assert STUDIES["controls"].train_settings("spin.beta5/ite3").beta == 5.0
    assert STUDIES["controls"].replayed_sets(Iteration("wspin.all", 3)) == ["wspin/ite2", "wspin/ite1", "sft"]


def test_every_control_is_compared_with_the_arm_that_it_controls():
    """The baseline of the tables is spin; the family of tests has the rest."""
    study = STUDIES["controls"].study
    family = read_preregistration(workflow.ROOT / study.report.preregistration)
    assert {name for pair in family.pairs for name in pair} <= {*study.arms, *study.models}
    assert family.tests == ["documents"]  # of one seed
    controls = "spin permuted random_matched random one_minus inverse mean_one stale teacher_surprisal contrast prompts"
    compared = {baseline for arm, baseline in family.pairs if arm == "wspin"}
    assert compared >= {*controls.split(), "kd.long", "sft.long"}


def test_hours_of_long_answers_are_at_least():
    """An unfetched suite counts as one pass over its texts; a chain of thought is hundreds of steps."""
    suites = {target.name: target.paths.study.eval.suites.values() for target in TARGETS if "tables" in target.rules}
    thinking = {name for name in suites if any(task.startswith("bbh") for suite in suites[name] for task in suite)}
    assert {target.name for target in TARGETS if target.at_least} == thinking == {"swift10", "spin6"}
    for line in PAGE.read_text().splitlines():
        if line.startswith(("| SWIFT 10:", "| SPIN 6,")):
            assert line.count("at least ") == 2


def test_the_page_of_the_overlays_has_the_results_of_each():
    lines = (workflow.ROOT / targets.OVERLAYS / "README.md").read_text().splitlines()
    for target in TARGETS:
        if target.overlays[-1].startswith(targets.PAPER):
            (line,) = (line for line in lines if line.startswith("| `paper/") and f"{target.name}.yaml`" in line)
            assert f"| `{target.paths.results}`" in line


def test_commits_of_data_stand_beside_their_names():
    """The same name on the hub has the same commit in every overlay."""
    commits = {}

    def collect(node):
        if isinstance(node, dict):
            if "hub" in node and "revision" in node:
                commits.setdefault(node["hub"], set()).add(node["revision"])
            for value in node.values():
                collect(value)

    for path in [workflow.ROOT / "config/config.yaml", *(workflow.ROOT / targets.OVERLAYS).rglob("*.yaml")]:
        collect(yaml.safe_load(path.read_text()))
    assert {name: len(known) for name, known in commits.items() if len(known) > 1} == {}


@pytest.mark.faults
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_snakemake_plans_what_the_page_counts(target, tmp_path):
    plan = workflow.checkout(tmp_path, *target.overlays).plan(*target.rules)
    jobs = targets.outputs(target.paths, target.rules)
    assert {job.outputs[0] for job in plan.jobs if job.outputs} == jobs.keys()
    assert sum(plan.counts.values()) == targets.counts(target)[0]
