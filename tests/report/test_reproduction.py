"""Published numbers beside ours."""

import csv
import math

import pytest
import workflow
from score_files import cells, check_records, put

import report_reproduction as program
from wspin.config.published import PublishedTable
from wspin.errors import StudyError
from wspin.report.grim import SIX
from wspin.report.reproduction import reproduction, reproduction_tables
from wspin.report.scores import read_scores

MAIN = str(workflow.ROOT / "config/published/swift_main.csv")
SPIN = str(workflow.ROOT / "config/published/spin_main.csv")
N = {"arc_challenge": 1172, "hellaswag": 10042, "mmlu": 14042, "truthfulqa_mc2": 817, "winogrande": 1267, "gsm8k": 1319}
METRICS = {**dict.fromkeys(N, "acc,none"), **dict.fromkeys(("arc_challenge", "hellaswag"), "acc_norm,none")}
METRICS["gsm8k"] = "exact_match,strict-match"
SWIFT1 = PublishedTable(file=MAIN, table="Table 1", rows={"sft": "sft", "spin/ite1": "spin", "wspin": "swift"})
SWIFT9 = PublishedTable(file=MAIN, table="Table 9", rows={"wspin": "swift"})
MODELS = ("sft", "spin/ite0", "spin/ite1", "wspin/ite0", "wspin/ite1")


def task(k, n, metric="acc,none"):
    share = k / n
    result = {"shots": 0, "version": 1, "n": n, "prompt_hash": "", "metrics": {metric: share}}
    return {**result, "stderr": {metric: math.sqrt(share * (1 - share) / (n - 1))}}


@pytest.fixture
def six(tmp_path):
    """Every model has 40 % of each task right, rounded down."""
    return scored(tmp_path)


def scored(results, metrics=METRICS, n=N):
    tasks = {name: task(n[name] * 2 // 5, n[name], metric) for name, metric in metrics.items()}
    for model in MODELS:
        put(results, model, lambda scores, model=model: scores.update(tasks=tasks, model=model))
    return results


def compared(results, *tables, models=MODELS, metrics=METRICS, confidence=0.95):
    return reproduction(read_scores(results, models, ["demo"]), metrics, tables, confidence)


def test_every_cell_that_both_have_is_compared(six):
    frame = compared(six, SWIFT1)
    assert list(dict.fromkeys(zip(frame.model, frame.row, strict=True))) == [
        ("sft", "sft (UltraChat200k)"),
        ("spin/ite1", "spin (UltraChat200k; final)"),
    ]  # SWIFT's row is of iteration 3, which this study does not have
    assert frame.task.tolist() == [*METRICS, "mean of six"] * 2
    gsm8k = frame[(frame.model == "spin/ite1") & (frame.task == "gsm8k")].iloc[0]
    assert (gsm8k.printed_points, gsm8k.published, gsm8k.ours) == ("18.42", 0.1842, 527 / 1319)
    error = math.sqrt(0.1842 * (1 - 0.1842) / 1319 + (527 / 1319) * (1 - 527 / 1319) / 1318)
    assert gsm8k.difference == pytest.approx(527 / 1319 - 0.1842)
    assert (gsm8k.low, gsm8k.high) == pytest.approx([gsm8k.difference + z * error for z in (-1.959964, 1.959964)])
    assert not gsm8k.inside
    arc = frame[(frame.model == "spin/ite1") & (frame.task == "arc_challenge")].iloc[0]
    assert abs(arc.difference) < 0.001 and arc.inside


def test_the_interval_is_unpaired_and_of_the_confidence(six):
    wide, narrow = (compared(six, SWIFT1, confidence=confidence) for confidence in (0.95, 0.5))
    assert ((wide.high - wide.low) / (narrow.high - narrow.low)).tolist() == pytest.approx([1.959964 / 0.674490] * 14)


def test_the_average_has_the_errors_of_its_cells(six):
    frame = compared(six, SWIFT1)
    spin = frame[frame.model == "spin/ite1"].set_index("task")
    average = spin.loc["mean of six"]
    assert (average.printed_points, average.ours) == ("43.20", pytest.approx(spin.ours[list(SIX)].mean()))
    for column in ("ours_stderr", "published_stderr"):
        assert average[column] == pytest.approx(math.sqrt((spin[column][list(SIX)] ** 2).sum()) / 6)


def test_an_average_without_its_cells_has_no_interval(six):
    ablation = str(workflow.ROOT / "config/published/swift_weight_ablation.csv")
    table = PublishedTable(file=ablation, table="Table 3", rows={"wspin": "swift (teacher)"})
    frame = compared(six, table)
    assert list(zip(frame.model, frame.task, frame.printed_points, strict=True)) == [
        ("wspin/ite0", "mean of six", "46.94"),
        ("wspin/ite1", "mean of six", "47.12"),
    ]
    assert frame.difference.notna().all() and frame.low.isna().all() and frame.inside.isna().all()
    page = reproduction_tables(read_scores(six, MODELS, ["demo"]), METRICS, [table], 0.95)[".md"]
    assert cells(page)[1][-2:] == [f"{100 * frame.difference[0]:+.2f}", "unknown"]


def test_no_average_is_compared_without_all_of_its_tasks(six):
    metrics = {"arc_easy": "acc,none", "gsm8k": "exact_match,strict-match"}
    scored(six, metrics, {**N, "arc_easy": 2376})
    assert compared(six, SWIFT1, metrics=metrics).task.tolist() == ["gsm8k"] * 2


def notes_of(results, *tables, metrics=METRICS, **options):
    """The legend, and what follows it."""
    return reproduction_tables(read_scores(results, MODELS, ["demo"]), metrics, tables, 0.95, **options)[".md"]


def test_cells_of_another_metric_are_left_out_and_named(six):
    """So is the mean that they are part of, also where the paper prints it alone."""
    other = {**METRICS, "arc_challenge": "acc,none", "gsm8k": "exact_match,flexible-extract"}
    frame = compared(scored(six, other), SWIFT1, metrics=other)
    assert set(frame.task) == {"hellaswag", "mmlu", "truthfulqa_mc2", "winogrande"}
    assert dict(zip(frame.task, frame.metric, strict=True))["truthfulqa_mc2"] == "mc2"
    arc, gsm8k = (
        f"{name} (metric {printed}, here {other[name]})"
        for name, printed in (("arc_challenge", "acc_norm"), ("gsm8k", "acc"))
    )
    mean = "mean of six (arc_challenge, gsm8k)"
    page = notes_of(six, SWIFT1, metrics=other).replace("\\_", "_")
    assert "Not compared with Table 1: " in page
    assert all(note in page for note in (arc, gsm8k, mean))
    ablation = str(workflow.ROOT / "config/published/swift_weight_ablation.csv")
    table = PublishedTable(file=ablation, table="Table 3", rows={"wspin": "swift (teacher)"})
    assert len(compared(six, table, metrics=other)) == 0
    page = notes_of(six, table, metrics=other).replace("\\_", "_")
    assert f"Not compared with Table 3: {arc}, {gsm8k}, {mean}." in page


def test_cells_of_other_documents_are_left_out_and_named(six):
    """The errors of published shares are of the papers' documents."""
    frame = compared(scored(six, n={**N, "mmlu": 100}), SWIFT1)
    assert not {"mmlu", "mean of six"} & {*frame.task} and "gsm8k" in {*frame.task}
    page = notes_of(six, SWIFT1)
    assert "mmlu (14042 documents, here 100), mean of six (mmlu)" in page
    assert "Not compared" not in notes_of(scored(six), SWIFT1)


def test_a_published_share_of_an_unknown_number_of_documents_has_no_error(six, tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text("source,table,method,iteration,variant,task,metric,value\nA,Table 1,sft,,,arc_easy,acc,40.30\n")
    scored(six, {"arc_easy": "acc,none"}, {"arc_easy": 2376})
    table = PublishedTable(file=str(path), table="Table 1", rows={"sft": "sft"})
    (line,) = compared(six, table, metrics={"arc_easy": "acc,none"}).itertuples()
    assert (
        math.isnan(line.published_stderr)
        and math.isnan(line.low)
        and line.difference == pytest.approx(950 / 2376 - 0.403)
    )


def test_replicates_that_stand_beside_nothing_are_named(six):
    pairs = [("wspin", "wspin.s43"), ("wspin", "wspin.s44"), ("dpo", "dpo.s43")]
    page = notes_of(six, SWIFT9, replicates=pairs)
    assert "Ours are of one seed; replicates left out: wspin.s43, wspin.s44." in page
    assert "replicates" not in notes_of(six, SWIFT9)


def test_an_iteration_that_the_study_does_not_have_is_left_out(six):
    table = PublishedTable(file=MAIN, table="Table 1", rows={"sft": "sft", "spin/ite3": "spin"})
    assert set(compared(six, table).model) == {"sft"}
    assert "spin (UltraChat200k; final)" in notes_of(six, table).splitlines()[-1]


def test_an_arm_stands_beside_its_iterations_and_a_final_row_beside_its_last(six):
    frame = compared(six, SWIFT9)
    assert list(dict.fromkeys(zip(frame.model, frame.row, strict=True))) == [
        ("wspin/ite0", "swift@0 (clean weights)"),
        ("wspin/ite1", "swift@1 (clean weights)"),
    ]
    explicit = PublishedTable(file=MAIN, table="Table 1", rows={"wspin/ite0": "swift@3"})
    assert set(compared(six, explicit).model) == {"wspin/ite0"}


def test_published_cells_that_fail_are_marked_beside_the_number(six):
    explicit = PublishedTable(file=MAIN, table="Table 1", rows={"wspin/ite0": "swift@3"})
    dpo = PublishedTable(file=SPIN, table="Table 3", rows={"wspin/ite1": "spin+dpo"})
    frame = compared(six, explicit, dpo)
    failed = frame[frame.published_check != ""]
    assert list(zip(failed.table, failed.task, failed.printed_points, failed.published_check, strict=True)) == [
        ("Table 1", "arc_challenge", "39.78", "not k/1172"),
        ("Table 1", "gsm8k", "37.93", "not k/1319"),
        ("Table 3", "mean of six", "64.05", "cells give 64.74"),
    ]
    page = reproduction_tables(read_scores(six, MODELS, ["demo"]), METRICS, [explicit, dpo], 0.95)[".md"]
    shown = [row[3] for row in cells(page)]
    assert {"*39.78* (not k/1172)", "*64.05* (cells give 64.74)", "*39.12*"} <= set(shown)


def test_published_numbers_never_look_like_ours(six):
    """They are in italics in a column and a section that name their source, ours have an error beside them."""
    page = reproduction_tables(read_scores(six, MODELS, ["demo"]), METRICS, [SWIFT1, SWIFT9], 0.95)[".md"]
    header, *rows = cells(page)
    assert header[2:6] == ["published row", "*published*", "ours", "ours - *published*"]
    for row in rows:
        if not row[0].startswith("model") and row[3].startswith("*"):
            assert row[3].count("*") == 2 and "*" not in row[4] and "±" in row[4]
    assert "**SWIFT, NeurIPS 2025, Table 1**" in page
    legend = page.splitlines()[-1]
    assert "Mean of six: of " in legend
    assert "not measured here" in legend
    assert (
        "Table 1 also has teacher (zephyr-7b-sft-full; figures as in SPIN), dpo (UltraFeedback Binarized), ipo"
        in legend
    )
    assert "Table 9 also has swift@2 (clean weights), swift@3 (clean weights)." in legend


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"sft": "nothing"}, "rows.sft: expected a row 'nothing' in Table 1 of "),
        ({"dpo": "dpo"}, "Table 1: expected a model or arm of this study (sft, spin/ite0, spin/ite1, wspin/ite0, "),
    ],
)
def test_a_row_or_model_that_is_not_there_is_refused(six, rows, message):
    with pytest.raises(StudyError) as error:
        compared(six, PublishedTable(file=MAIN, table="Table 1", rows=rows))
    assert message in str(error.value)


def test_a_number_that_is_no_percentage_is_refused(six, tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text("source,table,method,iteration,variant,task,metric,value\nA,Table 1,sft,,,gsm8k,acc,190.3\n")
    with pytest.raises(
        StudyError, match=r"Table 1, sft: gsm8k: expected a percentage, found 190\.3; correct the cell in its CSV"
    ):
        compared(six, PublishedTable(file=str(path), table="Table 1", rows={"sft": "sft"}))


def command(results, *tables):
    outputs = ["--output", *(str(results / f"tables/reproduction.{suffix}") for suffix in ("csv", "md"))]
    shown = ["--results", str(results), "--models", *MODELS, "--suites", "demo"]
    chosen = ["--metrics", *(f"{name}={metric}" for name, metric in METRICS.items()), "--confidence", "0.95"]
    return [*shown, *chosen, *(word for table in tables for word in ("--table", *table)), *outputs]


def test_the_program_writes_both_formats_and_their_records(six):
    rows = ["sft=sft", "spin/ite1=spin", "wspin=swift"]
    tables = ([MAIN, "Table 1", *rows], [MAIN, "Table 9", "wspin=swift (clean weights)"])
    program.main([*command(six, *tables), "--replicates", "wspin=wspin.s43", "--note", "Not Table 3."])
    files = read_scores(six, MODELS, ["demo"])
    texts = reproduction_tables(files, METRICS, [SWIFT1, SWIFT9], 0.95, [("wspin", "wspin.s43")], "Not Table 3.")
    assert "replicates left out: wspin.s43. Not Table 3." in texts[".md"]
    outputs = [six / f"tables/reproduction{suffix}" for suffix in texts]
    assert [path.read_text() for path in outputs] == list(texts.values())
    check_records(outputs, [MAIN, *(file.path for file in files)], "report_reproduction")
    lines = list(csv.DictReader(outputs[0].read_text().splitlines()))
    assert lines[0]["printed_points"] == "39.08" and float(lines[0]["published"]) == 0.3908
    assert {line["inside"] for line in lines} == {"True", "False"}


def test_groups_are_no_flag_of_the_program(six, capsys):
    with pytest.raises(SystemExit):
        program.main([*command(six, [MAIN, "Table 1", "sft=sft"]), "--groups", "both=gsm8k,mmlu"])
    assert "unrecognized arguments: --groups" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([MAIN, "Table 1"], "--table .*: rows: expected 1 or more entries, found {}"),
        ([MAIN], "--table .*: table: expected text, found null; remove it"),
        ([MAIN, "Table 1", "sft"], "expected MODEL=ROW, found 'sft'"),
        ([MAIN, "Table 1", "sft=my sft"], "--table .*: rows.sft: expected a row as `method`"),
    ],
)
def test_flags_in_another_form_are_refused(six, table, message):
    with pytest.raises(StudyError, match=message):
        program.main(command(six, table))
    assert not (six / "tables").exists()
