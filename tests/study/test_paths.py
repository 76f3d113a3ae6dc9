"""Who plays against whom, what an iteration reads, and who owns what arms share."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from wspin.config.load import load_study
from wspin.config.study import merge
from wspin.iteration import Iteration
from wspin.study import jobs, rule_flags
from wspin.study.paths import StudyPaths

BASE = yaml.safe_load((Path(__file__).parents[2] / "config" / "config.yaml").read_text())


def study_paths(arms=None, **overlay):
    """The paper's study with other arms beside `spin`."""
    alone = {"wspin": None, "wspin.paper": None}
    others = {"arms": {**alone, **(arms or {})}, "report": {"published": None}}
    return StudyPaths(load_study(merge(BASE, others, overlay)))


ite = Iteration.parse


def trained_on(study, model):
    """Rows and reference shards of a training."""
    return study.training_rows(model), study.training_reference(model)


def names(paths):
    return [path.removeprefix("results/") for path in paths]


# One arm


def test_every_iteration_plays_against_the_one_before():
    study = study_paths()
    assert [study.opponent(iteration) for iteration in study.iterations("spin")] == [
        "sft",
        "spin/ite0",
        "spin/ite1",
        "spin/ite2",
    ]
    assert [study.parent(f"spin/ite{k}") for k in range(2)] == ["sft", "spin/ite0"]
    assert (study.parent("sft"), study.parent("dpo")) == ("base", "sft")


def test_responses_of_iteration_k_come_from_its_opponent():
    study = study_paths()
    responses = [study.response_set(Iteration("spin", k)) for k in range(4)]
    assert responses == ["sft", "spin/ite1", "spin/ite2", "spin/ite3"]
    assert [study.generator(name) for name in responses] == [study.opponent(Iteration("spin", k)) for k in range(4)]
    assert [study.reference_folder(Iteration("spin", k)) for k in range(4)] == responses
    assert [study.scored_set(name) for name in responses] == responses


@pytest.mark.parametrize(
    ("window", "replayed"),
    [
        (1, [[], [], [], []]),
        (2, [[], ["sft"], ["spin/ite1"], ["spin/ite2"]]),
        (3, [[], ["sft"], ["spin/ite1", "sft"], ["spin/ite2", "spin/ite1"]]),
        (9, [[], ["sft"], ["spin/ite1", "sft"], ["spin/ite2", "spin/ite1", "sft"]]),
    ],
)
def test_the_window_holds_the_latest_iterations_first(window, replayed):
    study = study_paths(data_window=window)
    assert [study.replayed_sets(Iteration("spin", k)) for k in range(4)] == replayed
    folders = [study.reference_folder(Iteration("spin", k)) for k in range(4)]
    assert [study.replayed_sets(Iteration.parse(folder)) for folder in folders] == replayed
    own = study_paths({"spin": {"data_window": window}}, data_window=5)
    assert [own.replayed_sets(Iteration("spin", k)) for k in range(4)] == replayed


def test_iterations_are_the_arms_own_or_the_studys():
    study = study_paths({"short": {"iterations": 2}, "long": {"iterations": 5, "train": {"learning_rate": 1e-7}}})
    assert [len(study.iterations(arm)) for arm in ("spin", "short", "long")] == [4, 2, 5]
    models = study.iteration_models()
    assert models[:5] == ["spin/ite0", "spin/ite1", "spin/ite2", "spin/ite3", "long/ite0"]
    assert models[-1] == "short/ite1"


# Arms that share


def test_arms_share_the_start_models_answers():
    study = study_paths({"other": {"train": {"beta": 0.5}}})
    assert (
        study.response_set(ite("spin/ite0"))
        == study.response_set(ite("other/ite0"))
        == study.reference_folder(ite("other/ite0"))
        == "sft"
    )
    assert study.response_set(ite("other/ite1")) == "other/ite1"
    assert study.replayed_sets(ite("other/ite1")) == ["sft"]
    assert study.start_sets == ["sft"]


def test_arms_share_the_start_models_answers_of_their_seed():
    study = study_paths({"spin.s43": {"seed": 43}, "other.s43": {"seed": 43, "train": {"beta": 0.5}}})
    assert study.response_set(ite("spin.s43/ite0")) == study.reference_folder(ite("spin.s43/ite0")) == "sft/s43"
    assert study.response_set(ite("other.s43/ite0")) == "sft/s43"
    assert study.start_sets == ["sft", "sft/s43"]
    assert study.generator("sft/s43") == study.opponent(ite("spin.s43/ite0")) == "sft"
    assert study.replayed_sets(ite("spin.s43/ite1")) == ["sft/s43"]
    assert [study.draw_seed(name) for name in ("sft/s43", "sft")] == [(43, 0), (42, 0)]
    assert study_paths({"same": {"seed": 42}}).response_set(ite("same/ite0")) == "sft"
    assert study_paths({"zero": {"seed": 0}}).seed("zero") == 0


def test_an_arm_with_another_start_has_that_models_answers():
    study = study_paths({"raw": {"start": "base"}, "raw.s43": {"start": "base", "seed": 43}})
    assert study.start_sets == ["base", "base/s43", "sft"]
    assert study.response_set(ite("raw/ite0")) == study.opponent(ite("raw/ite0")) == study.parent("raw/ite0") == "base"
    assert study.draw_seed("base") == (42, 0)
    assert study.response_set(ite("raw.s43/ite0")) == "base/s43"
    assert study.generator("base/s43") == "base"


# Forks


def test_a_fork_begins_at_its_parents_iteration():
    study = study_paths({"fork": {"fork": {"from": "spin", "at": 2}}})
    assert study.iterations("fork") == [Iteration("fork", 2), Iteration("fork", 3)]
    assert study.opponent(ite("fork/ite2")) == study.parent("fork/ite2") == "spin/ite1"
    assert study.opponent(ite("fork/ite3")) == "fork/ite2"
    assert "fork/ite1" not in study.iteration_models()


def test_a_fork_like_its_parent_reads_its_parents_files():
    study = study_paths({"fork": {"fork": {"from": "spin", "at": 2}, "train": {"beta": 0.5}}})
    assert [study.response_set(Iteration("fork", k)) for k in range(4)] == [
        "sft",
        "spin/ite1",
        "spin/ite2",
        "fork/ite3",
    ]
    assert [study.reference_folder(Iteration("fork", k)) for k in (2, 3)] == ["spin/ite2", "fork/ite3"]
    assert trained_on(study, "fork/ite2") == trained_on(study, "spin/ite2")
    assert [study.replayed_sets(Iteration("fork", k)) for k in (2, 3)] == [["spin/ite1"], ["spin/ite2"]]


def test_a_fork_with_another_window_scores_its_parents_answers_again():
    study = study_paths({"fork": {"fork": {"from": "spin", "at": 2}, "data_window": 3}})
    assert study.response_set(ite("fork/ite2")) == "spin/ite2"
    assert study.reference_folder(ite("fork/ite2")) == "fork/ite2"
    assert study.scored_set("fork/ite2") == "spin/ite2"
    assert study.replayed_sets(ite("fork/ite2")) == ["spin/ite1", "sft"]
    assert study.generator("fork/ite2") == study.generator("spin/ite2") == "spin/ite1"


def test_a_fork_with_another_seed_draws_its_own_answers():
    study = study_paths({"fork": {"seed": 43, "fork": {"from": "spin", "at": 2}}})
    assert (
        study.response_set(ite("fork/ite2"))
        == study.reference_folder(ite("fork/ite2"))
        == study.scored_set("fork/ite2")
        == "fork/ite2"
    )
    assert study.generator("fork/ite2") == "spin/ite1"
    assert study.replayed_sets(ite("fork/ite2")) == ["spin/ite1"]
    assert study.draw_seed("fork/ite2") == (43, 2)


def test_a_fork_of_a_replicate_reads_the_replicates_files():
    study = study_paths({"spin.s43": {"seed": 43}, "fork": {"seed": 43, "fork": {"from": "spin.s43", "at": 1}}})
    assert study.response_set(ite("fork/ite1")) == "spin.s43/ite1"
    assert study.replayed_sets(ite("fork/ite1")) == ["sft/s43"]


def test_adding_arms_changes_no_file_of_another_arm():
    alone = study_paths()
    more = study_paths(
        {
            "other": {},
            "spin.s43": {"seed": 43},
            "raw": {"start": "base"},
            "fork": {"data_window": 1, "fork": {"from": "spin", "at": 1}},
        }
    )
    for k in range(4):
        assert more.iteration_files(Iteration("spin", k)) == alone.iteration_files(Iteration("spin", k))
        assert trained_on(more, f"spin/ite{k}") == trained_on(alone, f"spin/ite{k}")


# Token weights


WEIGHED = {"train": {"loss": "wspin"}}


def folders(paths):
    return [path.rsplit("/", 1)[0] for path in names(paths)]


def test_a_weighed_arm_trains_with_its_own_weights_and_the_old_ones_of_what_it_replays():
    study = study_paths({"wspin": WEIGHED}, data={"sft": {"prompts": 2, "shard": 1}})
    assert names(study.training_weights("wspin/ite0")) == [f"wspin/ite0/weights/0{i}.parquet" for i in (0, 1)]
    assert names(study.training_weights("wspin/ite2")) == [
        f"wspin/ite{k}/weights/0{i}.parquet" for k in (2, 1) for i in (0, 1)
    ]
    assert study.training_weights("spin/ite2") == study.training_weights("sft") == []


@pytest.mark.parametrize(("window", "sets"), [(1, [3]), (2, [3, 2]), (9, [3, 2, 1, 0])])
def test_weights_and_reference_hold_the_same_sets(window, sets):
    study = study_paths({"wspin": WEIGHED}, data={"sft": {"prompts": 1, "shard": 1}}, data_window=window)
    assert folders(study.training_weights("wspin/ite3")) == [f"wspin/ite{k}/weights" for k in sets]
    assert len(study.replayed_sets(ite("wspin/ite3"))) == len(sets) - 1


def test_weights_come_from_the_student_and_the_teacher():
    study = study_paths({"wspin": WEIGHED, "wspin.s43": {**WEIGHED, "seed": 43}})
    assert names(study.positive_logprobs("wspin/ite0", "00")) == [
        f"logprobs/teacher/{responses}/00.parquet" for responses in ("gold", "sft")
    ]
    assert names(study.positive_logprobs("wspin/ite2", "00"))[1] == "logprobs/teacher/wspin/ite2/00.parquet"
    assert names(study.positive_logprobs("wspin.s43/ite0", "00"))[1] == "logprobs/teacher/sft/s43/00.parquet"
    assert study.weighted_reference("wspin/ite0", "00") == "results/sft/reference/00.parquet"
    assert study.weighted_answers("wspin/ite2", "00") == ["results/wspin/ite2/generations/00.parquet"]


def test_only_arms_that_weigh_have_a_teacher():
    equal = {**WEIGHED, "weigh": {"source": "equal"}}
    study = study_paths({"wspin": WEIGHED, "other": {**WEIGHED, "teacher": "base"}, "equal": equal})
    assert [study.teacher(arm) for arm in study.study.arms] == [None, "teacher", "base", None]
    assert study.scorers == ["base", "teacher"]
    assert study.positive_logprobs("equal/ite0", "00") == study.positive_logprobs("spin/ite0", "00") == []
    assert study.training_weights("equal/ite0")


def test_a_fork_takes_over_its_parents_weights_or_makes_its_own():
    arms = {"wspin": WEIGHED, "like": {**WEIGHED, "fork": {"from": "wspin", "at": 2}}}
    arms["from.plain"] = {**WEIGHED, "fork": {"from": "spin", "at": 2}}
    study = study_paths(arms, data={"sft": {"prompts": 1, "shard": 1}})
    assert folders(study.training_weights("like/ite2")) == ["like/ite2/weights", "wspin/ite1/weights"]
    assert folders(study.training_weights("like/ite3")) == ["like/ite3/weights", "like/ite2/weights"]
    assert folders(study.training_weights("from.plain/ite2")) == ["from.plain/ite2/weights", "from.plain/ite1/weights"]
    assert study.weighted_reference("from.plain/ite1", "00") == "results/spin/ite1/reference/00.parquet"
    assert names(study.positive_logprobs("from.plain/ite1", "00"))[1] == "logprobs/teacher/spin/ite1/00.parquet"


def test_an_iteration_gathers_its_weights():
    study = study_paths({"wspin": WEIGHED}, data={"sft": {"prompts": 1, "shard": 1}})
    assert "results/wspin/ite1/weights/00.parquet" in study.iteration_files(ite("wspin/ite1"))
    assert not any("/weights/" in path for path in study.iteration_files(ite("spin/ite1")))


def test_every_arm_is_compared_to_the_baseline_where_both_have_an_iteration():
    late = {"fork": {"from": "spin", "at": 2}, "train": {"beta": 0.5}}
    study = study_paths({"short": {"iterations": 1}, "late": late})
    assert study.comparisons() == [
        ("late/ite2", "spin/ite2"),
        ("late/ite3", "spin/ite3"),
        ("short/ite0", "spin/ite0"),
    ]


ROUND = {"iterations": 1, "train": {"learning_rate": 5e-7, "beta": 0.1}}


def test_arms_are_compared_at_equal_seed():
    """A replicate is compared with the baseline's replicate of its seed; without one it is in no pair."""
    arms = {"wspin": {"train": {"loss": "wspin"}}, "wspin.s43": {"train": {"loss": "wspin"}, "seed": 43}}
    alone = study_paths(arms, **ROUND)
    assert alone.comparisons() == [("wspin/ite0", "spin/ite0")]
    assert alone.uncompared() == ["wspin.s43=43"]
    beta = {"train": {"beta": 0.5}, "seed": 43}
    both = study_paths({**arms, "other.s43": beta, "spin.s43": {"seed": 43, "train": {"beta": 0.1}}}, **ROUND)
    assert both.comparisons() == [
        ("other.s43/ite0", "spin.s43/ite0"),
        ("wspin/ite0", "spin/ite0"),
        ("wspin.s43/ite0", "spin.s43/ite0"),
    ]
    assert both.uncompared() == []
    fork = {"from": "spin.s43", "at": 1}
    late = {"late": {"fork": fork, "seed": 43}, "spin.s43": {"seed": 43}, "spin": {"seed": 42}}
    assert ("late/ite1", "spin.s43/ite1") in study_paths(late, iterations=2, train=ROUND["train"]).comparisons()


def test_a_replicate_hides_no_answers_of_the_examples():
    """One model that answered with two seeds has two entries, answers with one seed have one."""
    study = study_paths({"spin.s43": {"seed": 43}, "wspin.s43": {"seed": 43}}, **ROUND)
    assert study.opponents() == {"sft": "sft", "sft, seed 43": "sft/s43"}
    assert names(study.example_answers()) == ["sft/generations/00.parquet", "sft/s43/generations/00.parquet"]


def test_tables_show_the_baseline_first_and_the_others_by_name():
    """Whatever the order of the files, so that it makes no table again."""
    study = study_paths({"b": {}, "a": {}, "tail": {}}, report={"baseline": "tail"})
    assert study.arms == ["tail", "a", "b", "spin"]
    assert study.table_models()[4:6] == ["tail/ite0", "tail/ite1"]


# Seeds and settings


def test_seeds_never_come_from_an_arms_name():
    study = study_paths({"renamed": {}, "spin.s43": {"seed": 43}, "renamed.s43": {"seed": 43}})
    for k in range(1, 4):
        assert (
            study.draw_seed(study.response_set(Iteration("renamed", k)))
            == study.draw_seed(study.response_set(Iteration("spin", k)))
            == (42, k)
        )
        assert study.draw_seed(f"renamed.s43/ite{k}") == study.draw_seed(f"spin.s43/ite{k}") == (43, k)
    assert study.train_settings("renamed/ite2") == study.train_settings("spin/ite2")


def test_training_resolves_lists_for_its_iteration():
    study = study_paths()
    assert [study.train_settings(f"spin/ite{k}").learning_rate for k in range(4)] == [5e-7, 5e-7, 1e-7, 1e-7]
    assert (study.train_settings("sft").loss, study.train_settings("sft").learning_rate) == ("sft", 1e-5)


def test_triplets_are_of_trainings_that_replay_answers():
    """Where nothing is replayed the switch changes nothing, and must re-train nothing."""
    study = study_paths(train={"triplets": True})
    assert [study.train_settings(f"spin/ite{k}").triplets for k in range(4)] == [False, True, True, True]
    assert [study.train_settings(name).triplets for name in ("sft", "dpo")] == [False, False]
    assert not study_paths(train={"triplets": True}, data_window=1).train_settings("spin/ite3").triplets


def test_a_model_keeps_its_own_template_and_trained_ones_the_studys():
    study = study_paths()
    assert [study.template(name) for name in ("teacher", "base", "sft", "spin/ite1")] == ["zephyr"] + [
        "human-assistant"
    ] * 3


# Files


@pytest.mark.parametrize(
    ("prompts", "shard", "shards"),
    [
        (50000, 10000, ["00", "01", "02", "03", "04"]),
        (1500, 1500, ["00"]),
        (7, 3, ["00", "01", "02"]),
        (3, 7, ["00"]),
        (101, 1, [*(f"{i:03d}" for i in range(101))]),
    ],
)
def test_shards_follow_from_the_configuration(prompts, shard, shards):
    study = study_paths(data={"sft": {"prompts": prompts, "shard": shard}, "preferences": {"pairs": 7, "shard": 4}})
    assert study.shards() == shards
    assert study.shards("pairs") == ["00", "01"]
    assert names(study.files("spin/ite1", "generations")) == [
        f"spin/ite1/generations/{name}.parquet" for name in shards
    ]


WORK = ("study.rule_flags.flags", "config.study.Study.arm_train", "config.study.Study.arm_weigh")
WORK += ("study.lineage.Lineage.opponent", "study.lineage.Lineage.training_window")


@pytest.mark.parametrize("where", WORK)
def test_what_all_shards_share_is_computed_once(monkeypatch, where):
    """The work behind inputs and flags is the same for three shards and for three hundred."""

    def calls(shards):
        study, counted = study_paths({"wspin": WEIGHED}, data={"sft": {"prompts": shards, "shard": 1}}), []
        rules, worker = rule_flags.RuleFlags(study), pkgutil.resolve_name(f"wspin.{where}")
        with monkeypatch.context() as patch:
            patch.setattr(f"wspin.{where}", lambda *args, **kwargs: counted.append(args) or worker(*args, **kwargs))
            for shard in study.shards():
                one_shard(study, rules, shard)
        return len(counted)

    assert calls(300) == calls(3) > 0


def one_shard(study, rules, shard):
    """What Snakemake calls for the jobs of one shard of an iteration."""
    study.generator_model("wspin/ite2"), study.generator_manifest("wspin/ite2")
    study.scored_answers("wspin/ite2", shard), study.replayed_answers("wspin/ite2", shard)
    study.weighted_answers("wspin/ite2", shard), study.weighted_reference("wspin/ite2", shard)
    study.positive_logprobs("wspin/ite2", shard)
    rules.generate("wspin/ite2", shard), rules.logprobs_reference("wspin/ite2", shard)
    rules.logprobs_scorer("teacher", "wspin/ite2", shard), rules.weigh("wspin/ite2", shard)


def test_training_pairs_are_rows_and_the_start_models_log_probabilities():
    study = study_paths(data={"sft": {"prompts": 2, "shard": 1}, "preferences": {"pairs": 1, "shard": 1}})
    assert trained_on(study, "sft") == ("results/data/prompts.parquet", [])
    assert trained_on(study, "dpo") == ("results/data/preferences.parquet", ["results/sft/preferences/00.parquet"])
    prompts, reference = trained_on(study, "spin/ite0")
    assert prompts == "results/data/prompts.parquet"
    assert names(reference) == ["sft/reference/00.parquet", "sft/reference/01.parquet"]
    assert names(trained_on(study, "spin/ite3")[1]) == [
        "spin/ite3/reference/00.parquet",
        "spin/ite3/reference/01.parquet",
    ]
    assert study.preference_references == ["sft"]


def test_an_iteration_gathers_all_its_files():
    study = study_paths(data={"sft": {"prompts": 2, "shard": 1}}, results="elsewhere")
    suites = ("arc", "hellaswag", "mmlu", "truthfulqa", "winogrande", "gsm8k")
    assert sorted(study.iteration_files(ite("spin/ite1"))) == sorted(
        [
            "elsewhere/spin/ite1/generations/00.parquet",
            "elsewhere/spin/ite1/generations/01.parquet",
            "elsewhere/spin/ite1/model",
            "elsewhere/spin/ite1/manifest.json",
            "elsewhere/spin/ite1/metrics.jsonl",
            *(f"elsewhere/spin/ite1/scores/{suite}.json" for suite in suites),
        ]
    )
    assert "elsewhere/sft/generations/00.parquet" in study.iteration_files(ite("spin/ite0"))
    assert list(study.targets()) == [f"elsewhere/spin/ite{k}" for k in range(4)]
    assert study.targets()["elsewhere/spin/ite1"] == study.iteration_files(ite("spin/ite1"))


def test_the_table_has_registry_models_and_every_iteration():
    study = study_paths({"b": {"iterations": 1}})
    spin = [f"spin/ite{k}" for k in range(4)]
    assert study.table_models() == ["base", "sft", "dpo", "teacher", *spin, "b/ite0"]
    assert len(study.all_scores()) == len(study.all_samples()) == 9 * 6
    assert names(study.scores("b/ite0"))[0] == "b/ite0/scores/arc.json"


def test_the_registry_is_split_into_fetched_and_trained_models():
    study = study_paths()
    assert study.fetched_models == ["base", "teacher"]
    assert study.trained_models == ["sft", "dpo"]
    assert names(study.all_models())[:5] == ["base/model", "sft/model", "teacher/model", "dpo/model", "spin/ite0/model"]


def test_the_structure_needs_neither_snakemake_nor_a_tensor_library():
    heavy = "{'torch', 'numpy', 'snakemake', 'pyarrow'}"
    code = f"import sys, wspin.study.paths, wspin.config.load; print(sorted({heavy} & set(sys.modules)))"
    scripts = str(Path(__file__).parents[2] / "workflow/scripts")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=scripts, check=True)
    assert done.stdout == "[]\n"


# What fetched models are checked against


def test_the_studys_eos_belongs_to_models_that_learn_or_answer():
    """A teacher has an EOS of its own; an edit of the EOS or of a template fetches nothing again."""
    study = study_paths(models={"mine": {"path": "mine"}})
    flags = rule_flags.RuleFlags(study)
    assert study.policies == {"base"}
    assert flags.untracked_fetch_flags("base") == ["--template", "human-assistant", "--eos", "<|endoftext|>"]
    assert flags.untracked_fetch_flags("teacher") == ["--template", "zephyr"]
    assert not {"--eos", "--template"} & set(flags.fetch("base"))
    other = {"other": {"train": {"loss": "spin"}, "start": "mine"}}
    started = study_paths(other, models={"mine": {"path": "mine"}}, data={"fits": ["base", "mine"]})
    assert started.policies == {"base", "mine"}
    heldout = {"sources": {"qa": {"path": "config/tasks", "heldout": True}}, "suites": {"qa": {"x": 0}}}
    evaluated = {"eval": {**heldout, "models": ["base", "teacher"]}, "models": {"teacher": {"template": None}}}
    asked = study_paths(**evaluated, report={"metrics": {"x": "acc"}})
    assert asked.policies == {"base", "teacher"}


# Tables


def test_tables_of_a_folder_lie_beside_those_of_other_studies_with_these_results():
    whole, part = study_paths(), study_paths(report={"folder": "swift1"})
    for kind in ("tables", "figures"):
        paths, nested = getattr(whole, kind)(), getattr(part, kind)()
        assert nested == [path.replace(f"/{kind}/", f"/{kind}/swift1/") for path in paths]
    logs = [[job.log for job in jobs.other_jobs(study)["tables and figures"]] for study in (whole, part)]
    assert logs[1] == [path.replace("/logs/report/", "/logs/report/swift1/") for path in logs[0]]
    assert (part.all_models(), part.all_scores()) == (whole.all_models(), whole.all_scores())
