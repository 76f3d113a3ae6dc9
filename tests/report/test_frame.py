"""The frame of all scores, and the rows of the chosen metrics."""

import pytest
from score_files import CHOSEN, COMPARED, METRICS, cells, command, put, put_both, score_texts, tuples

import report as program
from wspin.errors import StudyError
from wspin.report.frame import COLUMNS, chosen_scores, score_frame
from wspin.report.scores import read_scores


def test_the_frame_holds_every_score_with_its_place(compared):
    """Also of the subtasks, which belong to a group; numbers are numbers, and what is missing has no value."""
    put(compared, "sft", lambda scores: scores["tasks"]["spell"]["stderr"].update({"exact_match,none": None}))
    frame = score_frame(read_scores(compared, ["sft"], ["demo"]))
    assert tuple(frame.columns) == COLUMNS
    types = {"iteration": "Int64", "seed": "Int64", "value": "float64", "stderr": "float64", "n": "int64"}
    assert frame.dtypes[list(types)].map(str).to_dict() == types
    row = ("sft", "sft", None, None, None, "gsm8k", None, "strict-match", "exact_match", 0.1, 0.006, 1320)
    assert row in tuples(frame)
    assert tuples(frame)[-1] == ("sft", "sft", None, None, None, "spell", None, "none", "exact_match", 0.475, None, 400)

    frame = score_frame(read_scores(compared, ["wspin/ite0"], ["demo"]))
    assert set(zip(frame.model, frame.arm, frame.iteration, strict=True)) == {("wspin/ite0", "wspin", 0)}
    groups = [(row.task, row.group) for row in tuples(frame[frame.metric == "acc"])]
    assert groups == [("mmlu", None), ("mmlu_art", "mmlu"), ("mmlu_law", "mmlu"), ("spell", None)]


def test_a_replicate_has_the_method_of_the_first_and_a_seed_of_its_own(compared):
    for name in ("wspin.s43/ite0", "kd.s43"):
        put_both(compared, name)
    models = ["wspin/ite0", "wspin.s43/ite0", "sft", "kd.s43"]
    pairs, seeds = [("wspin", "wspin.s43"), ("kd", "kd.s43")], {"wspin": 42, "wspin.s43": 43, "kd.s43": 43}
    frame = score_frame(read_scores(compared, models, ["demo"]), pairs, seeds).drop_duplicates("model")
    assert [(row.model, row.method, row.arm, row.seed) for row in tuples(frame)] == [
        ("wspin/ite0", "wspin", "wspin", 42),
        ("wspin.s43/ite0", "wspin", "wspin.s43", 43),
        ("sft", "sft", None, None),
        ("kd.s43", "kd", None, 43),
    ]


def test_the_program_names_methods_and_seeds(compared):
    flags = ["--replicates", "spin=wspin", "--seeds", "spin=42", "wspin=43", "--groups", "both=spell,gsm8k"]
    program.main(command("scores", compared, *flags, metrics=CHOSEN, models=COMPARED))
    table, markdown = ((compared / f"tables/scores.{end}").read_text() for end in ("csv", "md"))
    assert table.startswith("model,method,arm,iteration,seed,task,filter,metric,value,stderr,n\nsft,sft,,,,gsm8k,")
    assert "\nwspin/ite0,spin,wspin,0,43,gsm8k," in table
    assert "both" in cells(markdown)[0]


def test_the_chosen_scores_are_one_a_task(compared):
    chosen = chosen_scores(read_scores(compared, COMPARED, ["demo"]), CHOSEN)
    assert chosen.groupby("model").task.agg(list).to_dict() == {model: ["gsm8k", "mmlu", "spell"] for model in COMPARED}
    assert chosen.metric.str.cat(chosen["filter"], ",").tolist() == [CHOSEN[task] for task in chosen.task]


def test_a_name_twice_is_one_row_and_subtasks_are_not_in_the_table(compared):
    table, markdown, _ = score_texts(compared, ["sft", "sft"], CHOSEN)
    assert len(cells(markdown)) == 2
    assert "mmlu_law" not in table
    assert table.count("sft,sft,,,,mmlu,none,acc,") == 1


def test_no_task_has_the_name_of_the_average(results):
    put(results, "sft", lambda scores: scores["tasks"].update(average=scores["tasks"].pop("spell")))
    with pytest.raises(StudyError, match=r"report\.metrics: expected tasks, found 'average', the name of their mean"):
        score_texts(results, ["sft"], {"average": "exact_match,none", "gsm8k": METRICS["gsm8k"]})


def test_a_count_that_no_column_holds_is_refused(results):
    path = put(results, "sft", lambda scores: scores["tasks"]["spell"].update(n=10**30))
    with pytest.raises(StudyError) as error:
        score_texts(results)
    assert str(error.value).startswith(f"{path}: tasks.spell.n: ")
    assert "\n" not in str(error.value)


def test_hostile_names_stay_in_their_cells(results):
    name = "a|\x1b[2J\u202e\n=1"
    put(results, "sft", lambda scores: scores["tasks"].update({name: scores["tasks"].pop("spell")}))
    texts = score_texts(results, ["sft"], {name: "exact_match,none", "gsm8k": METRICS["gsm8k"]})
    for text in texts:
        assert text.isascii() or "±" in text
        assert r"\x1b" in text or r"\textbackslash{}x1b" in text
    assert len(cells(texts[1])) == 2
