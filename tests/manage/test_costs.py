"""What the results took, every job once."""

import csv
import io
from itertools import pairwise
from pathlib import Path

import pytest
import results as made
from attacks import attack

import manage
from wspin.manage import costs
from wspin.manage.cost_figure import hours_by_stage
from wspin.storage import provenance
from wspin.storage.files import write_json

ARMS = {"spin", "wspin", "wspin.paper"}


def put(results, output, program, seconds, number=0, **more):
    """A result with its record; equal numbers are one job's outputs."""
    path = results / output
    path.mkdir(parents=True) if output.endswith("model") else path.parent.mkdir(parents=True, exist_ok=True)
    path.exists() or path.touch()
    told = {"program": program, "code": "x", "command": [program, str(number)], "started": "2026", "seconds": seconds}
    write_json(provenance.record_path(path), {**told, "cpu_seconds": 2 * seconds, "peak_memory_mb": 100, **more})


@pytest.fixture
def results(tmp_path):
    two = {"gpus": {"count": 2, "name": "A GPU", "peak_memory_mb": 900}}
    put(tmp_path, "sft/model", "train", 3600, 1, **two)
    put(tmp_path, "spin/ite0/model", "train", 1800, 2, **two)
    put(tmp_path, "spin/ite1/model", "train", 1800, 3, **two)
    put(tmp_path, "sft/generations/00.parquet", "generate", 360, 4)
    put(tmp_path, "logprobs/teacher/spin/ite1/00.parquet", "logprobs", 36, 5)
    put(tmp_path, "logprobs/teacher/gold/00.parquet", "logprobs", 36, 6)
    for table in ("a.csv", "a.md"):
        put(tmp_path, f"tables/{table}", "report", 10, 7)
    return tmp_path


def rows(results):
    return {(row.stage, row.arm): row for row in costs.table(costs.job_records(results, ARMS)[0])}


def test_hours_are_summed_by_stage_and_arm(results):
    found = rows(results)
    assert set(found) == {
        ("train", "sft"), ("train", "spin"), ("train", "total"), ("generate", "all arms"), ("logprobs", "spin"),
        ("logprobs", "all arms"), ("logprobs", "total"), ("report", "all arms"), ("total", ""),
    }  # fmt: skip
    assert found["train", "spin"][2:] == (2, 1.0, 2.0, 2.0, 100, 900)
    assert found["train", "total"].gpu_hours == 4.0
    assert found["generate", "all arms"].gpu_hours == 0.0


def test_a_job_counts_once_however_many_files_it_left(results):
    assert rows(results)["report", "all arms"].jobs == 1
    assert rows(results)["total", ""].jobs == 7


def test_a_program_belongs_to_the_stage_that_its_name_begins_with(results):
    put(results, "sft/generations/01.parquet", "generate_given", 360, 8)
    put(results, "wspin/ite0/weights/00.parquet", "weigh_given", 36, 9)
    assert rows(results)["generate", "all arms"].jobs == 2
    assert rows(results)["weigh", "wspin"].jobs == 1


def test_a_record_without_its_result_does_not_count(results):
    (results / "sft/generations/00.parquet").unlink()
    assert ("generate", "all arms") not in rows(results)


@pytest.mark.parametrize(
    ("program", "stage"),
    [
        ("train", "train"),
        ("generate_given", "generate"),
        ("weigh_given", "weigh"),
        ("manage", "manage"),
        ("clean_state", "clean_state"),
    ],
)
def test_a_programs_stage_is_its_first_word_if_there_is_such_a_stage(program, stage):
    assert costs.stage(program, Path("spin/ite0/model")) == stage


def test_given_answers_are_generations_and_other_programs_stand_last(results):
    put(results, "spin/generations/00.parquet", "generate_given", 72, 8)
    put(results, "spin/other.json", "manage", 36, 9)
    found = rows(results)
    assert found["generate", "spin"].jobs == 1 and found["generate", "total"].jobs == 2
    assert list(found)[-2:] == [("manage", "spin"), ("total", "")]
    assert found["report", "all arms"].jobs == 1


def test_an_arms_name_may_hold_a_point_and_begin_like_anothers(results):
    put(results, "wspin.paper/ite0/model", "train", 360, 8)
    assert rows(results)["train", "wspin.paper"].jobs == 1 and ("train", "wspin") not in rows(results)


def test_hours_of_an_iteration_are_those_of_its_stages(results):
    put(results, "spin/ite1/generations/00.parquet", "generate", 720, 8)
    put(results, "spin/ite1/generations/01.parquet", "generate", 720, 9)
    put(results, "logprobs/sft/preferences.chosen/00.parquet", "logprobs", 36, 12)
    found = costs.iteration_table(costs.job_records(results, ARMS)[0])
    assert [(row.arm, row.stage, row.jobs, row.wall_hours) for row in found] == [
        ("ite0 of all arms", "generate", 1, 0.1),
        ("ite0, scored by teacher", "logprobs", 1, 0.01),
        ("spin/ite0", "train", 1, 0.5),
        ("spin/ite1", "generate", 2, 0.4),
        ("spin/ite1", "logprobs", 1, 0.01),
        ("spin/ite1", "train", 1, 0.5),
    ]
    assert [row.gpu_hours for row in found if row.stage == "train"] == [1.0, 1.0]


def test_a_pair_of_scorers_is_a_stage_of_its_own(results):
    """The hours that TIS-DPO's weights take beside those of the training that they weigh."""
    put(results, "spin/ite1/plus/model", "train", 3600, 8)
    put(results, "spin/ite1/minus/model", "train", 1800, 9)
    put(results, "logprobs/spin/ite1/plus/gold/00.parquet", "logprobs", 36, 10)
    jobs = costs.job_records(results, ARMS)[0]
    hours = {(row.arm, row.stage): row.wall_hours for row in costs.iteration_table(jobs)}
    assert hours["spin/ite1", "train (scorers)"] == 1.5
    assert hours["spin/ite1", "train"] == 0.5
    assert hours["spin/ite1", "logprobs"] == 0.02
    found = {(row.stage, row.arm): row.jobs for row in costs.table(jobs)}
    assert found["train (scorers)", "spin"] == 2
    assert found["train", "spin"] == 2


@pytest.mark.parametrize(
    ("output", "name"),
    [
        ("sft/generations/00.parquet", "ite0 of all arms"),
        ("sft/reference/00.parquet", "ite0 of all arms"),
        ("sft/s43/generations/00.parquet", "ite0 of all arms, seed 43"),
        ("sft/s43/reference/00.parquet", "ite0 of all arms, seed 43"),
        ("logprobs/teacher/gold/00.parquet", "ite0, scored by teacher"),
        ("logprobs/sft@good/sft/00.parquet", "ite0, scored by sft@good"),
        ("logprobs/teacher/sft/s43/00.parquet", "ite0, scored by teacher"),
        ("logprobs/spin/ite0/plus/sft/00.parquet", "spin/ite0"),
        ("logprobs/teacher/preferences.chosen/00.parquet", None),
        ("sft/model", None),
        ("kd/answers/00.parquet", None),
    ],
)
def test_what_arms_share_names_its_seed_or_its_scorer(output, name):
    assert costs.iteration(Path(output)) == name


def test_an_arm_of_another_study_with_these_results_keeps_its_name(results):
    put(results, "noise/ite0/model", "train", 3600, 8)
    put(results, "logprobs/noise/ite0/plus/noise/ite1/00.parquet", "logprobs", 36, 9)
    assert rows(results)["train", "noise"].jobs == rows(results)["logprobs", "noise"].jobs == 1


def test_the_program_writes_all_tables(root, results, capsys):
    made.study(root, results)
    manage.main(["cost", "--results", str(results)])
    told = (results / "tables/cost.md").read_text()
    assert told in capsys.readouterr().out
    assert "GPUs: A GPU." in told
    header, _, *shown = told.split("\n\n")[2].splitlines()
    assert [cell.strip() for cell in header.strip("|").split("|")] == ["iteration", *costs.ITERATION_STAGES]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown]
    assert cells[0] == ["ite0 of all arms", "0.100 (0.000)", "-", "-", "-", "-", "-"]
    assert cells[1] == ["ite0, scored by teacher", "-", "-", "0.010 (0.000)", "-", "-", "-"]
    assert cells[3] == ["spin/ite1", "-", "-", "0.010 (0.000)", "-", "0.500 (1.000)", "-"]
    lines = list(csv.DictReader(io.StringIO((results / "tables/cost_iterations.csv").read_text())))
    assert [line["iteration"] for line in lines] == [
        "ite0 of all arms", "ite0, scored by teacher", "spin/ite0", "spin/ite1", "spin/ite1",
    ]  # fmt: skip
    lines = list(csv.DictReader(io.StringIO((results / "tables/cost.csv").read_text())))
    assert lines[-1] | {"stage": "total", "jobs": "7", "gpu_hours": "4.000000"} == lines[-1]
    manage.main(["cost", "--results", str(results)])  # its own tables cost nothing
    assert told == (results / "tables/cost.md").read_text()


def test_a_record_that_cannot_be_read_is_listed_and_the_others_count(root, results):
    made.study(root, results)
    before = rows(results)["total", ""].jobs
    record = provenance.record_path(results / "sft/generations/00.parquet")
    record.write_text("")
    put(results, "data/prompts.parquet", "data", "ten", 8)
    text = costs.write_costs(results)
    assert f"Not counted: {record}: expected a record, found no JSON (" in text
    assert "prompts.parquet.provenance.json: seconds: expected a number, found 'ten'; make the result again\n" in text
    assert rows(results)["total", ""].jobs == before - 1


HOSTILE = "a\n| total | | 0 |\x1b[2J<script>[x](javascript:y)"


@attack(
    "display",
    "records and folders of a shared folder whose program, GPU or name holds lines, codes, links or a formula",
    "shown as text in their cell, in cost.md, cost.csv and on the terminal",
)
def test_names_of_records_are_text(root, results, capsys):
    made.study(root, results)
    plain = costs.write_costs(results).count("\n")
    put(results, f"{HOSTILE.replace('/', '')}/model", f"=1+1{HOSTILE}", 60, 8, gpus={"count": 1, "name": HOSTILE})
    manage.main(["cost", "--results", str(results)])
    text, table = (results / "tables/cost.md").read_text(), (results / "tables/cost.csv").read_text()
    for shown in (text, table, capsys.readouterr().out):
        assert all(line.isprintable() for line in shown.split("\n"))
        assert "<script>" not in shown.replace("\\<", "") or shown == table
    assert text.count("\n") == plain + 1
    assert [row[0] for row in csv.reader(io.StringIO(table)) if "1+1" in row[0]] == [
        r"'=1+1a\n| total | | 0 |\x1b[2J<script>[x](javascript:y)"
    ]


def widths(axes):
    """(bar, colour) -> hours, of the bars that are seen."""
    names = [label.get_text() for label in axes.get_yticklabels()]
    bars = {(names[round(bar.get_y() + 0.4)], bar.get_facecolor()): bar.get_width() for bar in axes.patches}
    return {key: width for key, width in bars.items() if width}


def test_the_figure_has_the_hours_of_every_job_once(results):
    put(results, "spin/ite10/model", "train", 360, 8)
    put(results, "spin/ite10/scores/demo.json", "eval", 36, 9)
    jobs = costs.job_records(results, ARMS)[0]
    figure = hours_by_stage(costs.wall_hours(jobs), costs.STAGES)
    (axes,) = figure.axes
    bars = widths(axes)
    assert sum(bars.values()) == pytest.approx(costs.table(jobs)[-1].wall_hours)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[-3:] == ["spin/ite0", "spin/ite1", "spin/ite10"]
    stages = [text.get_text() for text in figure.legends[0].get_texts()]
    assert stages == ["train", "generate", "logprobs", "eval", "report"]
    colours = {patch.get_label(): patch.get_facecolor() for patch in figure.legends[0].legend_handles}
    found = {stage: bars["spin/ite10", colours[stage]] for stage in ("train", "eval")}
    assert found == {"train": pytest.approx(0.1), "eval": pytest.approx(0.01)}
    last = [bar for bar in axes.patches if bar.get_facecolor() == colours["eval"]][-1]
    assert last.get_x() == pytest.approx(0.1)  # stacked


def test_the_figure_is_written_with_the_tables(root, results):
    made.study(root, results)
    costs.write_costs(results)
    assert {path.name for path in (results / "figures").iterdir()} == {"cost.pdf", "cost.svg", "cost.png"}
    figure = hours_by_stage({}, costs.STAGES)
    assert [text.get_text() for text in figure.texts] == ["no job has a record"]


def test_nothing_overlaps_in_a_column_of_a_paper(results):
    for k in range(40):
        put(results, f"wspin.paper/ite{k}/model", "train", 360, 100 + k)
    figure = hours_by_stage(costs.wall_hours(costs.job_records(results, ARMS)[0]), costs.STAGES)
    figure.draw_without_rendering()
    labels = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(below.y1 <= above.y0 for above, below in pairwise(labels))
    boxes = [figure.axes[0].get_tightbbox(), figure.legends[0].get_window_extent()]
    assert not boxes[0].overlaps(boxes[1])
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
