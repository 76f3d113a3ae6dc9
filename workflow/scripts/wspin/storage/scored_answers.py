"""Generated answers with their log-probabilities: two files that must belong together."""

import numpy as np
import pyarrow as pa

from wspin.errors import StudyError

from . import tables


def read_scored_answers(
    prompts: str, rows: pa.Table, generations: str, reference: str, count: int | None = None
) -> tuple[pa.Table, pa.Table]:
    """The generations of a shard, and the reference log-probabilities of its real and generated answers.

    `rows` are the shard's rows of the file `prompts`; `count`: of the first rows, where these alone are read. Raises
    `StudyError` unless both files hold these rows, come from one model and tokenizer, and the reference scores these
    texts and token ids; with `count` the real answers' texts are not compared, as their hash is that of the shard.
    """
    answers = tables.read(generations, "generations", count=count)
    scores = tables.read_reference(reference, count, **tables.metadata(answers, "model", "tokenizer"))
    for path, table in ((generations, answers), (reference, scores)):
        tables.check_same_rows(prompts, rows["prompt_id"].to_pylist(), path, table["prompt_id"].to_pylist())
    if count is None:
        tables.check_metadata(
            reference, scores, texts=tables.texts_hash(rows["prompt"].to_pylist(), rows["response"].to_pylist())
        )
    _check_same_answers(reference, answers, scores)
    return answers, scores


def _check_same_answers(path: str, generations: pa.Table, reference: pa.Table) -> None:
    """Raises `StudyError` unless the rejected answers of `reference` are the generated ones, an appended EOS aside."""
    generated, scored = tables.row_arrays(generations, "token_ids"), tables.row_arrays(reference, "rejected_token_ids")
    eos = tables.metadata(reference)["eos"]
    for prompt_id, answer, ids in zip(generations["prompt_id"].to_pylist(), generated, scored, strict=True):
        if not np.array_equal(ids[: len(answer)], answer) or ids[len(answer) :].tolist() not in ([], [eos]):
            raise StudyError(
                f"{path}: {prompt_id}: expected the generated answer's token ids, found others; score again"
            )
