"""Published tables in the configuration, and the files of their cells."""

import pytest
from configuration import BASE, line_of, load, refusal

from wspin.config.load import load_study, merge_files, read_study
from wspin.config.published import COLUMNS, PublishedTable, read_published, table_rows
from wspin.errors import StudyError
from wspin.study.paths import StudyPaths
from wspin.study.rule_flags import RuleFlags

ONE_RATE = {"learning_rate": 5e-7, "beta": 0.1}
MAIN = "config/published/swift_main.csv"
CELL = ["A paper", "Table 1", "spin", "3", "", "gsm8k", "acc", "18.42"]


def written(folder, *cells, header=tuple(COLUMNS)):
    path = folder / "cells.csv"
    path.write_text("".join(f"{','.join(line)}\n" for line in (header, *cells)))
    return path


def published(path, rows, table="Table 1"):
    return PublishedTable(file=str(path), table=table, rows=rows)


def named(table, arms=("spin", "wspin")):
    return [(name, row.name.partition(" (")[0]) for name, row in table_rows(table, arms)]


# Files


def test_cells_are_read_by_row_as_they_are_printed(tmp_path):
    other = [*CELL[:5], "average", "mean_of_six", "43.20"]
    sft = [*CELL[:2], "sft", "", "UltraChat; all", "gsm8k", "acc", "19.0"]
    first, second = read_published(written(tmp_path, CELL, sft, other))
    assert first.cells == {"gsm8k": "18.42", "average": "43.20"}
    assert first.metrics == {"gsm8k": "acc", "average": "mean_of_six"}
    assert (first.source, first.table, first.iteration, first.name) == ("A paper", "Table 1", 3, "spin@3")
    assert (second.cells, second.iteration, second.name) == ({"gsm8k": "19.0"}, None, "sft (UltraChat; all)")


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("value", "18", "row 2: value: expected a number with the decimals that are printed, found '18'; correct it"),
        (
            "value",
            "-1.5",
            "row 2: value: expected a number with the decimals that are printed, found '-1.5'; correct it",
        ),
        ("iteration", "last", "row 2: iteration: expected a number, or nothing, found 'last'; correct it"),
        ("method", "my spin", "row 2: method: expected a name without blanks, found 'my spin'; correct it"),
        ("variant", "a (b)", "row 2: variant: expected text without brackets, or nothing, found 'a (b)'; correct it"),
        ("source", "", "row 2: source: expected text, found ''; correct it"),
        ("metric", "f1", "row 2: task: expected 'gsm8k' once in a row of a table, found it twice; remove one"),
    ],
)
def test_a_malformed_cell_is_named_with_its_row(tmp_path, column, text, message):
    wrong = [text if name == column else value for name, value in zip(COLUMNS, CELL, strict=True)]
    path = written(tmp_path, CELL, wrong)
    with pytest.raises(StudyError) as error:
        read_published(path)
    assert str(error.value) == f"{path}: {message}"


def test_files_that_hold_no_cells_are_refused(tmp_path):
    path = written(tmp_path)
    for text, found in (("", "nothing and 0"), (path.read_text(), f"{','.join(COLUMNS)} and 0"), ("a,b\n1,2\n", "a,b")):
        path.write_text(text)
        with pytest.raises(StudyError, match=f"header: expected .* and cells below it, found {found}"):
            read_published(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(StudyError, match="expected a CSV of published cells, found 'utf-8' codec"):
        read_published(path)
    with pytest.raises(StudyError, match="row 1: expected 8 fields, found 7; correct it"):
        read_published(written(tmp_path, CELL[:-1]))
    with pytest.raises(StudyError, match=r"nothing\.csv: expected a CSV of published cells, found no file; correct"):
        read_published(tmp_path / "nothing.csv")


# Rows beside models


def test_a_row_may_be_named_without_what_is_clear():
    assert named(published(MAIN, {"sft": "sft", "spin": "spin", "wspin/ite3": "swift"})) == [
        ("sft", "sft"),
        ("spin", "spin"),
        ("wspin/ite3", "swift@3"),
    ]
    rows = {"wspin/ite1": "swift@1", "wspin": "swift (clean weights)"}
    whole = [("wspin", f"swift@{k}") for k in range(4)]
    assert named(published(MAIN, rows, "Table 9")) == [*whole[:1], ("wspin/ite1", "swift@1"), *whole[1:]]


def test_an_arm_stands_beside_one_row_an_iteration():
    random = {"wspin": "swift (random)"}
    ablation = "config/published/swift_weight_ablation.csv"
    assert len(named(published(ablation, random, "Table 3"))) == 4
    with pytest.raises(StudyError, match=r"rows.wspin: expected one row of Table 3 beside 'swift', found swift@0 \(ra"):
        table_rows(published(ablation, {"wspin": "swift"}, "Table 3"), ["wspin"])
    with pytest.raises(StudyError, match=r"rows.wspin/ite1: .* found swift@0 .*; give iteration or variant"):
        table_rows(published(MAIN, {"wspin/ite1": "swift"}, "Table 9"), ["wspin"])


# The configuration


def test_the_study_stands_beside_swift_with_the_arm_of_its_text():
    rows = {name: dict(table.rows) for name, table in load().report.published.items()}
    others = {name: name for name in ("sft", "dpo", "teacher")}
    assert rows["swift1"] == {**others, "spin/ite3": "spin", "wspin.paper": "swift"}
    assert rows["swift9"] == {"wspin.paper": "swift"}


def published_refusal(**change):
    """The complaint about a table of the study, without its place."""
    (line,) = refusal({"report": {"published": {"swift1": change}}}).splitlines()
    place, message = line.split(": report.published.swift1")
    at, number = line_of("swift1:").rsplit(":", 1)
    assert place in {f"{at}:{int(number) + below}" for below in range(5)}
    return message


def test_what_the_tables_do_not_have_is_named_before_the_first_job():
    known = "there are base, sft, teacher, dpo, spin, wspin, wspin.paper; remove the row, or set it to null"
    assert published_refusal(rows={"spim": "spin"}) == f".rows.spim: no model or arm 'spim'; {known}"
    assert published_refusal(rows={"spim/ite3": "spin"}) == f".rows.spim/ite3: no model or arm 'spim/ite3'; {known}"
    message = ": rows.spin: expected a row 'spim' in Table 1 of config/published/swift_main.csv, found teacher (zephyr-"
    assert published_refusal(rows={"spin": "spim"}).startswith(message)
    assert published_refusal(table="Table 11") == (
        f": {MAIN}: expected a table 'Table 11', found Table 1, Table 9; name one of these"
    )
    message = ".rows.spin: expected a row as `method`, `method@iteration`, `method (variant)` or "
    assert published_refusal(rows={"spin": "spin ite 3"}).startswith(message)
    assert published_refusal(rows=None) == ".rows: missing key; nothing is defaulted silently"


def test_models_that_are_not_evaluated_are_left_out():
    paths = StudyPaths(load({"eval": {"models": ["sft"]}}))
    rows = [list(table.rows) for table in paths.published_tables()]
    assert rows == [["sft", "spin/ite3", "wspin.paper"], ["wspin.paper"]]
    assert paths.published_files() == [MAIN]
    flags = RuleFlags(paths).report_reproduction()
    assert flags[flags.index("--table") :] == [
        *("--table", MAIN, "Table 1", "sft=sft", "spin/ite3=spin", "wspin.paper=swift"),
        *("--table", MAIN, "Table 9", "wspin.paper=swift"),
    ]
    assert f"{paths.results}/tables/reproduction.md" in paths.tables()


def test_iterations_that_the_study_does_not_have_are_left_out():
    _, first, _ = StudyPaths(load({"iterations": 2, "train": ONE_RATE})).published_tables()
    assert list(first.rows) == ["dpo", "sft", "teacher", "wspin.paper"]


def test_tables_of_another_base_model_are_left_out():
    other = {"models": {"base": {"hub": "meta-llama/Llama-3.2-1B"}}}
    paths = StudyPaths(load(other))
    assert paths.published_tables() == [] and not any("reproduction" in path for path in paths.tables())
    free = {"file": MAIN, "table": "Table 1", "rows": {"sft": "sft"}}
    paths = StudyPaths(load({**other, "report": {"published": {"mine": free}}}))
    assert [table.base for table in paths.published_tables()] == [None]
    flags = RuleFlags(paths).report_reproduction()
    assert flags[flags.index("--note") + 1] == (
        "Left out, about another base model than meta-llama/Llama-3.2-1B: Table 5 of config/published/qwen_base.csv, "
        f"Table 1 of {MAIN}, Table 9 of {MAIN} (Qwen/Qwen1.5-1.8B)."
    )
    assert "--note" not in RuleFlags(StudyPaths(load())).report_reproduction()
    own = {"models": {"sft": {"path": "mine", "from": None, "loss": None, "data": None}}, "data": {"fits": ["sft"]}}
    local = StudyPaths(load(own))
    assert local.published_tables() == []


def test_the_program_is_given_the_replicates():
    flags = RuleFlags(StudyPaths(load({"arms": {"spin": {"seeds": [42, 43]}}}))).report_reproduction()
    assert flags[flags.index("--replicates") + 1] == "spin=spin.s43"


def test_rows_of_deleted_models_and_arms_are_left_out(tmp_path):
    """Whichever layer deletes them; a table without rows goes with them, and names that none deletes are refused."""
    tables = {name: table.rows for name, table in load({"arms": {"wspin.paper": None}}).report.published.items()}
    assert list(tables) == ["swift1", "qwen"] and "wspin.paper" not in tables["swift1"]
    (tmp_path / "edit.yaml").write_text("arms: {spin: null}\nreport: {baseline: wspin}\n")
    study = read_study([BASE, tmp_path / "edit.yaml"], {"models": {"dpo": None}, "eval": {"models": ["base", "sft"]}})
    assert list(study.report.published["swift1"].rows) == ["sft", "teacher", "wspin.paper"]
    (tmp_path / "again.yaml").write_text("arms: {spin: {}}\n")
    study = read_study([BASE, tmp_path / "edit.yaml", tmp_path / "again.yaml"])
    assert "spin/ite3" in study.report.published["swift1"].rows
    assert "rows.wspin.papr: no model or arm" in refusal(
        {"arms": {"wspin.paper": None}, "report": {"published": {"swift1": {"rows": {"wspin.papr": "swift"}}}}}
    )
    assert "rows: expected 1 or more entries" in refusal(
        {"arms": {"wspin": None}, "report": {"published": {"mine": {"file": MAIN, "table": "Table 1", "rows": {}}}}}
    )


def test_overlays_in_other_settings_stand_beside_no_table():
    assert read_study([BASE, BASE.parent / "overlays/spin.yaml"]).report.published == {}
    assert list(read_study([BASE, BASE.parent / "overlays/swift_as_released.yaml"]).report.published) == ["qwen"]


def test_a_study_beside_no_published_table_has_none_of_its_own():
    paths = StudyPaths(load({"report": {"published": None}}))
    assert paths.published_files() == []
    assert not any("reproduction" in path for path in paths.tables())


def test_a_study_is_read_where_the_published_file_is_not(tmp_path, monkeypatch):
    """Its results may lie elsewhere; a run stops at the missing input."""
    merged = merge_files([BASE.absolute()])
    monkeypatch.chdir(tmp_path)
    assert load_study(merged).report.published
