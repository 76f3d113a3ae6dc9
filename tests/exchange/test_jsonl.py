"""Pairs of the published codes go into a study and come out as they were."""

import json
import shutil
import unicodedata
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import exchange as program
import generate_given
import weigh_given
from wspin.config.flags import flags
from wspin.config.stages import Dialogue, TrainedAnswers
from wspin.data.chat import ChatTokenizer
from wspin.data.rendering import Template
from wspin.errors import StudyError
from wspin.exchange import given as given_files
from wspin.exchange import jsonl
from wspin.models.folders import load_tokenizer, tokenizer_hash, write_manifest
from wspin.report.weights import Shard, weight_rows
from wspin.storage import tables
from wspin.train.inputs import TrainingFiles, training_sets

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=5)
WEIGHTS = st.fixed_dictionaries({"chosen_weight": FLOATS, "rejected_weight": FLOATS})
ROWS = st.builds(
    lambda texts, weights: {**texts, **weights},
    st.fixed_dictionaries(dict.fromkeys(jsonl.TEXTS, TEXTS)),
    st.one_of(st.just({}), WEIGHTS),
)
PAIRS = [
    # prompt, real answer, generated answer
    ("sun", "nus nus", "nus  sun\n\n"),
    ("moon", "noom 日本 é", "noom \u2028 nus"),
    ("star", "rats\r\n rats\u00a0rats", ""),
    ("star", "another answer", "👩\u200d👩 rats"),
]
EOS_WEIGHT = 0.25


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def message_pairs(rows):
    """SPIN's rows of the same texts."""

    def turns(row, side):
        return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}]

    return [{"real": turns(row, "chosen"), "generated": turns(row, "rejected")} for row in rows]


def render(template, prompt):
    return Template(template).render(prompt).text


def plain(rows):
    """The published keys of rows, without those that only ours have."""
    kept = (*jsonl.TEXTS, "chosen_weight", "rejected_weight")
    return [{key: row[key] for key in kept if key in row} for row in rows]


def loaded(path):
    return [json.loads(line) for line in path.read_text().split("\n") if line]


# Files


@given(st.lists(ROWS, max_size=4))
def test_rows_come_back_bit_for_bit(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    again = [json.loads(line) for line in jsonl.lines(jsonl.read(write(path, rows)), "tis-dpo")]
    assert [{key: row[key] for key in jsonl.TEXTS} for row in again] == [
        {key: row[key] for key in jsonl.TEXTS} for row in rows
    ]
    assert [row.keys() for row in again] == [row.keys() for row in rows]
    for ours, theirs in zip(again, rows, strict=True):
        for key in theirs.keys() - set(jsonl.TEXTS):
            assert np.array(ours[key], np.float32).tobytes() == np.array(theirs[key], np.float32).tobytes()


@given(st.lists(ROWS, max_size=4))
def test_spins_rows_hold_the_same_texts(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    spins = message_pairs(rows)
    assert list(map(json.loads, jsonl.lines(jsonl.read(write(path, rows)), "spin"))) == spins
    texts = [(pair.prompt, pair.chosen, pair.rejected) for pair in jsonl.read(write(path, spins), "spin")]
    assert texts == [tuple(row[key] for key in jsonl.TEXTS) for row in rows]


def test_weights_are_written_short(tmp_path):
    row = {"prompt": "a", "chosen": "b", "rejected": "c", "chosen_weight": [0.61, 1e-9], "rejected_weight": [2.0]}
    (line,) = jsonl.lines(jsonl.read(write(tmp_path / "a.jsonl", [row])), "tis-dpo")
    assert line == json.dumps(row) + "\n"


GOOD = {"prompt": "a", "chosen": "b", "rejected": "c", "chosen_weight": [1.0], "rejected_weight": [1.0]}
SPINS = message_pairs([GOOD])[0]
BAD = {
    "{": ("expected a JSON object on one line, found Expecting property name", None),
    "[" * 100_000 + "]" * 100_000: (
        "expected a JSON object on one line, found brackets inside each other without end",
        None,
    ),
    json.dumps({"question": "a", "answer": "b"}): ("real, generated (spin), found question, answer; rename", None),
    "[1]": ("expected a JSON object, found a list; write every row as an object on its own line", None),
    '"\udc80"': ("expected a JSON object", None),
    json.dumps({"prompt": "a", "chosen": "b"}): ("rejected: expected a text, found nothing", None),
    json.dumps({**GOOD, "prompt": 3}): ("prompt: expected a text, found 3", None),
    json.dumps({**GOOD, "chosen": "\ud800"}): ("chosen: expected Unicode text, found a lone surrogate", None),
    json.dumps({**GOOD, "chosen_weight": [1.0, "2"]}): ("chosen_weight: expected finite 32-bit numbers", None),
    json.dumps({**GOOD, "chosen_weight": [True]}): ("chosen_weight: expected finite 32-bit numbers", None),
    json.dumps(GOOD)[:-1] + ', "prompt": "z"}': ("found the key 'prompt' twice; correct the line", None),
    json.dumps(GOOD)[:-1] + f', "n": {"9" * 5000}}}': ("found a number of thousands of digits; correct", None),
    json.dumps({**GOOD, "chosen_weight": 1.0}): ("chosen_weight: expected finite 32-bit numbers", None),
    json.dumps({**GOOD, "chosen_weight": [10**400]}): ("chosen_weight: expected finite 32-bit numbers", None),
    json.dumps({**GOOD, "rejected_weight": [1e39]}): ("rejected_weight: expected finite 32-bit numbers", None),
    json.dumps({**GOOD, "rejected_weight": [float("nan")]}): ("found [NaN]", None),
    json.dumps({**GOOD, "chosen_weight": None}): ("chosen_weight: expected a list of weights as on the other", None),
    json.dumps({**GOOD, "chosen_eos_weight": "x"}): ("chosen_eos_weight: expected finite 32-bit", None),
    json.dumps({**GOOD, "chosen_weight": 0.5, "rejected_weight": []}): ("32-bit numbers, found 0.5; correct", None),
    json.dumps({**GOOD, "finish_reason": "eos"}): ('finish_reason: expected stop or length, found "eos"', None),
    json.dumps({**GOOD, "token_ids": [1.5]}): ("token_ids: expected a list of token ids, found [1.5]", None),
    json.dumps({**SPINS, "generated": "c"}): ("generated: expected a user's and an assistant's message", "spin"),
    json.dumps({**SPINS, "real": SPINS["real"][:1]}): ("real: expected a user's and an assistant's message", "spin"),
    json.dumps({**SPINS, "generated": message_pairs([{**GOOD, "prompt": "z"}])[0]["generated"]}): (
        "generated: expected the user's message of real",
        None,
    ),
    json.dumps(GOOD): ("real: expected a user's and an assistant's message, found null", "spin"),
    json.dumps(SPINS): ("prompt: expected a text, found nothing", "tis-dpo"),
}


@pytest.mark.parametrize(
    ("line", "told", "form"), [(line, *expected) for line, expected in BAD.items()], ids=lambda text: str(text)[:40]
)
def test_a_bad_row_is_one_line_with_its_place(tmp_path, line, told, form):
    path = tmp_path / "a.jsonl"
    good = SPINS if form == "spin" else GOOD
    path.write_text(f"{json.dumps(good)}\n\n{line}\n", errors="surrogateescape")
    with pytest.raises(StudyError) as caught:
        list(jsonl.read(str(path), form))
    assert str(caught.value).startswith(f"{path}:3: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


# Through a study


@pytest.fixture
def study(tmp_path, scratch_model, chat):
    """What stands in for iteration 0, with the study's files around it; its weights are random."""
    return Study(tmp_path, scratch_model, chat)


@pytest.fixture(scope="module")
def wide_model(scratch_model, tmp_path_factory):
    """The scratch model with twenty more rows in its embedding than its tokenizer has ids, as published models."""
    folder = tmp_path_factory.mktemp("wide") / "model"
    shutil.copytree(scratch_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 290}))
    write_manifest(folder, folder.with_suffix(".json"))
    tokenizer = load_tokenizer(folder)
    dialogue = {"template": "human-assistant", "eos": "<|endoftext|>", "max_prompt_tokens": 64, "max_tokens": 96}
    chats = {on: ChatTokenizer(tokenizer, Dialogue(**dialogue, eos_on_cut=on)) for on in (True, False)}
    return SimpleNamespace(folder=folder, chat=chats.get)


class Study:
    def __init__(self, folder, model, chat, pairs=PAIRS):
        self.folder, self.model, self.chat, self.pairs = folder, model, chat, pairs
        random = np.random.default_rng(0)
        self.rows = [dict(zip(jsonl.TEXTS, pair, strict=True)) for pair in pairs]
        for row in self.rows:
            for side in tables.SIDES:
                made = random.normal(size=len(chat.tokenize_response(row[side])[0])).astype(np.float32)
                row[f"{side}_weight"] = jsonl.shortest(made)
        rows = {"prompt": [one[0] for one in pairs], "response": [one[1] for one in pairs], "split": ["train"] * 4}
        self.ids = [f"train-{i}" for i in range(len(pairs))]
        tables.write(self.path("prompts"), "prompts", {"prompt_id": self.ids, **rows}, {})

    def path(self, name):
        return str(self.folder / f"{name}.parquet")

    def answers(self, rows, name="generations", longest=64, reverse=True):
        """Run the program that stands in for `generate`; the file has its rows in another order than the study."""
        ordered = rows[::-1] if reverse else rows
        told = ["--given", write(self.folder / f"{name}.jsonl", ordered), "--max-new-tokens", longest]
        told += ["--model", self.model, "--manifest", self.model.parent / f"{self.model.name}.json"]
        self.run(generate_given, name, *told, *flags(self.chat.settings))
        return tables.read(self.path(name), "generations")

    def run(self, program, name, *told, size=100, shard=0):
        rows = ["--prompts" if program is generate_given else "--rows", self.path("prompts")]
        where = [*rows, "--shard", shard, "--shard-size", size, "--output", self.path(name)]
        program.main([*map(str, [*where, *told])])

    def read_by_student(self, generations):
        """Its log-probabilities, which are zero: only the tokens matter here."""
        chosen = [self.chat.response_ids(real) for _, real, _ in self.pairs]
        generated = zip(generations["token_ids"].to_pylist(), generations["finish_reason"].to_pylist(), strict=True)
        said = {"chosen": chosen, "rejected": [self.chat.generated_ids(*answer) for answer in generated]}
        columns = {}
        for side, ids in said.items():
            columns |= {f"{side}_token_ids": ids, f"{side}_ends": list(map(self.chat.token_ends, ids))}
            columns[f"{side}_logprobs"] = [[0.0] * len(one) for one in ids]
        texts = tables.texts_hash(*([one[i] for one in self.pairs] for i in (0, 1)))
        made_with = {**tables.metadata(generations, "model", "tokenizer"), "eos": self.chat.eos, "texts": texts}
        tables.write(self.path("reference"), "reference", {"prompt_id": self.ids, **columns}, made_with)

    def weights(self, rows, generations="generations", name="weights"):
        """Run the program that stands in for `weigh`."""
        self.read_by_student(tables.read(self.path(generations), "generations"))
        told = ["--given", write(self.folder / f"{name}.jsonl", rows), "--generations", self.path(generations)]
        self.run(weigh_given, name, *told, "--reference", self.path("reference"), "--eos-weight", EOS_WEIGHT)
        return tables.read(self.path(name), "weights")

    def export(self, form="tis-dpo", generations="generations", weights=(), more=()):
        path = self.folder / f"{form}.jsonl"
        path.unlink(missing_ok=True)
        told = ["--rows", self.path("prompts"), "--generations", self.path(generations), "--output", str(path)]
        program.main(["export", "--format", form, *told, "--weights", *map(self.path, weights), *more])
        return loaded(path)


def columns(table):
    return {name: table[name].to_pylist() for name in table.column_names}


def test_weights_go_through_a_study_bit_for_bit(study):
    """From a file to answers and weights in the study's tokens, and out again: the same file."""
    study.answers(study.rows)
    table = study.weights(study.rows)
    assert plain(study.export(weights=["weights"])) == study.rows
    for side in tables.SIDES:
        assert {one[-1] for one in table[f"{side}_weights"].to_pylist()} == {EOS_WEIGHT}
        for ours, row in zip(tables.row_arrays(table, f"{side}_weights"), study.rows, strict=True):
            assert ours[:-1].tobytes() == np.array(row[f"{side}_weight"], np.float32).tobytes()


SAMPLED = st.lists(st.integers(0, 289).filter(lambda i: i != 0), max_size=6)  # beyond the tokenizer's 270 ids too


@settings(max_examples=4)  # each runs five programs
@given(
    st.lists(st.tuples(SAMPLED, st.booleans()), min_size=4, max_size=4),
    st.lists(st.sampled_from(PAIRS), min_size=4, max_size=4),
    st.booleans(),
    st.integers(0, 2**32),
)
@example([([289], True), ([270, 271], False), ([5], True), ([5, 6], True)], [PAIRS[0]] * 4, True, 0)
def test_every_export_is_taken_back(tmp_path_factory, wide_model, pairs_of, rows, eos_on_cut, seed):
    """Sampled ids that no text or tokenizer has, repeated rows, truncated answers with EOS or without."""
    chat = wide_model.chat(eos_on_cut)
    assert chat.eos == 0
    study = Study(tmp_path_factory.mktemp("study"), wide_model.folder, chat, rows)
    ids = [[*ids, chat.eos] if stopped or not ids else ids for ids, stopped in pairs_of]
    reasons = ["stop" if one[-1] == chat.eos else "length" for one in ids]
    said = {"response": list(map(chat.decode_response, ids)), "token_ids": ids, "finish_reason": reasons}
    made_with = {"tokenizer": tokenizer_hash(chat.tokenizer), "model": manifest(study.model)["model"]}
    tables.write(study.path("sampled"), "generations", {"prompt_id": study.ids, **said}, made_with)
    study.read_by_student(tables.read(study.path("sampled"), "generations"))
    reference = tables.read(study.path("reference"), "reference")
    weights = {"ids_hash": tables.ids_hashes(reference, "rejected")}
    random = np.random.default_rng(seed)
    for side in tables.SIDES:
        counts = map(len, tables.row_arrays(reference, f"{side}_token_ids"))
        weights[f"{side}_weights"] = [random.normal(size=n).astype(np.float32) for n in counts]
    tables.write(study.path("drawn"), "weights", {"prompt_id": study.ids, **weights}, made_with)
    exported = study.export("tis-dpo", "sampled", ["drawn"])
    assert columns(study.answers(exported, reverse=False)) == columns(tables.read(study.path("sampled"), "generations"))
    assert columns(study.weights(exported)) == columns(tables.read(study.path("drawn"), "weights"))
    spins = study.answers(study.export("spin", "sampled"), "spins", reverse=False)
    assert columns(spins) == columns(tables.read(study.path("sampled"), "generations"))


def manifest(model):
    return json.loads((model.parent / f"{model.name}.json").read_text())


def test_given_files_are_what_later_stages_expect(study, scratch_model):
    """The training takes the weights as those of the reference's tokens, and the report counts their tokens."""
    made, weighed = study.answers(study.rows), study.weights(study.rows)
    assert tables.metadata(made)["given"]["file"] == "generations.jsonl"
    assert tables.metadata(made)["model"] == manifest(scratch_model)["model"]
    expected = tables.metadata(made, "model", "tokenizer")
    files = TrainingFiles(study.path("prompts"), [study.path("reference")], [[study.path("weights")]])
    (items,) = training_sets("wspin", files, TrainedAnswers(replays=0), study.chat, expected)
    for item, row in zip(items, weighed.to_pylist(), strict=True):
        assert [one.tolist() for one in item.weights] == [row["chosen_weights"], row["rejected_weights"]]
    shard = Shard(*map(study.path, ("weights", "reference", "generations")))
    chosen, rejected = weight_rows("wspin/ite0", [shard], study.path("prompts"))
    for told, side in ((chosen, "chosen"), (rejected, "rejected")):
        assert told["tokens"] == sum(len(row[f"{side}_weight"]) for row in study.rows)
        assert np.isnan([told["at_lower"], told["unread"], told["mismatched"]]).all()


def test_a_shard_takes_its_own_rows(study):
    write(study.folder / "all.jsonl", study.rows)
    told = ["--given", study.folder / "all.jsonl", "--max-new-tokens", 64, "--model", study.model]
    told += ["--manifest", study.model.parent / f"{study.model.name}.json", *flags(study.chat.settings)]
    study.run(generate_given, "01", *told, size=3, shard=1)
    second = tables.read(study.path("01"), "generations")
    assert second["response"].to_pylist() == [PAIRS[3][2]]


def refused(work, *arguments, **named):
    with pytest.raises(StudyError) as caught:
        work(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_trap_23_every_prompt_is_found_by_its_real_answer_exactly_once(study):
    other = [{**row, "chosen": row["chosen"] + "."} if row["prompt"] == "moon" else row for row in study.rows]
    assert 'expected prompt "moon" with its real answer' in refused(study.answers, other)
    twice = [*study.rows, study.rows[0]]
    assert ":5: expected a prompt with its real answer once, found it in line 1 too" in refused(study.answers, twice)
    unasked = {"prompt": "x", "chosen": "y", "rejected": "z"}
    assert study.answers([unasked, *study.rows, unasked]).num_rows == len(PAIRS)


def test_ids_that_are_not_those_of_the_text_are_refused(study):
    told = "token_ids: expected ids that spell the answer's text and end, found others"
    own = study.chat.response_ids(PAIRS[0][2])
    for ids in (own[:-1], [*own[1:]], [*own[:-1], 10**6, own[-1]], []):
        assert told in refused(study.answers, [{**study.rows[0], "token_ids": ids}, *study.rows[1:]])
    cut = {**study.rows[0], "token_ids": own, "finish_reason": "length"}
    assert told in refused(study.answers, [cut, *study.rows[1:]])


def test_an_answer_without_room_is_refused(study):
    found = refused(study.answers, study.rows, longest=5)
    assert "rejected: expected 1 to 5 tokens (generate.max_new_tokens), found" in found
    empty = [*study.rows[:2], {**study.rows[2], "finish_reason": "length"}, study.rows[3]]
    assert "found 0" in refused(study.answers, empty)


def test_trap_23_weights_of_other_tokens_or_answers_are_refused(study):
    study.answers(study.rows)
    count = len(study.rows[1]["rejected_weight"])
    short = [study.rows[0], {**study.rows[1], "rejected_weight": study.rows[1]["rejected_weight"][1:]}, *study.rows[2:]]
    found = refused(study.weights, short)
    assert f":2: rejected_weight: expected {count} weights" in found
    assert f"found {count - 1}" in found
    other = [{**study.rows[0], "rejected": "sun"}, *study.rows[1:]]
    assert ":1: rejected: expected the answer of generate.given" in refused(study.weights, other)
    assert "found none; weigh.given needs them" in refused(
        study.weights, [dict(list(r.items())[:3]) for r in study.rows]
    )
    bare = [study.rows[0], dict(list(study.rows[1].items())[:3]), *study.rows[2:]]
    assert ":2: chosen_weight: expected" in refused(study.weights, bare)
    empty = refused(study.weights, [study.rows[0], {**study.rows[1], "rejected_weight": []}, *study.rows[2:]])
    assert f":2: rejected_weight: expected {count} weights" in empty
    assert "found 0; these are weights of other tokens" in empty


def test_a_reference_of_other_answers_is_refused(study):
    study.answers(study.rows)
    study.weights(study.rows)
    study.answers([{**study.rows[0], "rejected": "other"}, *study.rows[1:]])
    told = ["--given", study.folder / "weights.jsonl", "--generations", study.path("generations"), "--eos-weight", 1.0]
    found = refused(study.run, weigh_given, "weights", *told, "--reference", study.path("reference"))
    assert "train-0: expected the generated answer's token ids, found others" in found


def test_spins_rows_have_no_place_for_weights(study):
    study.answers(study.rows)
    study.weights(study.rows)
    assert "SPIN's rows hold no weights" in refused(study.export, "spin", weights=["weights"])
    assert plain(study.export()) == [{key: row[key] for key in jsonl.TEXTS} for row in study.rows]


def test_answers_of_another_model_are_not_exported_with_these_weights(study):
    made = study.answers(study.rows)
    study.weights(study.rows)
    other = {**tables.metadata(made), "model": "other"}
    tables.write(study.path("other"), "generations", columns(made), {k: other[k] for k in ("model", "tokenizer")})
    assert "model: expected 'other'" in refused(study.export, generations="other", weights=["weights"])


@given(TEXTS)
@example("e\u0301")
def test_any_text_becomes_tokens_that_spell_it(chat, text):
    """As the tokenizer reads it: composed, as Qwen's. The tokens then stand for themselves."""
    made = given_files.answers([jsonl.Pair("a:1", "x", "y", text)], chat, limit=1000, vocabulary=270)
    (said,), (ids,) = made["response"], made["token_ids"]
    assert said == unicodedata.normalize("NFC", text)
    assert ids == chat.response_ids(text)
    assert jsonl.Pair("a:1", "x", "y", said, token_ids=ids).generated_ids(chat, 1000, 270) == ids


# Import


@pytest.mark.parametrize("form", jsonl.FORMATS)
def test_import_makes_rows_and_pairs(study, form, capsys):
    rows = study.rows if form == "tis-dpo" else message_pairs(study.rows)
    told = ["--train", write(study.folder / "a.jsonl", rows[:3]), write(study.folder / "b.jsonl", rows[2:])]
    told += ["--test", write(study.folder / "c.jsonl", rows[:1]), "--output", str(study.folder / "given")]
    program.main(["import", "--format", form, *told])
    assert "train: 4 pairs; 1 duplicates dropped" in capsys.readouterr().out
    train, test = (
        pq.read_table(study.folder / f"given/rows/{split}.parquet").to_pylist() for split in ("train", "test")
    )
    assert train == [{"prompt": row["prompt"], "response": row["chosen"]} for row in study.rows]
    assert test == train[:1]
    expected = study.rows if form == "tis-dpo" else [{key: row[key] for key in jsonl.TEXTS} for row in study.rows]
    assert loaded(study.folder / "given/pairs.jsonl") == expected
    assert "nothing is replaced" in refused(program.main, ["import", "--format", form, *told])


@pytest.mark.parametrize("side", ["--train", "--test"])
def test_files_without_pairs_are_refused(study, side):
    (study.folder / "empty.jsonl").write_text("\n")
    good = write(study.folder / "a.jsonl", study.rows)
    told = ["import", "--format", "tis-dpo", "--train", good, "--output", str(study.folder / "given")]
    assert "empty.jsonl: expected pairs, found none" in refused(
        program.main, [*told, side, f"{study.folder}/empty.jsonl"]
    )


def test_a_bad_file_leaves_no_folder(study):
    bad = write(study.folder / "a.jsonl", [study.rows[0], {"prompt": "x"}])
    told = ["import", "--format", "tis-dpo", "--train", bad, "--output", str(study.folder / "given")]
    assert ":2: chosen: expected a text" in refused(program.main, told)
    assert not (study.folder / "given").exists()


# Templates and EOS


def test_an_export_can_hold_the_prompts_that_the_model_saw(study):
    """And the import takes such prompts only if they are meant, so that no study puts them in a second template."""
    study.answers(study.rows)
    more = ["--rendered", str(study.model)]
    for form in jsonl.FORMATS:
        plain_rows, rows = study.export(form), study.export(form, more=more)
        rendered = [render("human-assistant", pair[0]) for pair in PAIRS]
        prompts = [row["prompt"] if form == "tis-dpo" else row["real"][0]["content"] for row in rows]
        assert prompts == rendered
        assert [row | {"prompt": "", "real": 0, "generated": 0} for row in rows] == [
            row | {"prompt": "", "real": 0, "generated": 0} for row in plain_rows
        ]


def test_prompts_in_a_template_are_imported_only_if_they_are_meant(study, capsys):
    rows = [{**row, "prompt": render("human-assistant", row["prompt"])} for row in study.rows[:2]]
    told = ["import", "--format", "tis-dpo", "--train", write(study.folder / "a.jsonl", [*rows, study.rows[2]])]
    told += ["--output", str(study.folder / "given")]
    message = refused(program.main, told)
    assert "a.jsonl:1: prompt: expected texts without a template, found one in 2 of 3 rows; remove it, or" in message
    program.main([*told, "--rendered"])
    assert "train: 3 pairs; 0 duplicates dropped; 2 prompts in a template" in capsys.readouterr().out


def test_eos_at_the_ends_of_answers_is_removed_if_it_is_named(study, capsys):
    rows = [{**row, "chosen": row["chosen"] + "</s>", "rejected": row["rejected"] + "</s>"} for row in study.rows]
    told = ["import", "--format", "tis-dpo", "--train", write(study.folder / "a.jsonl", rows)]
    told += ["--output", str(study.folder / "given")]
    expected = "a.jsonl:1: chosen: expected answers without the text of EOS, found </s> at the end of 8 of 8; add --eos"
    assert expected in refused(program.main, told)
    program.main([*told, "--eos", "</s>"])
    assert "train: 4 pairs; 0 duplicates dropped; </s> removed from 8 answers" in capsys.readouterr().out
    assert plain(loaded(study.folder / "given/pairs.jsonl")) == study.rows


def test_repeated_eos_and_white_space_behind_it_are_removed_too(study, capsys):
    """Otherwise the remedy of the refusal would lead back to the refusal."""
    ends = ("</s>\n", "</s></s>", "</s> </s>\n", "</s>")
    rows = [{**row, "rejected": row["rejected"] + end} for row, end in zip(study.rows, ends, strict=True)]
    told = ["import", "--format", "tis-dpo", "--train", write(study.folder / "a.jsonl", rows)]
    program.main([*told, "--output", str(study.folder / "given"), "--eos", "</s>\n"])
    assert "train: 4 pairs; 0 duplicates dropped; </s> removed from 4 answers" in capsys.readouterr().out
    assert plain(loaded(study.folder / "given/pairs.jsonl")) == study.rows


def test_an_empty_eos_removes_nothing(study, capsys):
    told = ["import", "--format", "tis-dpo", "--train", write(study.folder / "a.jsonl", study.rows)]
    program.main([*told, "--output", str(study.folder / "given"), "--eos", ""])
    assert "train: 4 pairs; 0 duplicates dropped\n" in capsys.readouterr().out
