"""Where rows come from, which are drawn, and why others are passed over."""

import json
import re
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wspin.config.sources import ReasoningGym
from wspin.data import records, selection
from wspin.data.chat import ChatTokenizer
from wspin.errors import StudyError
from wspin.fetch import datasets
from wspin.models import folders
from wspin.rng import row_generator

TASKS = {"spell_backward": {"min_word_len": 3, "max_word_len": 7}}
SHORT = {"spell_backward": {"min_word_len": 3, "max_word_len": 3}}  # few words, drawn again and again


def fit(chat, context=128, max_new_tokens=10, tokenizer=None, **changes):
    """A room for 60 tokens of prompt and 90 in all, in which "ab" is two tokens."""
    settings = {"template": "Q{prompt}A", "max_prompt_tokens": 60, "max_tokens": 90, **changes}
    made = ChatTokenizer(tokenizer or chat.tokenizer, chat.settings.model_copy(update=settings))
    return selection.Fit(made, context, max_new_tokens)


# Drawing


def odd(row):
    return None if row % 2 else "even"


def test_draw_takes_exactly_as_many_as_asked():
    kept, passed_over = selection.draw(range(1000), 50, 1, odd)
    assert len(set(kept)) == 50
    assert all(row % 2 for row in kept)
    assert set(passed_over) == {"even"}
    assert 20 < passed_over["even"] < 90  # only those met before the fiftieth that fits


def test_draw_is_seeded():
    draws = [selection.draw(range(1000), 50, seed, odd)[0] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert sorted(draws[0]) != draws[0]


def test_a_larger_draw_begins_with_the_smaller():
    assert selection.draw(range(1000), 80, 1, odd)[0][:50] == selection.draw(range(1000), 50, 1, odd)[0]


def test_draw_records_every_reason():
    source = ["fits"] * 3 + ["prompt too long"] * 2 + ["answer too long"]
    judge = {"fits": None}.get
    kept, passed_over = selection.draw(source, 3, 1, lambda row: judge(row, row))
    assert sorted(kept) == [0, 1, 2]
    assert passed_over <= Counter({"prompt too long": 2, "answer too long": 1})
    with pytest.raises(StudyError) as error:
        selection.draw(source, 4, 1, lambda row: judge(row, row))
    assert str(error.value) == (
        "data: expected 4 rows that fit, found 3 of 6 (1 answer too long, 2 prompt too long); ask for fewer rows"
    )


def test_draw_from_too_few_rows_is_one_line():
    with pytest.raises(StudyError, match=re.escape("expected 3 rows that fit, found 2 of 2 (none passed over)")):
        selection.draw("ab", 3, 1, lambda row: None)


def test_ids_sort_as_their_rows():
    ids = [selection.prompt_id("train_sft", index) for index in (9, 10, 207_864)]
    assert ids == sorted(ids) == ["train_sft-0000009", "train_sft-0000010", "train_sft-0207864"]


# Judging


@pytest.mark.parametrize(("prompt", "reason"), [("x" * 58, None), ("x" * 59, "prompt too long")])
def test_longest_prompt(chat, prompt, reason):
    """Q and A around it are counted."""
    assert selection.judge((prompt, "y"), [fit(chat)]) == reason


@pytest.mark.parametrize(("answer", "reason"), [("y" * 77, None), ("y" * 78, "answer too long")])
def test_longest_answer(chat, answer, reason):
    """With 12 tokens of prompt and one EOS."""
    assert selection.judge(("x" * 10, answer), [fit(chat)]) == reason


@pytest.mark.parametrize(("budget", "reason"), [(78, None), (79, "prompt too long")])
def test_generation_must_have_its_budget(chat, budget, reason):
    """Even where the real answer would fit."""
    assert selection.judge(("x" * 10, "y"), [fit(chat, max_new_tokens=budget)]) == reason


@pytest.mark.parametrize(("context", "reason"), [(32, None), (31, "answer too long")])
def test_a_short_context_counts(chat, context, reason):
    assert selection.judge(("x" * 10, "y" * 19), [fit(chat, context)]) == reason


def test_every_model_must_have_room(chat):
    """Each in its own template and with its own tokenizer; the second one's needs more tokens."""
    row = ("x" * 40, "y" * 10)
    room, narrow = fit(chat), fit(chat, template="Q{prompt}A" + "." * 30)
    assert selection.judge(row, [room]) is None
    assert selection.judge(row, [room, narrow]) == selection.judge(row, [narrow, room]) == "prompt too long"


def test_a_model_with_another_tokenizer(chat):
    """A word that is one token of the first model is many tokens of the second."""
    tokenizer = folders.load_tokenizer(chat.tokenizer.name_or_path)
    tokenizer.add_tokens(["kitchen"])
    first, second = fit(chat, tokenizer=tokenizer), fit(chat)
    assert selection.judge(("kitchen" * 20, "y"), [first]) is None
    assert selection.judge(("kitchen" * 20, "y"), [first, second]) == "prompt too long"
    assert selection.judge(("x", "kitchen" * 20), [first, second]) == "answer too long"


def test_every_answer_of_a_pair_is_judged(chat):
    rooms = [fit(chat)]
    assert selection.judge(("x", "y", "z"), rooms) is None
    assert (
        selection.judge(("x", "y", "z" * 90), rooms)
        == selection.judge(("x", "y" * 90, "z"), rooms)
        == "answer too long"
    )
    assert selection.judge(("x", "y", None), rooms) is None  # a rejected answer that is yet to be made


def test_a_row_without_prompt_or_answer(chat):
    assert selection.judge(None, [fit(chat)]) == "without prompt or answer"
    assert selection.judge(None, []) == "without prompt or answer"


# Cutting


@pytest.mark.parametrize("prompt", ["0123456789" * 9, "kitchen window " * 20, "naïve 日本語 👩‍👩‍👧‍👦 " * 12])
def test_a_prompt_is_cut_on_the_left(chat, prompt):
    """It ends as it did, fits, and would not if more were kept; the template stays whole."""
    room = fit(chat)
    row = selection.cut((prompt, "y", None), [room])
    assert row[1:] == ("y", None)
    assert prompt.endswith(row[0])
    assert selection.judge((prompt, "y"), [room]) == "prompt too long"
    assert selection.judge(row, [room]) is None
    ids = room.dialogue.prompt_ids(row[0])
    assert room.dialogue.tokenizer.decode(ids[:1] + ids[-1:]) == "QA"
    assert room.prompt_room - 4 <= len(ids) <= room.prompt_room  # a character may be several tokens


def test_what_fits_is_left_alone(chat):
    row = ("x" * 58, "y")
    assert selection.cut(row, [fit(chat)]) == row
    assert selection.cut(None, [fit(chat)]) is None


def test_a_prompt_is_cut_for_the_narrowest_model(chat):
    tokenizer = folders.load_tokenizer(chat.tokenizer.name_or_path)
    tokenizer.add_tokens(["kitchen"])
    rooms = [fit(chat, tokenizer=tokenizer, max_prompt_tokens=30), fit(chat)]
    row = selection.cut(("kitchen" * 40, "y"), rooms)
    assert selection.judge(row, rooms) is None
    assert 50 < len(row[0]) <= 58


def test_a_template_that_is_too_long_alone_drops_the_row(chat):
    room = fit(chat, template="Q{prompt}A" + "." * 70)
    assert selection.judge(selection.cut(("x" * 80, "y"), [room]), [room]) == "prompt too long"


def test_an_answer_that_is_too_long_is_not_cut(chat):
    room = fit(chat)
    assert selection.judge(selection.cut(("x" * 80, "y" * 90), [room]), [room]) == "answer too long"


def test_cut_prompts_are_chosen_and_counted(chat):
    room = [fit(chat)]
    found = [("x" * 80, "y"), ("x" * 10, "y"), ("x", "y" * 100), None]
    kept, columns, told = selection.choose(found, 2, 1, room, shorten=True)
    assert {i: len(prompt) for i, prompt in zip(kept, columns[0], strict=True)} == {0: 58, 1: 10}
    assert told["cut"] == 1
    with pytest.raises(StudyError, match=r"found 1 of 4 \(1 answer too long, 1 prompt too long, 1 without prompt or"):
        selection.choose(found, 2, 1, room, shorten=False)


def test_rooms_are_measured_from_model_folders(scratch_model, chat):
    """The context is the model's, the template its own."""
    other = "Q{prompt}A"
    made = selection.fits([scratch_model] * 2, ["human-assistant", other], chat.settings, 7)
    assert [(room.context, room.max_new_tokens, room.dialogue.settings.template) for room in made] == [
        (128, 7, "human-assistant"),
        (128, 7, other),
    ]
    assert [room.dialogue.token_counts("x", "")[0] for room in made] == [len(chat.prompt_ids("x")), 3]


# Sources


def turns(*said):
    return [{"role": role, "content": content} for role, content in said]


def test_first_turn_of_messages():
    said = turns(("system", "be kind"), ("user", "hi"), ("assistant", "hello"), ("user", "and?"), ("assistant", "no"))
    assert records.first_turn({"prompt": "ignored", "messages": said}) == ("hi", "hello")


@pytest.mark.parametrize(
    "said",
    [
        [("user", "hi")],
        [("assistant", "hello"), ("user", "hi")],
        [("user", "hi"), ("user", "hi?"), ("assistant", "hello")],
        [("system", "be kind")],
        [("user", ""), ("assistant", "hello")],
        [("user", None), ("assistant", "hello")],
        [("user", "hi"), ("assistant", None)],
    ],
)
def test_messages_without_a_first_turn(said):
    assert records.first_turn({"messages": turns(*said)}) is None


def test_first_turn_of_a_plain_row():
    assert records.first_turn({"prompt": "hi", "response": "hello", "task": "x"}) == ("hi", "hello")
    assert records.first_turn({"prompt": "hi", "response": "", "messages": None}) == ("hi", "")
    for row in ({}, {"prompt": "hi"}, {"prompt": "", "response": "hello"}, {"prompt": "hi", "response": None}):
        assert records.first_turn(row) is None


def test_preference_pairs_of_texts_and_dialogues():
    chosen, rejected = (turns(("user", "hi"), ("assistant", answer)) for answer in ("good", "bad"))
    assert records.preference({"prompt": "hi", "chosen": chosen, "rejected": rejected}) == ("hi", "good", "bad")
    assert records.preference({"prompt": "hi", "chosen": "good", "rejected": ""}) == ("hi", "good", "")


@pytest.mark.parametrize(
    "change",
    [{"prompt": ""}, {"prompt": None}, {"chosen": None}, {"rejected": []}, {"rejected": turns(("user", "hi"))}],
)
def test_pairs_that_lack_a_side(change):
    row = {"prompt": "hi", "chosen": "good", "rejected": "bad"}
    assert records.preference(row) is not None
    assert records.preference({**row, **change}) is None


def test_a_pair_whose_rejected_answer_is_yet_to_be_made():
    assert records.unanswered({"prompt": "hi", "response": "hello"}) == ("hi", "hello", None)
    assert records.unanswered({"prompt": "hi"}) is None


def test_local_folders_keep_their_rows(tmp_path):
    """From JSON lines to parquet, and from there to parquet."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for folder in (first, second, third):
        folder.mkdir()
    made = [{"prompt": "hi", "response": "日本"}, {"prompt": "x", "response": ""}, {"prompt": "", "response": "y"}]
    (first / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    datasets.from_folder(str(first), ["train"], second)
    datasets.from_folder(str(second), ["train"], third)
    for folder in (second, third):
        assert list(records.read(folder, "train", dict)) == made
        assert list(records.texts(folder, "train")) == ["hi", "日本", "x", ""]


def test_a_split_is_read_row_by_row(tmp_path):
    pq.write_table(pa.table({"prompt": ["a", "b", ""], "response": ["x", "y", "z"]}), tmp_path / "train.parquet")
    split = records.read(tmp_path, "train", records.first_turn)
    assert [split[i] for i in (2, 0, 1)] == [None, ("a", "x"), ("b", "y")]
    assert len(split) == 3
    for index in (-1, 3):
        with pytest.raises(IndexError):
            split[index]


def test_a_missing_split_names_what_there_is(tmp_path):
    with pytest.raises(StudyError, match=r"expected test\.parquet or test\.jsonl, found neither"):
        datasets.from_folder(str(tmp_path), ["test"], tmp_path)
    with pytest.raises(StudyError, match=r"test\.parquet: expected split 'test', found nothing; fetch"):
        records.read(tmp_path, "test", dict)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "train.parquet")
    with pytest.raises(StudyError, match="expected split 'test', found train; fetch"):
        records.read(tmp_path, "test", dict)


# Generated tasks


def fetch(folder, count, heldout=0.3, seed=1, tasks=TASKS):
    folder.mkdir()
    settings = ReasoningGym(tasks=tasks, rows=count, heldout=heldout)
    datasets.from_reasoning_gym(settings, seed, folder)
    return [{row["prompt"] for row in records.read(folder, split, dict)} for split in ("train", "test")]


def test_no_prompt_stands_on_both_sides(tmp_path):
    """Nor twice on one."""
    train, test = fetch(tmp_path / "a", 400, tasks=SHORT)
    assert train and test
    assert not train & test
    found = sum(pq.read_metadata(tmp_path / f"a/{split}.parquet").num_rows for split in ("train", "test"))
    assert found == len(train | test) < 400


def test_the_split_is_stable(tmp_path):
    """Equal settings give equal files; more rows move no prompt to the other side."""
    train, test = fetch(tmp_path / "a", 100)
    fetch(tmp_path / "b", 100)
    for split in ("train", "test"):
        first, again = (tmp_path / place / f"{split}.parquet" for place in "ab")
        assert first.read_bytes() == again.read_bytes()
    more_train, more_test = fetch(tmp_path / "c", 200)
    assert train <= more_train
    assert test <= more_test
    assert 0.15 < len(more_test) / (len(more_test) + len(more_train)) < 0.45


def test_the_split_needs_no_seed(tmp_path):
    """It is a prompt's own: of two seeds' prompts, those in common lie on the same side."""
    (train, test), (other_train, other_test) = (fetch(tmp_path / str(seed), 300, 0.5, seed, SHORT) for seed in (1, 2))
    assert (train | test) & (other_train | other_test)
    assert not train & other_test
    assert not test & other_train


def test_an_unknown_task_is_one_line(tmp_path):
    with pytest.raises(StudyError, match=r"^data\.sft\.reasoning_gym\.tasks\.spell_backwards: [^\n]*$"):
        fetch(tmp_path / "a", 10, tasks={"spell_backwards": {}})


# Seeds


def test_random_numbers_belong_to_their_key():
    """The same on every machine, and for as long as results are to be made again."""
    pinned = [0.3122565462255169, 0.2936542893973966, 0.594027782863381]
    assert row_generator(42, 0, "generate", "train-0000000").random(3).tolist() == pinned
    assert row_generator(1, 23).random() != row_generator(12, 3).random()
