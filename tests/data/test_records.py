"""Which forms of rows are read, as which prompts and answers, and what is passed over or refused."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wspin.data import records
from wspin.errors import StudyError
from wspin.fetch import datasets


def messages(*turns):
    return [{"role": role, "content": content} for role, content in turns]


def test_first_turn_of_messages():
    conversation = messages(("user", "hi"), ("assistant", "hello"), ("user", "and?"), ("assistant", "no"))
    assert records.first_turn({"prompt": "ignored", "messages": conversation}) == ("hi", "hello")


@pytest.mark.parametrize(
    "turns",
    [
        [("user", "hi")],
        [("assistant", "hello"), ("user", "hi")],
        [("user", "hi"), ("user", "hi?"), ("assistant", "hello")],
        [("user", ""), ("assistant", "hello")],
        [("user", None), ("assistant", "hello")],
        [("user", "hi"), ("assistant", None)],
    ],
)
def test_messages_without_a_first_turn(turns):
    assert records.first_turn({"messages": messages(*turns)}) == records.INCOMPLETE


def test_first_turn_of_a_plain_row():
    assert records.first_turn({"prompt": "hi", "response": "hello", "task": "x"}) == ("hi", "hello")
    assert records.first_turn({"prompt": "hi", "response": "", "messages": None}) == ("hi", "")
    for row in ({}, {"prompt": "hi"}, {"prompt": "", "response": "hello"}, {"prompt": "hi", "response": None}):
        assert records.first_turn(row) == records.INCOMPLETE


def test_preference_pairs_of_texts_and_conversations():
    chosen, rejected = (messages(("user", "hi"), ("assistant", answer)) for answer in ("good", "bad"))
    assert records.preference_pair({"prompt": "hi", "chosen": chosen, "rejected": rejected}) == ("hi", "good", "bad")
    assert records.preference_pair({"prompt": "hi", "chosen": "good", "rejected": ""}) == ("hi", "good", "")


@pytest.mark.parametrize(
    "change",
    [{"prompt": ""}, {"prompt": None}, {"chosen": None}, {"rejected": []}, {"rejected": messages(("user", "hi"))}],
)
def test_pairs_that_lack_a_side(change):
    row = {"prompt": "hi", "chosen": "good", "rejected": "bad"}
    assert records.preference_pair(row) == ("hi", "good", "bad")
    assert records.preference_pair({**row, **change}) == records.INCOMPLETE


def test_a_pair_without_a_rejected_answer():
    assert records.chosen_only({"prompt": "hi", "response": "hello"}) == ("hi", "hello", None)
    assert records.chosen_only({"prompt": "hi"}) == records.INCOMPLETE


def test_local_folders_keep_their_rows(tmp_path):
    """From JSON lines to parquet, and from there to parquet."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for folder in (first, second, third):
        folder.mkdir()
    rows = [{"prompt": "hi", "response": "日本"}, {"prompt": "x", "response": ""}, {"prompt": "", "response": "y"}]
    (first / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    datasets.from_folder(str(first), ["train"], second)
    datasets.from_folder(str(second), ["train"], third)
    for folder in (second, third):
        assert list(records.read_split(folder, "train", dict)) == rows
        assert list(records.split_texts(folder, "train")) == ["hi", "日本", "x", ""]


def test_a_split_is_read_row_by_row(tmp_path):
    pq.write_table(pa.table({"prompt": ["a", "b", ""], "response": ["x", "y", "z"]}), tmp_path / "train.parquet")
    split = records.read_split(tmp_path, "train", records.first_turn)
    assert [split[i] for i in (2, 0, 1)] == [records.INCOMPLETE, ("a", "x"), ("b", "y")]
    assert len(split) == 3
    for index in (-1, 3):
        with pytest.raises(IndexError):
            split[index]


def test_a_missing_split_names_what_there_is(tmp_path):
    with pytest.raises(StudyError, match=r"expected test\.parquet or test\.jsonl, found nothing"):
        datasets.from_folder(str(tmp_path), ["test"], tmp_path)
    with pytest.raises(StudyError, match=r"test\.parquet: expected split 'test', found nothing; fetch"):
        records.read_split(tmp_path, "test", dict)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "train.parquet")
    with pytest.raises(StudyError, match="expected split 'test', found train; fetch"):
        records.read_split(tmp_path, "test", dict)


# Conversations


def exchange(prompt="hi", answer="hello"):
    return messages(("user", prompt), ("assistant", answer))


def test_a_conversation_of_several_turns_is_no_preference_pair():
    """UltraFeedback-like: the last answer would stand behind the first prompt."""
    opening = exchange("hi", "hello")
    good, bad = (opening + exchange("and now?", answer) for answer in ("good", "bad"))
    for row in (
        {"prompt": "hi", "chosen": good, "rejected": bad},
        {"prompt": "and now?", "chosen": good, "rejected": bad},
        {"chosen": good, "rejected": bad},
        {"prompt": good[:3], "chosen": good[3:], "rejected": bad[3:]},
        {"prompt": "hi", "chosen": good, "rejected": exchange("hi", "bad")},
    ):
        assert records.preference_pair(row) == "with several turns"


def test_a_conversation_of_one_exchange_is_a_preference_pair():
    """With its prompt in a column, in the conversations or in messages of its own."""
    good, bad = exchange("hi", "good"), exchange("hi", "bad")
    for row in (
        {"prompt": "hi", "chosen": good, "rejected": bad, "messages": good},
        {"chosen": good, "rejected": bad},
        {"prompt": good[:1], "chosen": good[1:], "rejected": bad[1:]},
    ):
        assert records.preference_pair(row) == ("hi", "good", "bad")


def test_answers_to_another_prompt_are_no_pair():
    good, other = exchange("hi", "good"), exchange("hello?", "bad")
    for row in ({"prompt": "hi", "chosen": good, "rejected": other}, {"chosen": good, "rejected": other}):
        assert records.preference_pair(row) == "with two prompts"
    assert records.preference_pair({"prompt": "oh", "chosen": good, "rejected": good}) == "with two prompts"


def test_a_system_turn_is_not_dropped_from_a_row():
    """No template has a place for it: the row is passed over, not answered without it. An empty one is none."""
    system = messages(("system", "Answer in French."))
    assert records.first_turn({"messages": system + exchange()}) == "with a system turn"
    pair = {side: system + exchange("hi", side) for side in ("chosen", "rejected")}
    assert records.preference_pair({"prompt": "hi", **pair}) == "with a system turn"
    assert records.first_turn({"messages": messages(("system", "")) + exchange()}) == ("hi", "hello")


def test_equal_answers_are_no_pair():
    for answer in ("same", ""):
        row = {"prompt": "hi", "chosen": answer, "rejected": answer}
        assert records.preference_pair(row) == "with equal answers"


# Published forms


SHAREGPT = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
ANSWERS = {"chosen": "good", "rejected": "bad"}
PARTS = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": SHAREGPT, "id": 3},
        {"conversations": [{"from": "system", "value": ""}, *SHAREGPT]},
        {"conversations": exchange()},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": PARTS}]},
        {"prompt": "hi", "completion": "hello"},
        {"prompt": exchange()[:1], "completion": exchange()[1:]},
        {"question": "hi", "answer": "hello"},
        {"instruction": "hi", "context": "", "response": "hello", "category": "open_qa"},
        {"real": exchange(), "generated": exchange("hi", "no")},
    ],
    ids=str,
)
def test_published_forms_of_first_turns(row):
    assert records.first_turn(row) == ("hi", "hello")


def test_a_context_belongs_to_the_prompt():
    for name in ("input", "context"):
        row = {"instruction": "Add.", name: "1 and 2", "output": "3", "response": "3"}
        assert records.first_turn(row) == ("Add.\n\n1 and 2", "3")


@pytest.mark.parametrize(
    "row",
    [
        {"real": exchange("hi", "good"), "generated": exchange("hi", "bad")},
        {"chosen": "\n\nHuman: hi\n\nAssistant: good", "rejected": "\n\nHuman: hi\n\nAssistant: bad "},
        {
            "conversations": SHAREGPT[:1],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        {"prompt": "hi", "chosen": [{"role": "assistant", "content": PARTS[:1]}], "rejected": "good"},
    ],
    ids=str,
)
def test_published_forms_of_preference_pairs(row):
    assert records.preference_pair(row) in (("hi", "good", "bad"), ("hi", "hel", "good"))


def test_transcripts_of_several_turns_are_no_pair():
    opening = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: and?\n\nAssistant:"
    assert records.preference_pair({"chosen": f"{opening} good", "rejected": f"{opening} bad"}) == "with several turns"
    assert records.preference_pair({"chosen": "good", "rejected": "bad"}) == "without prompt or answer"


# Files


def split_of(folder, **columns):
    pq.write_table(pa.table(columns), folder / "train.parquet")
    return folder


def refusal(folder, parse_row=records.first_turn):
    with pytest.raises(StudyError) as error:
        records.read_split(folder, "train", parse_row)
    return str(error.value).removeprefix(f"{folder}/")


def test_columns_of_no_known_form_are_named(tmp_path):
    line = refusal(split_of(tmp_path, text=["a"], label=[1]))
    assert line.startswith(
        "train.parquet: columns: expected messages or conversations or real or instruction+output or"
    )
    assert line.endswith("found text, label; rename them in a copy (`path:`)")
    line = refusal(split_of(tmp_path, prompt=["a"], chosen=["a"]), records.preference_pair)
    assert "expected prompt+chosen+rejected or" in line
    assert "found prompt, chosen;" in line


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ([1, 2], "response: expected text, found int64"),
        ([["a"], ["b"]], "response: expected text, found list<"),
        ([b"a", b"b"], "response: expected text, found binary"),
        ([{"role": "assistant", "content": 3}], "response.content: expected text, found int64"),
        (
            [[{"role": "assistant", "content": [{"type": "text", "text": 3}]}]],
            "response.content.text: expected text, found",
        ),
    ],
    ids=str,
)
def test_values_that_are_no_text_are_refused(tmp_path, values, place):
    assert refusal(split_of(tmp_path, prompt=["hi"] * len(values), response=values)).startswith(
        f"train.parquet: {place}"
    )


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.string_view()])
def test_lists_of_texts_are_no_messages_in_any_type_of_text(tmp_path, text):
    folder = split_of(tmp_path, messages=pa.array([["hi", "hello"]], pa.list_(text)))
    assert refusal(folder).startswith("train.parquet: messages: expected text, found list<")


def test_content_in_parts_is_read_from_parquet(tmp_path):
    row = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "assistant", "content": PARTS}]
    assert list(records.read_split(split_of(tmp_path, messages=[row]), "train", records.first_turn)) == [
        ("hi", "hello")
    ]


def test_an_image_is_no_text():
    row = {"messages": [{"role": "user", "content": [{"type": "image", "text": None}]}, *exchange()[1:]]}
    assert records.first_turn(row) == "without prompt or answer"


def test_invalid_utf8_is_one_line(tmp_path):
    (tmp_path / "train.jsonl").write_bytes(b'{"prompt": "hi", "response": "\xff"}\n')
    (tmp_path / "out").mkdir()
    datasets.from_folder(str(tmp_path), ["train"], tmp_path / "out")
    line = refusal(tmp_path / "out")
    assert line.startswith("train.parquet: response: expected UTF-8, found Invalid UTF8 sequence at")


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"PAR1"])
def test_a_damaged_parquet_file_is_one_line(tmp_path, content):
    (tmp_path / "train.parquet").write_bytes(content)
    assert refusal(tmp_path).startswith("train.parquet: expected a parquet file, found Parquet ")
    with pytest.raises(StudyError, match=r"expected a parquet file, found Parquet .*; correct the file"):
        datasets.from_folder(str(tmp_path), ["train"], tmp_path)


def from_lines(folder, *rows):
    """The rows that a study reads from a JSONL file of these."""
    (folder / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "out").mkdir(exist_ok=True)
    datasets.from_folder(str(folder), ["train"], folder / "out")
    return list(records.read_split(folder / "out", "train", records.first_turn))


def test_answers_that_look_like_dates_stay_texts(tmp_path):
    rows = [("When?", "2024-05-01"), ("And?", "2024-05-02 10:00:00")]
    assert from_lines(tmp_path, *({"prompt": prompt, "response": answer} for prompt, answer in rows)) == rows
    assert from_lines(tmp_path, *({"messages": exchange(*row)} for row in rows)) == rows


def test_objects_without_a_key_are_left_out(tmp_path):
    """As `"metadata": {}`, which parquet cannot hold."""
    turns = [{**message, "tool_calls": [{}], "extra": {"inner": {}, "n": None}} for message in exchange("hi", "hello")]
    rows = [{"messages": turns, "metadata": {}}, {"messages": turns, "metadata": {}, "id": 1}]
    assert from_lines(tmp_path, *rows) == [("hi", "hello")] * 2
    table = pq.read_table(tmp_path / "out/train.parquet")
    assert table.column_names == ["messages", "id"]
    assert table["id"].to_pylist() == [None, 1]


@pytest.mark.parametrize("column", ["system", "system_prompt"])
def test_a_column_with_a_system_turn_is_one(tmp_path, column):
    pair = {"question": "hi", "chosen": exchange("hi", "good"), "rejected": exchange("hi", "bad")}
    plain = [{"prompt": "hi", "response": "hello"}, {"prompt": "ho", "response": "hello"}]
    for text, turn, preference in (
        ("Be kind.", "with a system turn", "with a system turn"),
        ("", ("hi", "hello"), ("hi", "good", "bad")),
    ):
        assert from_lines(tmp_path, {**plain[0], column: text}, plain[1]) == [turn, ("ho", "hello")]
        assert records.first_turn({"messages": exchange("hi", "hello"), column: text}) == turn
        assert records.preference_pair({**pair, column: text}) == preference
    assert records.first_turn({column: "Be kind."}) == records.INCOMPLETE


def test_a_row_of_megabytes_is_read(tmp_path):
    long = "a" * 3_000_000
    assert from_lines(tmp_path, {"prompt": "hi", "response": long}) == [("hi", long)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[{"prompt": "a"},\n{"prompt": "b"}]',
            ':1: expected one JSON object a line, found [{"prompt": "a"},; correct it',
        ),
        ('{"a": "x"}\n{"a": \n', ':2: expected one JSON object a line, found {"a": ; correct it'),
        ("", ": expected rows of one form, found Empty JSON file; correct that row"),
        ('{"a": "x"}\n{"a": 1}\n', "(/a) changed from string to number in row 1; correct that row"),
    ],
)
def test_lines_that_are_no_rows_are_named(tmp_path, text, message):
    (tmp_path / "train.jsonl").write_text(text)
    with pytest.raises(StudyError) as error:
        datasets.from_folder(str(tmp_path), ["train"], tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/train.jsonl:")
    assert str(error.value).endswith(message)


def test_a_split_in_two_files_is_refused(tmp_path):
    from_lines(tmp_path, {"prompt": "hi", "response": "hello"})
    split_of(tmp_path, prompt=["a"])
    with pytest.raises(StudyError, match=r"expected train\.parquet or train\.jsonl, found both; remove one"):
        datasets.from_folder(str(tmp_path), ["train"], tmp_path / "out")
