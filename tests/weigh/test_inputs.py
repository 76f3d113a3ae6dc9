"""From scored answers to stored token weights, with small models."""

import json

import numpy as np
import pytest
from scored import EQUAL, IDS, PAIRS, SETTINGS, SIDES, by_side, changed, reading, shards, student, texts_of, weighed

from wspin.config.weigh import Weigh
from wspin.errors import StudyError
from wspin.storage import tables
from wspin.storage.files import sha256
from wspin.weigh import forms
from wspin.weigh.alignment import align, align_ids


@pytest.fixture
def study(scored_study):
    return scored_study


def expected_weights(study, teacher, side, told):
    """Of every answer, from the stored files: its EOS is 1."""
    own, (_, theirs) = student(study, side), reading(study, teacher, side)
    mu = told.mu_chosen if side == "chosen" else told.mu_rejected
    for row, text in enumerate(texts_of(study)[side]):
        ours, others = (parts["logprobs"][row].astype(float) for parts in (own, theirs))
        if teacher == "far":
            made = align(text, own["ends"][row], theirs["ends"][row])
            found = forms.scored_weights(made, -ours, others, side, told, None).weights
        else:
            found = told.k * np.exp(mu * np.clip(others - ours, told.lower, told.upper))
        yield np.append(found, [1.0] * (side == "chosen" or row != 3))


@SIDES
@pytest.mark.parametrize("form", ["paper_mean", "log_mean", "sum_spread"])
@pytest.mark.parametrize("teacher", ["near", "far"])
def test_weights_follow_from_the_stored_log_probabilities(study, tmp_path, teacher, form, side):
    told = Weigh(**{**SETTINGS, "segment_agg": form})
    found = by_side(weighed(study, tmp_path / "a.parquet", teacher, segment_agg=form))[side]
    for ours, expected in zip(found, expected_weights(study, teacher, side, told), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6)
    assert len({*np.concatenate(found).tolist()}) > 5


def test_every_token_has_a_weight_and_the_answers_own_name(study, tmp_path):
    """Lengths are those of the training tokens, EOS included; the hash names these."""
    table, reference = weighed(study, tmp_path / "a.parquet"), tables.read(study / "reference.parquet", "reference")
    for side, found in by_side(table).items():
        assert list(map(len, found)) == list(map(len, tables.row_arrays(reference, f"{side}_token_ids")))
    assert table["ids_hash"].to_pylist() == tables.ids_hashes(reference, "rejected")
    assert len(set(table["ids_hash"].to_pylist())) == len(PAIRS)
    assert table["prompt_id"].to_pylist() == IDS


def test_a_hash_of_ids_sees_every_id_and_where_an_answer_ends(study, tmp_path):
    reference = tables.read(study / "reference.parquet", "reference")
    told = tables.ids_hashes(reference, "rejected")
    columns = reference.to_pydict()
    columns["chosen_token_ids"][0][0] += 1
    columns["rejected_token_ids"][1].append(columns["rejected_token_ids"][1][0])
    columns["chosen_token_ids"][2].append(columns["rejected_token_ids"][2].pop(0))  # moved to the other answer
    made = tables.metadata(reference, "eos")
    tables.write(tmp_path / "a.parquet", "reference", columns, made)
    found = tables.ids_hashes(tables.read(tmp_path / "a.parquet", "reference"), "rejected")
    assert [a == b for a, b in zip(told, found, strict=True)] == [False] * 3 + [True] * 3


def test_weights_tell_what_made_them(study, tmp_path):
    told = tables.metadata(weighed(study, tmp_path / "a.parquet", seed=(7, 3), lower=-0.25))
    generated = tables.metadata(tables.read(study / "generations.parquet", "generations"))
    assert {key: told[key] for key in ("model", "tokenizer")} == {key: generated[key] for key in ("model", "tokenizer")}
    far = tables.metadata(reading(study, "far", "chosen")[0])
    assert told["teacher"] == {key: far[key] for key in ("model", "tokenizer", "template", "dtype", "autocast")}
    assert told["settings"] == Weigh(**{**SETTINGS, "lower": -0.25}).stored()
    assert told["seed"] == [7, 3]
    tokens = {side: sum(map(len, student(study, side)["logprobs"])) for side in tables.SIDES}
    assert {side: told["counts"][side]["tokens"] for side in tables.SIDES} == tokens
    assert [told["counts"][side]["unread"] for side in tables.SIDES] == [0, 0]  # accents of either form are read


def test_a_broken_character_is_neutral_and_counted_for_another_tokenizer_alone(study, tmp_path):
    far, near = (weighed(study, tmp_path / "a.parquet", name) for name in ("far", "near"))
    found, same = (by_side(table)["rejected"][5][:-1] for table in (far, near))
    text, ends = texts_of(study)["rejected"][5], student(study, "rejected")["ends"][5]
    unclear = ends <= text.index(" end")  # the bytes share an end with the blank after them, which joins two words
    assert text == "en\ufffd the end"
    assert found[unclear].tolist() == [np.float32(1.3).item()] * unclear.sum()
    assert (found[~unclear] != np.float32(1.3)).all()
    assert (same != np.float32(1.3)).all()
    counts = [tables.metadata(table)["counts"]["rejected"]["unclear"] for table in (far, near)]
    assert counts == [unclear.sum(), 0]


def test_a_special_token_is_neutral_and_counted_for_another_tokenizer_alone(study, tmp_path):
    """Any token that the student's tokenizer calls special, wherever it was sampled."""
    special = student(study, "rejected")["token_ids"][0][-1].item()  # ends 12 words of two tokens
    told = {"special_ids": [special]}
    reference = changed(study / "reference.parquet", tmp_path / "b.parquet", "reference", told)
    far, near = (weighed(study, tmp_path / "a.parquet", name, reference=reference) for name in ("far", "near"))
    assert set(by_side(far)["rejected"][0][:-1].tolist()) >= {np.float32(1.3).item()}
    unclear = [tables.metadata(table)["counts"]["chosen"]["unclear"] for table in (far, near)]
    assert unclear[0] >= 24
    assert unclear[1] == 0
    assert by_side(far)["chosen"][0][:-1].tolist() == [np.float32(1.3).item()] * 24


@pytest.mark.parametrize("form", ["paper_mean", "log_mean", "sum_spread"])
def test_trap_01_a_teacher_that_is_the_student_makes_every_weight_k(study, tmp_path, form):
    """Exactly, though the two readings were batched differently; in another template it is another teacher."""
    table = weighed(study, tmp_path / "a.parquet", "same", segment_agg=form, eos_weight=0.5, uniform="allow")
    for side, found in by_side(table).items():
        own = student(study, side)["logprobs"]
        assert [one[: len(of)].tolist() for one, of in zip(found, own, strict=True)] == [
            [np.float32(1.3).item()] * len(of) for of in own
        ]
        assert {one[-1].item() for one, of in zip(found, own, strict=True) if len(one) > len(of)} == {0.5}
        counts = tables.metadata(table)["counts"][side]
        assert counts == {
            **dict.fromkeys(tables.WEIGHT_COUNTS, 0),
            **dict.fromkeys(("tokens", "segments"), sum(map(len, own))),
        }
    asked = np.concatenate(by_side(weighed(study, tmp_path / "a.parquet", "asked"))["rejected"])
    assert (asked != np.float32(1.3)).mean() > 0.5


def test_equal_weights_need_no_teacher(study, tmp_path):
    table = weighed(study, tmp_path / "a.parquet", [], **EQUAL)
    assert {weight for found in by_side(table).values() for one in found for weight in one.tolist()} == {1.0}
    assert tables.metadata(table)["teacher"] is None


@pytest.mark.parametrize("control", ["none", "permuted", "random_matched"])
def test_trap_27_weighing_twice_gives_the_same_bytes_and_leaves_the_inputs(study, tmp_path, control):
    before = {path: sha256(path) for path in study.glob("*.parquet")}
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    for output in (first, second, second):
        weighed(study, output, control=control)
    assert sha256(first) == sha256(second)
    assert before == {path: sha256(path) for path in study.glob("*.parquet")}
    weighed(study, second, control=control, seed=(43, 0))
    same = [by_side(tables.read(path, "weights"))["chosen"][0].tolist() for path in (first, second)]
    assert (same[0] == same[1]) == (control == "none")
    record = json.loads((tmp_path / "a.parquet.provenance.json").read_text())
    assert set(record["inputs"]) == {
        str(study / f"{name}.parquet") for name in ("prompts", "generations", "reference", "far-gold", "far-said")
    }


@pytest.mark.parametrize("name", ["near", "far"])
def test_trap_16_what_does_not_fit_is_neutral_and_counted(study, name, tmp_path):
    table, whole = (weighed(study, tmp_path / "a.parquet", teacher) for teacher in (f"{name}-short", name))
    for side, found in by_side(table).items():
        own, unread = student(study, side), 0
        for row, theirs in enumerate(reading(study, f"{name}-short", side)[1]["ends"]):
            text, ours = texts_of(study)[side][row], own["ends"][row]
            made = align_ids(len(ours), len(theirs)) if name == "near" else align(text, ours, theirs)
            read, cut = made.read[made.student], found[row][: len(ours)]
            assert (cut[~read] == np.float32(1.3)).all()
            np.testing.assert_allclose(cut[read], by_side(whole)[side][row][: len(ours)][read], rtol=1e-5)
            unread += int((~read).sum())
        assert tables.metadata(table)["counts"][side]["unread"] == unread > 9


def test_random_weights_do_not_depend_on_the_shard(study, tmp_path):
    told = {**EQUAL, "control": "random"}
    whole = by_side(weighed(study, tmp_path / "a.parquet", [], **told))
    generations, reference, *_ = shards(study, tmp_path)
    files = {"generations": generations, "reference": reference}
    some = weighed(study, tmp_path / "b.parquet", [], size=4, **files, **told)
    for side, found in by_side(some).items():
        assert [one.tolist() for one in found] == [one.tolist() for one in whole[side][:4]]


def test_what_a_teacher_cannot_name_is_unclear():
    """Its unknown token stands for what it has not understood."""
    made = align("a 語 b", [1, 3, 5], [1, 3, 5], (), [1])
    assert made.clear.tolist() == [True, False, True]
    assert made.read.all()


# What is refused


def refused(study, tmp_path, path, words, **changes):
    """One line that names the file; nothing is written."""
    with pytest.raises(StudyError) as error:
        weighed(study, tmp_path / "a.parquet", **changes)
    assert words in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.parquet").exists()


def test_a_teacher_that_is_the_student_is_refused_unless_it_is_allowed(study, tmp_path):
    refused(study, tmp_path, study / "same-gold.parquet", "as from a copy of the student", teacher="same")
    weighed(study, tmp_path / "a.parquet", "same", uniform="allow")


def renamed(ids):
    return [*ids[:-1], "test-9"]


@pytest.mark.parametrize("place", [0, 1])
def test_a_reading_of_other_rows_is_refused(study, tmp_path, place):
    teacher = [study / "far-gold.parquet", study / "far-said.parquet"]
    teacher[place] = changed(teacher[place], tmp_path / "other.parquet", "logprobs", prompt_id=renamed)
    refused(study, tmp_path, teacher[place], "expected the 6 rows of", teacher=teacher)


def test_a_reading_of_other_texts_is_refused(study, tmp_path):
    gold, said = study / "far-gold.parquet", study / "far-said.parquet"
    for teacher, wrong in (([said, gold], said), ([gold, gold], gold), ([said, said], said)):
        refused(study, tmp_path, wrong, "texts: expected", teacher=teacher)
    for change in (lambda texts: [*texts[:-1], "x"], lambda texts: texts[::-1]):
        path = tmp_path / "b.parquet"
        other = changed(study / "generations.parquet", path, "generations", response=change)
        refused(study, tmp_path, said, "texts: expected", generations=other)


@pytest.mark.parametrize(("name", "key"), [("near", "model"), ("asked", "model"), ("near-short", "model")])
def test_readings_of_two_teachers_are_refused(study, tmp_path, name, key):
    teacher = [study / "far-gold.parquet", study / f"{name}-said.parquet"]
    refused(study, tmp_path, teacher[1], f"{key}: expected", teacher=teacher)


@pytest.mark.parametrize("key", ["model", "tokenizer", "template", "dtype", "autocast"])
def test_a_teacher_is_known_by_all_that_changes_its_numbers(study, tmp_path, key):
    gold, said = (study / f"far-{one}.parquet" for one in ("gold", "said"))
    other = changed(said, tmp_path / "other.parquet", "logprobs", {key: "another"})
    refused(study, tmp_path, other, f"{key}: expected", teacher=[gold, other])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_reading_too_few_is_refused(study, tmp_path, count):
    teacher = [study / f"far-{one}.parquet" for one in ("gold", "said", "said")][:count]
    told = f"expected log-probabilities of both sides (--positive-logprobs), found {count} files"
    refused(study, tmp_path, "weigh", told, teacher=teacher)


@pytest.mark.parametrize("kind", ["generations", "reference", "far-gold", "far-said"])
def test_a_file_that_is_not_there_is_named(study, tmp_path, kind):
    missing = tmp_path / "missing.parquet"
    teacher = [missing if kind == name else study / f"{name}.parquet" for name in ("far-gold", "far-said")]
    changes = {"teacher": teacher} if kind.startswith("far") else {kind: missing}
    refused(study, tmp_path, missing, "found none; is a shard missing?", **changes)


@pytest.mark.parametrize("key", ["model", "tokenizer"])
def test_a_reference_of_another_model_than_the_answers_is_refused(study, tmp_path, key):
    other = changed(study / "reference.parquet", tmp_path / "other.parquet", "reference", {key: "another"})
    refused(study, tmp_path, other, f"{key}: expected", reference=other)
    other = changed(study / "generations.parquet", tmp_path / "other.parquet", "generations", {key: "another"})
    refused(study, tmp_path, study / "reference.parquet", f"{key}: expected 'another'", generations=other)


@pytest.mark.parametrize("kind", ["generations", "reference"])
def test_answers_to_other_rows_are_refused(study, tmp_path, kind):
    other = changed(study / f"{kind}.parquet", tmp_path / "other.parquet", kind, prompt_id=renamed)
    refused(study, tmp_path, other, "they differ in row 5", **{kind: other})
    refused(study, tmp_path, study / "generations.parquet", "expected the 4 rows of", size=4)


@pytest.mark.parametrize("change", [lambda ids: [ids[0] + 1, *ids[1:]], lambda ids: ids[:-2], lambda ids: []])
def test_a_reference_of_other_answers_by_the_same_model_is_refused(study, tmp_path, change):
    """A text would be aligned with the tokens of another."""
    path = tmp_path / "other.parquet"
    changed(
        study / "reference.parquet", path, "reference", rejected_token_ids=lambda rows: [change(rows[0]), *rows[1:]]
    )
    refused(study, tmp_path, path, "train-0: expected the generated answer's token ids", reference=path)


@SIDES
def test_a_teacher_with_the_students_tokenizer_but_other_ids_is_refused(study, tmp_path, side):
    teacher = [study / f"near-{one}.parquet" for one in ("gold", "said")]

    def swapped(rows):
        return [rows[0][::-1], *rows[1:]]

    place = tables.SIDES.index(side)
    other = tmp_path / "other.parquet"
    teacher[place] = changed(teacher[place], other, "logprobs", token_ids=swapped)
    told = f"train-0, {side}: expected the student's token ids, found others"
    refused(study, tmp_path, other, told, teacher=teacher)


def test_tokens_beyond_their_text_are_refused(study, tmp_path):
    gold, said = (study / f"far-{one}.parquet" for one in ("gold", "said"))
    other = changed(said, tmp_path / "other.parquet", "logprobs", ends=lambda rows: [[99] * len(rows[0]), *rows[1:]])
    told = "train-0, rejected: expected tokens of 49 characters, found 99"
    refused(study, tmp_path, other, told, teacher=[gold, other])


def test_a_reference_of_other_real_answers_or_prompts_is_refused(study, tmp_path):
    """Row ids are places in a source, they do not tell what stands there."""
    for column in ("prompt", "response"):
        rows = changed(
            study / "prompts.parquet", tmp_path / f"{column}.parquet", "prompts", **{column: lambda x: x[::-1]}
        )
        refused(study, tmp_path, study / "reference.parquet", "texts: expected", rows=rows)


@pytest.mark.parametrize("key", ["segment_agg", "k", "lower"])
def test_settings_that_the_weights_are_made_from_have_no_default(study, tmp_path, key):
    flag = "--" + key.replace("_", "-")
    with pytest.raises(StudyError, match=f"{flag}: expected a value, found none"):
        weighed(study, tmp_path / "a.parquet", **{key: None})
