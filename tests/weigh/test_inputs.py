"""From answers to stored token weights and their table, with small models."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
import torch
from tokenizers import AddedToken

import logprobs as scorer
import weigh as program
from wspin.config.flags import flags
from wspin.config.sources import Scratch
from wspin.config.stages import Dialogue as DialogueSettings
from wspin.config.stages import Logprobs, Weigh
from wspin.data.chat import ChatTokenizer
from wspin.errors import StudyError
from wspin.logprobs.inputs import teacher_answers
from wspin.models import folders, scratch
from wspin.report.weights import QUANTILES, TOP, Shard, to_csv, to_markdown, weight_rows
from wspin.storage import tables
from wspin.storage.files import sha256
from wspin.weigh import weights
from wspin.weigh.alignment import align, align_ids

EOS = "<|endoftext|>"
FAMILY = "👩\u200d👩\u200d👧"
PAIRS = [
    # prompt, real answer, generated answer
    ("sun", " ".join(["nus"] * 12), "nus  nus\n\n" + " ".join(["nus"] * 10)),
    ("moon", "noom 日本 é", "noom nus"),  # generated letter by letter
    ("star", "rats\r\n\r\n rats\u00a0rats", ""),
    ("river", "revir", "revir revir the ri"),  # cut
    ("cloud", "", f"duolc {FAMILY} duolc"),
    ("stone", "enots enots e\u0301", "en\ufffd the end"),  # with a broken character
]
IDS = [f"train-{i}" for i in range(len(PAIRS))]
REAL = [real for _, real, _ in PAIRS]
TEMPLATE, SHORT = "Q: {prompt}\nA:", 40  # another template; tokens of a short context
SETTINGS = {"source": "teacher", "form": "exp_clamp", "k": 1.3, "mu_chosen": 1.0, "mu_rejected": -1.0, "lower": -0.5}
SETTINGS |= {"upper": 1.5, "segment_agg": "paper_mean", "control": "none", "normalise": "none", "eos_weight": 1.0}
EQUAL = dict.fromkeys(("form", "k", "mu_chosen", "mu_rejected", "lower", "upper", "segment_agg")) | {"source": "equal"}


def dialogue_settings(template="human-assistant"):
    return DialogueSettings(template=template, eos=EOS, max_prompt_tokens=64, max_tokens=96, eos_on_cut=False)


def conversation(folder, template="human-assistant"):
    return ChatTokenizer(folders.load_tokenizer(folder), dialogue_settings(template))


def loud(folder, factor):
    """Make what a model says depend on what it reads."""
    model = folders.load_model(folder, "cpu")
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(factor)
    model.save_pretrained(folder)
    folders.write_manifest(folder, folder.with_suffix(".json"))


def generations(student):
    """Columns of the generated answers."""
    speaker = conversation(student)
    ids = [speaker.response_ids(said) for _, _, said in PAIRS]
    ids[1] = [*speaker.tokenizer.convert_tokens_to_ids([*"noom", "Ġ", *"nus"]), speaker.eos]
    ids[3] = ids[3][:-1]
    ids[5] = [*speaker.response_ids("en👧")[:-2], *speaker.response_ids(" the end")]
    reasons = ["stop", "stop", "stop", "length", "stop", "stop"]
    columns = {"response": list(map(speaker.decode_response, ids)), "token_ids": ids, "finish_reason": reasons}
    return {"prompt_id": IDS, **columns}


def score(kind, model, folder, output, *more, template="human-assistant", budget=4096):
    """Run the program that scores."""
    told = [*flags(Logprobs(autocast="float32", token_budget=budget)), *flags(dialogue_settings(template))]
    files = ["--manifest", model.with_suffix(".json"), "--rows", folder / "prompts.parquet", "--output", output]
    scorer.main([*map(str, (kind, "--model", model, *files, "--shard", 0, "--shard-size", 100, *more)), *told])


@pytest.fixture(scope="module")
def study(tmp_path_factory, scratch_model, texts):
    """A folder with models, the answers of one (the student), and what each of them made of these.

    `same` is the student itself as a teacher, `asked` in another template; `near` has its tokenizer, `far` has another,
    and no EOS of the study; two have a short context.
    """
    folder = tmp_path_factory.mktemp("study")
    for name, factor in (("student", 10.0), ("near", 8.0)):
        shutil.copytree(scratch_model, folder / name)
        loud(folder / name, factor)
    (folder / "far").mkdir()
    size = {"vocabulary": 262, "hidden": 32, "intermediate": 64, "layers": 2, "heads": 2, "context": 128}
    scratch.make_scratch(Scratch(architecture="qwen2", text="sft", **size), texts, "<|stop|>", 2, folder / "far")
    loud(folder / "far", 10.0)
    for name in ("near", "far"):
        shutil.copytree(folder / name, folder / f"{name}-short")
        config = json.loads((folder / name / "config.json").read_text())
        (folder / f"{name}-short" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": SHORT}))
        folders.write_manifest(folder / f"{name}-short", folder / f"{name}-short.json")

    rows = {"prompt": [prompt for prompt, _, _ in PAIRS], "response": REAL, "split": ["train"] * len(PAIRS)}
    tables.write(folder / "prompts.parquet", "prompts", {"prompt_id": IDS, **rows}, {})
    manifest, told = json.loads((folder / "student.json").read_text()), conversation(folder / "student")
    made_with = {"model": manifest["model"], "tokenizer": folders.tokenizer_hash(told.tokenizer)}
    made_with["template"] = told.settings.template
    tables.write(folder / "generations.parquet", "generations", generations(folder / "student"), made_with)
    own = ("--generations", folder / "generations.parquet")
    score("reference", folder / "student", folder, folder / "reference.parquet", *own)
    teachers = {"same": "student", **{name: name for name in ("near", "far", "near-short", "far-short")}}
    for responses, more in (("gold", ()), ("said", own)):
        for name, model in teachers.items():
            score("teacher", folder / model, folder, folder / f"{name}-{responses}.parquet", *more, budget=100)
        asked = folder / f"asked-{responses}.parquet"
        score("teacher", folder / "student", folder, asked, *more, template=TEMPLATE)
    return folder


def weighed(
    study, output, teacher="far", size=100, seed=(42, 0), generations=None, reference=None, rows=None, **changes
):
    """Run the program that weighs, and read its weights. `teacher`: its name, or its files."""
    if not isinstance(teacher, list):
        teacher = [study / f"{teacher}-{one}.parquet" for one in ("gold", "said")]
    told = ["--rows", rows or study / "prompts.parquet", "--generations", generations or study / "generations.parquet"]
    told += ["--reference", reference or study / "reference.parquet", "--teacher", *teacher]
    told += ["--shard", 0, "--shard-size", size, "--seed", *seed, "--output", output]
    program.main([*map(str, told), *flags(Weigh(**{**SETTINGS, **changes}))])
    return tables.read(output, "weights")


def by_side(table):
    return {side: tables.row_arrays(table, f"{side}_weights") for side in tables.SIDES}


def texts_of(study):
    """The answers' texts, by side."""
    said = tables.read(study / "generations.parquet", "generations")["response"].to_pylist()
    return {"chosen": REAL, "rejected": said}


def reading(study, name, side):
    table = tables.read(study / f"{name}-{'gold' if side == 'chosen' else 'said'}.parquet", "logprobs")
    return table, {part: tables.row_arrays(table, part) for part in ("token_ids", "ends", "logprobs")}


def student(study, side):
    """What the student made of the answers of a side, their EOS left out."""
    table = tables.read(study / "reference.parquet", "reference")
    parts = {part: tables.row_arrays(table, f"{side}_{part}") for part in ("token_ids", "ends", "logprobs")}
    eos = tables.metadata(table)["eos"]
    counts = [len(ids) - (ids[-1:].tolist() == [eos]) for ids in parts["token_ids"]]
    return {part: [one[:count] for one, count in zip(some, counts, strict=True)] for part, some in parts.items()}


def plainly(folder, prompts, answers):
    """Log-probabilities of answers, one whole forward pass each."""
    model = folders.load_model(folder, "cpu").eval()
    for prompt, ids in zip(prompts, answers, strict=True):
        whole = torch.tensor([[*prompt, *ids]])
        with torch.no_grad():
            logits = model(input_ids=whole).logits[0, len(prompt) - 1 : -1].double()
        yield logits.log_softmax(-1)[torch.arange(len(ids)), whole[0, len(prompt) :]].numpy()


SIDES = pytest.mark.parametrize("side", tables.SIDES)


# What a teacher reads


@SIDES
def test_a_teacher_reads_the_text_in_its_own_tokenizer(study, side):
    """Its tokens are those of the text, their log-probabilities those of a plain forward pass after its prompt."""
    speaker, (table, found) = conversation(study / "far"), reading(study, "far", side)
    expected = [speaker.tokenize_response(text) for text in texts_of(study)[side]]
    assert [ids.tolist() for ids in found["token_ids"]] == [ids for ids, _ in expected]
    assert [ends.tolist() for ends in found["ends"]] == [ends for _, ends in expected]
    prompts = [speaker.prompt_ids(prompt) for prompt, _, _ in PAIRS]
    for ours, by_hand in zip(found["logprobs"], plainly(study / "far", prompts, found["token_ids"]), strict=True):
        np.testing.assert_allclose(ours, by_hand, atol=1e-5, rtol=1e-5)
    assert tables.metadata(table)["texts"] == tables.texts_hash(
        [prompt for prompt, _, _ in PAIRS], texts_of(study)[side]
    )
    assert tables.metadata(table)["unread"] == 0


def test_the_tokenizers_differ(study):
    """In number and place of the tokens; the teacher's does not hold the study's EOS."""
    ids = [student(study, "rejected")["token_ids"], reading(study, "far", "rejected")[1]["token_ids"]]
    assert [len(a) != len(b) for a, b in zip(*ids, strict=True)].count(True) > 2
    assert EOS not in conversation(study / "far").tokenizer.get_vocab()


@SIDES
def test_a_teacher_with_the_students_tokenizer_reads_its_very_ids(study, side):
    """Also those that their text would not be cut into, and bytes that are no character."""
    own = student(study, side)
    for name in ("same", "near"):
        _, found = reading(study, name, side)
        for part in ("token_ids", "ends"):
            assert [one.tolist() for one in found[part]] == [one.tolist() for one in own[part]]
    if side == "rejected":
        again = conversation(study / "student")
        assert own["token_ids"][1].tolist() != again.tokenize_response(texts_of(study)[side][1])[0]
        assert own["token_ids"][5].tolist() != again.tokenize_response(texts_of(study)[side][5])[0]


@SIDES
def test_a_model_as_teacher_says_what_it_says_as_student(study, side):
    """Read one token off, as the published code does, it would not."""
    own, (_, found) = student(study, side)["logprobs"], reading(study, "same", side)
    for ours, theirs in zip(own, found["logprobs"], strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
    longest = max(own, key=len)
    assert np.abs(np.diff(longest)).min() > 1e-4
    assert np.std(longest) > 0.3


@SIDES
def test_a_teacher_in_another_template_gets_its_own_prompt(study, side):
    own, (table, found) = student(study, side)["token_ids"], reading(study, "asked", side)
    assert tables.metadata(table)["template"] == TEMPLATE
    prompts = [conversation(study / "student", TEMPLATE).prompt_ids(prompt) for prompt, _, _ in PAIRS]
    assert conversation(study / "student").tokenizer.decode(prompts[0]) == "Q: sun\nA:"
    for logprobs, by_hand in zip(found["logprobs"], plainly(study / "student", prompts, own), strict=True):
        np.testing.assert_allclose(logprobs, by_hand, atol=1e-5, rtol=1e-5)
    other = reading(study, "same", side)[1]["logprobs"][0]
    assert np.abs(found["logprobs"][0] - other).max() > 0.01


# A short context


@SIDES
@pytest.mark.parametrize("name", ["near", "far"])
def test_a_short_context_reads_as_far_as_it_goes(study, name, side):
    (_, whole), (table, some) = reading(study, name, side), reading(study, f"{name}-short", side)
    rooms = [SHORT - len(conversation(study / name).prompt_ids(prompt)) for prompt, _, _ in PAIRS]
    for ids, all_, room in zip(some["token_ids"], whole["token_ids"], rooms, strict=True):
        assert min(len(all_), room) - 3 <= len(ids) <= min(len(all_), room)  # a character is not read in parts
    assert len(some["token_ids"][0]) == rooms[0] < len(whole["token_ids"][0])
    for part, exact in (("token_ids", 0.0), ("ends", 0.0), ("logprobs", 1e-5)):
        for ours, theirs in zip(some[part], whole[part], strict=True):
            np.testing.assert_allclose(ours, theirs[: len(ours)], atol=exact)
    unread = sum(map(len, whole["token_ids"])) - sum(map(len, some["token_ids"]))
    assert tables.metadata(table)["unread"] == unread


@pytest.mark.parametrize("name", ["near", "far"])
def test_what_does_not_fit_is_neutral_and_counted(study, name, tmp_path):
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


def test_a_prompt_that_fills_the_context_leaves_nothing_to_read(study):
    rows = tables.read(study / "prompts.parquet", "prompts")
    for context in (1, 20):
        found = teacher_answers(rows, [], conversation(study / "far"), "far", context)
        assert [tokens.ids for tokens in found.sides[""]] == [[]] * len(PAIRS)
        assert [tokens.ends for tokens in found.sides[""]] == [[]] * len(PAIRS)
        assert found.metadata["unread"] == sum(map(len, reading(study, "far", "chosen")[1]["token_ids"]))


def test_a_character_of_which_some_bytes_do_not_fit_is_not_read(study):
    far, rows = conversation(study / "far"), tables.read(study / "prompts.parquet", "prompts").slice(1, 1)
    ids, ends = far.tokenize_response(REAL[1])
    for room in range(len(ids) + 1):
        found = teacher_answers(rows, [], far, "far", len(far.prompt_ids("moon")) + room).sides[""][0]
        reached = [end for place, end in enumerate(ends) if room > place and (room == len(ids) or ends[room] > end)]
        assert found.ends[-1:] == reached[-1:]
        made = align(REAL[1], range(1, len(REAL[1]) + 1), found.ends)
        assert made.read[made.student[-1]] == (room == len(ids))


# Weights


def expected_weights(study, teacher, side, told):
    """Of every answer, from the stored files: its EOS is 1."""
    own, (_, theirs) = student(study, side), reading(study, teacher, side)
    mu = told.mu_chosen if side == "chosen" else told.mu_rejected
    for row, text in enumerate(texts_of(study)[side]):
        ours, others = (parts["logprobs"][row].astype(float) for parts in (own, theirs))
        if teacher == "far":
            made = align(text, own["ends"][row], theirs["ends"][row])
            found = weights.teacher_weights(made, ours, others, mu, told).weights
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
    assert told["teacher"] == {key: far[key] for key in ("model", "tokenizer", "template", "autocast")}
    assert told["settings"] == Weigh(**{**SETTINGS, "lower": -0.25}).model_dump()
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
def test_a_teacher_that_is_the_student_makes_every_weight_k(study, tmp_path, form):
    """Exactly, though the two readings were batched differently; in another template it is another teacher."""
    table = weighed(study, tmp_path / "a.parquet", "same", segment_agg=form, eos_weight=0.5)
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
def test_weighing_twice_gives_the_same_bytes_and_leaves_the_inputs(study, tmp_path, control):
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


def shards(study, folder, size=4):
    """The answers and the reference in shards."""
    made = []
    for i, kind in enumerate(["generations", "reference"] * 2):
        table, first = tables.read(study / f"{kind}.parquet", kind), size * (i // 2)
        path = folder / f"{kind}-{i // 2}.parquet"
        columns = {name: column[first : first + size] for name, column in table.to_pydict().items()}
        told = tables.metadata(table)
        if kind == "reference":
            prompts, real, _ = zip(*PAIRS[first : first + size], strict=True)
            told["texts"] = tables.texts_hash(prompts, real)
        tables.write(path, kind, columns, told)
        made.append(path)
    return made


def test_random_weights_do_not_depend_on_the_shard(study, tmp_path):
    told = {**EQUAL, "control": "random"}
    whole = by_side(weighed(study, tmp_path / "a.parquet", [], **told))
    generations, reference, *_ = shards(study, tmp_path)
    files = {"generations": generations, "reference": reference}
    some = weighed(study, tmp_path / "b.parquet", [], size=4, **files, **told)
    for side, found in by_side(some).items():
        assert [one.tolist() for one in found] == [one.tolist() for one in whole[side][:4]]


# What is refused


def changed(path, to, kind, metadata=None, **columns):
    """A copy of a file with other columns or metadata: a function of the old ones each."""
    table = tables.read(path, kind)
    made = table.to_pydict()
    made |= {name: change(made[name]) for name, change in columns.items()}
    tables.write(to, kind, made, {**tables.metadata(table), **(metadata or {})})
    return to


def refused(study, tmp_path, path, words, **changes):
    """One line that names the file; nothing is written."""
    with pytest.raises(StudyError) as error:
        weighed(study, tmp_path / "a.parquet", **changes)
    assert words in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.parquet").exists()


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


@pytest.mark.parametrize("key", ["model", "tokenizer", "template", "autocast"])
def test_a_teacher_is_known_by_all_that_changes_its_numbers(study, tmp_path, key):
    gold, said = (study / f"far-{one}.parquet" for one in ("gold", "said"))
    other = changed(said, tmp_path / "other.parquet", "logprobs", {key: "another"})
    refused(study, tmp_path, other, f"{key}: expected", teacher=[gold, other])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_reading_too_few_is_refused(study, tmp_path, count):
    teacher = [study / f"far-{one}.parquet" for one in ("gold", "said", "said")][:count]
    told = f"expected log-probabilities of both sides (--teacher), found {count} files"
    refused(study, tmp_path, "weigh: source teacher", told, teacher=teacher)


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


# The table of weights


def recomputed(ids, found):
    """Numbers of a side, from its tokens' ids and weights; tokens by id: (count, mean weight)."""
    flat = np.concatenate(found).astype(float)
    row = {"tokens": len(flat), "mean": flat.sum() / len(flat), "sd": flat.std()}
    row |= {name: np.quantile(flat, share) for name, share in QUANTILES.items()}
    means = {}
    for token, weight in zip(np.concatenate(ids).tolist(), flat.tolist(), strict=True):
        means.setdefault(token, []).append(weight)
    return row, {token: (len(one), sum(one) / len(one)) for token, one in means.items()}


def shard_of(study, weights, i=None):
    rest = "" if i is None else f"-{i}"
    return Shard(weights, *(f"{study}/{kind}{rest}.parquet" for kind in ("reference", "generations")))


@pytest.fixture
def made(study, tmp_path):
    """The rows of the table for one iteration of two sides."""
    weighed(study, tmp_path / "weights.parquet")
    return weight_rows("wspin.s43/ite2", [shard_of(study, tmp_path / "weights.parquet")], study / "prompts.parquet")


def test_the_table_equals_a_plain_recomputation(study, tmp_path, made):
    table = tables.read(tmp_path / "weights.parquet", "weights")
    speaker = conversation(study / "student")
    assert [(row["arm"], row["iteration"], row["side"]) for row in made] == [
        ("wspin.s43", 2, "chosen"),
        ("wspin.s43", 2, "rejected"),
    ]
    for row in made:
        ids = student(study, row["side"])["token_ids"]
        found = by_side(table)[row["side"]]
        numbers, tokens = recomputed(ids, [one[: len(of)] for one, of in zip(found, ids, strict=True)])
        assert {key: row[key] for key in numbers} == pytest.approx(numbers)
        counts = tables.metadata(table)["counts"][row["side"]]
        shares = {key: counts[key] / numbers["tokens"] for key in ("at_lower", "at_upper", "unread", "unclear")}
        shares["mismatched"] = counts["mismatched"] / counts["segments"]
        assert {key: row[key] for key in shares} == pytest.approx(shares)
        often = sorted(((mean, token) for token, (count, mean) in tokens.items() if count >= 10), reverse=True)
        assert row["heaviest"] == [
            (speaker.tokenizer.decode([token]), pytest.approx(mean, abs=1e-4)) for mean, token in often
        ]
        assert len(often) > 0
    assert made[0]["mismatched"] > 0


def test_shards_make_one_row(study, tmp_path, made):
    shards(study, tmp_path)
    whole, paths = tables.read(tmp_path / "weights.parquet", "weights"), []
    counts = tables.metadata(whole)["counts"]
    halves = [{side: {key: n * part for key, n in of.items()} for side, of in counts.items()} for part in (0.25, 0.75)]
    for i, half in enumerate(halves):
        columns = {name: column[4 * i : 4 * i + 4] for name, column in whole.to_pydict().items()}
        paths.append(tmp_path / f"weights-{i}.parquet")
        tables.write(paths[-1], "weights", columns, {**tables.metadata(whole), "counts": half})
    parts = [shard_of(tmp_path, path, i) for i, path in enumerate(paths)]
    assert weight_rows("wspin.s43/ite2", parts, study / "prompts.parquet") == made


def test_csv_holds_every_number(made):
    """At full precision, and the tokens as JSON."""
    read = list(csv.DictReader(io.StringIO(to_csv(made))))
    assert [list(row) for row in read] == [[*made[0]]] * 2
    for row, expected in zip(read, made, strict=True):
        assert json.loads(row.pop("heaviest")) == [list(one) for one in expected["heaviest"]]
        assert {key: type(expected[key])(value) for key, value in row.items()} == {key: expected[key] for key in row}
    assert "\r" not in to_csv(made)
    assert to_csv([]).count("\n") == 1


def test_markdown_shows_the_numbers_that_one_looks_at_first(made):
    header, _, first, second, *rest = to_markdown(made).splitlines()
    row = made[0]
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    assert cells[:3] == ["wspin.s43/ite2", "chosen", str(row["tokens"])]
    assert cells[3:6] == [
        f"{row['mean']:.2f} ± {row['sd']:.2f}",
        f"{row['median']:.2f}",
        f"{row['q05']:.2f} to {row['q95']:.2f}",
    ]
    assert cells[6:8] == [f"{100 * row[key]:.1f} %" for key in ("at_lower", "at_upper")]
    assert cells[8].split("` `")[0].strip("`") == row["heaviest"][0][0]
    assert second.split("|")[2].strip() == "rejected"
    assert header.count("|") == first.count("|") == second.count("|") == 10
    assert rest[0] == ""
    assert to_markdown([]) == "No arm weighs its tokens.\n"


# A table by hand


def written(folder, said, found, ids, ends):
    """Files of one iteration in which every answer, real or generated, is the same; EOS is 0."""
    names = [f"train-{i}" for i in range(len(said))]
    rows = {"prompt_id": names, "prompt": names, "response": said, "split": ["train"] * len(said)}
    tables.write(folder / "prompts.parquet", "prompts", rows, {})
    columns = {"prompt_id": names, "response": said, "token_ids": ids, "finish_reason": ["stop"] * len(said)}
    tables.write(folder / "generations.parquet", "generations", columns, {})
    parts = {"token_ids": ids, "ends": ends, "logprobs": found}
    columns = {f"{side}_{part}": values for side in tables.SIDES for part, values in parts.items()}
    tables.write(folder / "reference.parquet", "reference", {"prompt_id": names, **columns}, {"eos": 0})
    counts = {"tokens": sum(map(len, ids)) - len(ids)}
    hashes = tables.ids_hashes(tables.read_reference(folder / "reference.parquet"), "rejected")
    columns = {f"{side}_weights": found for side in tables.SIDES} | {"ids_hash": hashes, "prompt_id": names}
    made_with = {"counts": dict.fromkeys(tables.SIDES, counts)}
    tables.write(folder / "weights.parquet", "weights", columns, made_with)
    return weight_rows("a/ite0", [shard_of(folder, folder / "weights.parquet")], folder / "prompts.parquet")


def test_tokens_of_one_text_are_kept_apart_and_rare_ones_left_out(tmp_path):
    """Ten answers of two tokens "a", a token of two letters, EOS; one of a heavy token that nobody else says."""
    said, ids, ends = ["aab|"] * 10 + ["x"], [[5, 6, 7, 0]] * 10 + [[8, 0]], [[1, 2, 4, 4]] * 10 + [[1, 1]]
    found = [[1.0, 3.0, 2.0 + i / 10, 9.0] for i in range(10)] + [[50.0, 9.0]]
    made = written(tmp_path, said, found, ids, ends)
    for row in made:
        assert row["heaviest"] == [("a", 3.0), ("b|", 2.45), ("a", 1.0)]
        assert (row["tokens"], row["median"], row["mean"]) == (31, 2.5, pytest.approx((10 + 30 + 24.5 + 50) / 31))
    assert r"`a` `b\|` `a`" in to_markdown(made)


def test_no_more_than_twenty_tokens_are_shown(tmp_path):
    count = TOP + 5
    ids, ends = [[*range(1, count + 1), 0]] * 10, [[*range(1, count + 1), count]] * 10
    made = written(tmp_path, ["n" * count] * 10, [[*map(float, range(count + 1))]] * 10, ids, ends)
    assert [mean for _, mean in made[0]["heaviest"]] == [24.0 - i for i in range(20)]


def test_markdown_writes_line_breaks_as_letters(tmp_path):
    made = written(tmp_path, ["\n\t日"] * 10, [[3.0, 2.0, 1.0, 0.0]] * 10, [[4, 5, 6, 0]] * 10, [[1, 2, 3, 3]] * 10)
    assert [token for token, _ in made[0]["heaviest"]] == ["\n", "\t", "日"]
    line = to_markdown(made).splitlines()[2]
    assert r"`\n` `\t` `日`" in line
    first, _ = csv.DictReader(io.StringIO(to_csv(made)))
    assert json.loads(first["heaviest"]) == [["\n", 3.0], ["\t", 2.0], ["日", 1.0]]


def test_an_iteration_without_tokens_has_no_numbers(tmp_path):
    made = written(tmp_path, ["", ""], [[1.0], [1.0]], [[0], [0]], [[0], [0]])
    for row in made:
        assert (row["tokens"], row["mean"], row["sd"], row["median"], row["heaviest"]) == (0, None, None, None, [])
    first, _ = csv.DictReader(io.StringIO(to_csv(made)))
    assert (first["tokens"], first["mean"], first["q05"], first["heaviest"]) == ("0", "", "", "[]")
    lines = to_markdown(made).splitlines()
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == ["a/ite0", "chosen", "0", *["-"] * 6]


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


def test_what_only_a_role_makes_special_is_not_all_that_is_special(study):
    """A special token without a role is none of the text's, in a template and in an answer."""
    speaker = conversation(study / "student", "<|head|>{prompt}<|tail|>")
    speaker.tokenizer.add_tokens([AddedToken(one, special=True) for one in ("<|head|>", "<|tail|>")])
    assert not {"<|head|>", "<|tail|>"} & set(speaker.tokenizer.all_special_tokens)
    ids = speaker.prompt_ids("sun")
    assert speaker.tokenizer.convert_ids_to_tokens([ids[0], ids[-1]]) == ["<|head|>", "<|tail|>"]
    rows = tables.read(study / "prompts.parquet", "prompts")
    told = teacher_answers(rows, [], speaker, "another", 200).metadata["special_ids"]
    assert {ids[0], ids[-1]} <= set(told)


def test_what_a_teacher_cannot_name_is_unclear():
    """Its unknown token stands for what it has not understood."""
    made = align("a 語 b", [1, 3, 5], [1, 3, 5], (), [1])
    assert made.clear.tolist() == [True, False, True]
    assert made.read.all()
