"""Samples: a model's values document by document, which belong to its scores and pair with another model's."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from score_files import (
    CHOSEN,
    COMPARED,
    DRAWS,
    PAIR,
    SIZES,
    got,
    put_both,
    read_items,
    refused,
)

from wspin.errors import StudyError
from wspin.report import comparison, samples, scores


def test_samples_lie_where_the_layout_says(compared):
    assert samples.input_paths(scores.read_scores(compared, ["sft"], ["demo"])) == [
        str(compared / "sft/scores/demo.json"),
        str(compared / "sft/scores/demo.samples.parquet"),
    ]


def test_items_are_those_of_the_chosen_metric_and_filter(compared):
    found = read_items(compared)
    assert list(found) == list(COMPARED)
    assert list(found["sft"]) == list(CHOSEN)
    for task, key in (("spell", "acc_normnone"), ("gsm8k", "exact_matchstrict-match")):
        (leaf,) = found["sft"][task]
        assert leaf.values.tolist() == got("sft", task, key, SIZES[task][task]).tolist()
        assert leaf.documents == [(i, f"doc {task} {i}") for i in range(SIZES[task][task])]
        assert leaf.prompts == [f"prompt {task} {i}" for i in range(SIZES[task][task])]
    assert [(leaf.task, len(leaf.values)) for leaf in found["sft"]["mmlu"]] == [("mmlu_art", 5), ("mmlu_law", 20)]
    other = read_items(compared, metrics={**CHOSEN, "gsm8k": "exact_match,flexible-extract"})["sft"]["gsm8k"][0]
    assert other.values.tolist() == got("sft", "gsm8k", "exact_matchflexible-extract", 30).tolist()
    assert other.values.tolist() != found["sft"]["gsm8k"][0].values.tolist()


def change_rows(task, change):
    """Change the rows of one task, given as a list of rows."""
    return lambda rows: change(rows) if rows[0]["task"].startswith(task) else None


def put_beside(results, of_rows, model="wspin/ite0"):
    """Write samples that were changed beside scores that claim to be alike."""

    def keep(scored):
        for task, entry in scored["tasks"].items():
            kept = json.loads((results / "spin/ite0/scores/demo.json").read_text())["tasks"][task]
            entry |= {key: kept[key] for key in ("n", "prompt_hash")}

    return put_both(results, model, of_rows, keep)


def test_another_prompt_is_refused(compared):
    path = put_beside(compared, change_rows("spell", lambda rows: rows[-3].update(prompt_hash="other")))
    expected = f"prompt_hash: expected prompt spell 2 as in {compared / 'spin/ite0'}"
    refused(compared, f"{path}: spell, document 2: {expected}", "found other")


def test_another_document_is_refused(compared):
    path = put_beside(compared, change_rows("mmlu", lambda rows: rows[-1].update(doc_hash="other")))
    refused(compared, ": mmlu_art, document 0: expected doc_hash ", path, "(n = 5), found none (n = 5)")


def test_a_missing_document_is_refused(compared):
    """One that the score file does not miss either, and with as many others."""

    def swap(rows):
        for row in rows[-2:]:  # document 0, under both filters
            row.update(doc_id=30)

    path = put_beside(compared, change_rows("gsm8k", swap))
    refused(
        compared, f"{path}: gsm8k, document 0: expected doc_hash doc gsm8k 0 as in", "(n = 30), found none (n = 30)"
    )


def test_another_number_of_documents_is_refused(compared):
    put_both(compared, "wspin/ite0", change_rows("spell", lambda rows: rows.pop()))
    refused(compared, "wspin/ite0/scores/demo.json: tasks.spell.n: expected 40 as in", "found 39")
    models = read_items(compared, ["wspin/ite0"]) | read_items(compared, ["spin/ite0"])
    with pytest.raises(StudyError, match=r"spell, document 0: .*\(n = 40\), found none \(n = 39\)"):
        comparison.differences(models, [PAIR], DRAWS)


def test_other_subtasks_are_refused(compared):
    models = read_items(compared)
    models["wspin/ite0"]["mmlu"].pop()
    with pytest.raises(StudyError, match=r"expected subtasks mmlu_art, mmlu_law as in .*, found mmlu_art"):
        comparison.differences(models, [PAIR], DRAWS)


def test_documents_of_other_scores_are_refused(compared):
    path = put_both(compared, "wspin/ite0")
    path.write_bytes((compared / "spin/ite0/scores/demo.samples.parquet").read_bytes())
    refused(compared, f"{path}: model: expected 'fingerprint of wspin/ite0', found 'fingerprint of spin/ite0'")


def test_samples_that_are_not_those_of_the_scores_are_refused(compared):
    def fewer(scored):
        scored["tasks"]["gsm8k"]["n"] = 31

    path = put_both(compared, "spin/ite0", of_scores=fewer)
    refused(compared, f"{path}: gsm8k: expected 31 documents", "found 30", "do not belong together", models=PAIR[1:])


def test_a_metric_that_is_no_mean_over_documents_is_refused(compared):
    def perplexity(scored):
        scored["tasks"]["spell"]["metrics"]["acc_norm,none"] += 1e-6

    path = put_both(compared, "wspin/ite0", of_scores=perplexity)
    refused(compared, f"{path}: spell: expected documents with mean 0.", "the metric is no mean over documents")


def test_an_unweighted_mean_of_subtasks_is_refused(compared):
    def unweighted(scored):
        group = scored["tasks"]["mmlu"]
        group["metrics"]["acc,none"] = np.mean([leaf["metrics"]["acc,none"] for leaf in group["subtasks"].values()])

    put_both(compared, "wspin/ite0", of_scores=unweighted)
    refused(compared, "mmlu: expected documents with mean", "no mean over documents")


@pytest.mark.parametrize("metrics", ['{"acc_norm": [0.5, 1.0]}', '{"acc": 1.0}', "{", '{"acc_norm": NaN}', "[1.0]"])
def test_documents_without_a_number_are_refused(compared, metrics):
    path = put_both(compared, "wspin/ite0")
    table = pq.read_table(path)
    texts = table["metrics"].to_pylist()
    texts[39] = metrics  # the first document comes last
    column = table.schema.get_field_index("metrics")
    pq.write_table(table.set_column(column, table.schema.field(column), pa.array(texts)), path)
    refused(compared, f"{path}: spell, document 0: metrics: expected a number under 'acc_norm', found")


def test_a_document_twice_is_refused(compared):
    path = put_beside(compared, change_rows("spell", lambda rows: rows[0].update(doc_id=3)))
    refused(compared, f"{path}: spell, document 3, filter none: expected one row, found several")


def test_files_of_samples_that_cannot_be_read_are_refused(compared):
    path = samples.samples_path(compared / "wspin/ite0/scores/demo.json")
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["filter"]), path)
    refused(compared, f"{path}: columns: expected task,", "missing: filter")
    pq.write_table(table.replace_schema_metadata({"wspin": '{"format": 1, "kind": "prompts"}'}), path)
    refused(compared, f"{path}: kind: expected 'samples', found 'prompts'")
    path.write_text("text")
    refused(compared, f"{path}: expected a parquet file, found")
    path.unlink()
    refused(compared, f"{path}: expected the samples of", "found no file")
