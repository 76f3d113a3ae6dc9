"""Data sets: which rows are read, which are passed over and counted, and which sources are refused."""

import datetime
import json
from functools import partial

import inputs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from inputs import Case, check_case

FETCH = ["--path", "source", "--splits", "train", "--state", "state", "--output"]
LIMITS = [
    *("--fits", "model", "--templates", "human-assistant", "--template", "human-assistant", "--eos", "<|endoftext|>"),
    *("--max-prompt-tokens", "64", "--max-tokens", "96", "--eos-on-cut", "false", "--max-new-tokens", "8"),
]
OUTPUTS = ["--output", "out.parquet", "--output-digest", "out.json"]
TURNS = (
    "messages or conversations or real or instruction+output or instruction+response or question+answer or "
    "prompt+response or prompt+completion"
)
PAIRS = "prompt+chosen+rejected or conversations+chosen+rejected or chosen+rejected or real+generated"
COPY = "in a copy (`path:`)"


def data_flags(command, rows, *more):
    flags = ["--source", "source", "--split", "train", "--rows", str(rows), "--seed", "1", *OUTPUTS]
    return ["data", command, *flags, *LIMITS, *more]


def in_file(name, content, folder):
    """`fetch data` of a folder that holds one file."""
    (folder / "source").mkdir()
    (folder / "source" / name).write_bytes(content)
    return ["fetch", "data", *FETCH, "out"]


def in_both_files(folder):
    in_file("train.parquet", b"", folder)
    (folder / "source/train.jsonl").write_text("")
    return ["fetch", "data", *FETCH, "out"]


def in_a_folder(folder):
    (folder / "source/train.parquet").mkdir(parents=True)
    return ["fetch", "data", *FETCH, "out"]


def in_table(columns, command, folder):
    """`data` of a fetched parquet file."""
    (folder / "source").mkdir()
    pq.write_table(pa.table(columns), folder / "source/train.parquet")
    return data_flags(command, 1)


def in_lines(rows, count, command, more, folder):
    """`data` of the fetched rows of a JSONL file; `rows` in the order in which they are drawn."""
    order = np.random.default_rng(1).permutation(len(rows)).tolist()
    lines = [json.dumps(rows[order.index(i)]) + "\n" for i in range(len(rows))]
    in_file("train.jsonl", "".join(lines).encode(), folder)
    code, _, errors = inputs.run("fetch", ["data", *FETCH, "fetched"])
    assert code == 0, errors
    (folder / "fetched").rename(folder / "source.fetched")
    (folder / "source/train.jsonl").unlink()
    (folder / "source.fetched/train.parquet").rename(folder / "source/train.parquet")
    return data_flags(command, count, *more)


def held_out(rows, folder):
    """`data heldout`, where a row of the training split is `ROW`; `rows` in the order in which they are drawn."""
    program, _, *flags = in_lines(rows, 1, "heldout", ["--training", "source", "--training-split", "train"], folder)
    (folder / "source/train.parquet").rename(folder / "source/test.parquet")
    pq.write_table(pa.Table.from_pylist([ROW]), folder / "source/train.parquet")
    flags[flags.index("--split") + 1] = "test"
    return [program, "heldout", *flags]


def refused(kind, name, content, message):
    return Case(kind, partial(in_file, name, content), message)


def not_text(kind, columns, message, command="prompts"):
    return Case(kind, partial(in_table, columns, command), f"source/train.parquet: {message}")


def counted(kind, rows, message, count=1, command="prompts", more=()):
    """Rows of which `count` are drawn; `message` follows the name of the file and their number."""
    prepare = partial(in_lines, rows, count, command, more)
    return Case(kind, prepare, f"out.parquet: {count} rows of split train; passed over: {message}", 0)


def none_left(kind, row, message, command="prompts"):
    """A source all of whose rows are passed over."""
    message = f"data: expected 1 rows that fit, found 0 of 2 (2 {message}"
    return Case(kind, partial(in_lines, [row, row], 1, command, ()), message)


def exchange(prompt="hi", answer="hello", *opening):
    return [*opening, {"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def invalid_utf8():
    content = pa.array([b"ok", b"\xff"])
    return pa.Array.from_buffers(pa.string(), 2, content.buffers())


ROW, OTHER = {"prompt": "hi", "response": "hello"}, {"prompt": "why?", "response": "so"}
PAIR = {"prompt": "hi", "chosen": "good", "rejected": "bad"}
SYSTEM = {"role": "system", "content": "Be kind."}
SHAREGPT = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
SEVERAL = {side: exchange("and?", side, *exchange()) for side in ("chosen", "rejected")}

REFUSED_FILES = [
    refused(
        "JSONL that is one JSON array",
        "train.jsonl",
        b'[{"prompt": "hi", "response": "hello"}]',
        'source/train.jsonl:1: expected one JSON object a line, found [{"prompt": "hi", "response": "hello"}]; correct it',
    ),
    refused(
        "JSONL whose last line was not written whole",
        "train.jsonl",
        b'{"prompt": "hi"}\n{"prompt": "wh',
        'source/train.jsonl:2: expected one JSON object a line, found {"prompt": "wh; correct it',
    ),
    refused(
        "JSONL with lines that are texts",
        "train.jsonl",
        b'"hi"\n"hello"\n',
        'source/train.jsonl:1: expected one JSON object a line, found "hi"; correct it',
    ),
    refused(
        "JSONL with a number among the answers",
        "train.jsonl",
        b'{"response": "hello"}\n{"response": 42}\n',
        "source/train.jsonl: expected rows of one form, found JSON parse error: Column(/response) changed from string "
        "to number in row 1; correct that row",
    ),
    refused(
        "JSONL with a key twice in a row",
        "train.jsonl",
        b'{"prompt": "hi", "prompt": "hello"}\n',
        "source/train.jsonl: expected rows of one form, found JSON parse error: Column(/prompt) was specified twice in "
        "row 0; correct that row",
    ),
    refused(
        "JSONL with half a surrogate pair",
        "train.jsonl",
        b'{"prompt": "\\ud83d"}\n',
        "source/train.jsonl: expected rows of one form, found JSON parse error: The surrogate pair in string is "
        "invalid. in row 0; correct that row",
    ),
    refused(
        "an empty JSONL file",
        "train.jsonl",
        b"",
        "source/train.jsonl: expected rows of one form, found Empty JSON file; correct that row",
    ),
    refused(
        "a compressed file",
        "train.jsonl.gz",
        b"\x1f\x8b",
        "source: expected train.parquet or train.jsonl, found train.jsonl.gz; convert the split to one of these, or correct its name",
    ),
    refused(
        "a CSV file",
        "train.csv",
        b"prompt,response\n",
        "source: expected train.parquet or train.jsonl, found train.csv; convert the split to one of these, or correct its name",
    ),
    Case(
        "a split both as parquet and as JSONL",
        in_both_files,
        "source: expected train.parquet or train.jsonl, found both; remove one",
    ),
    refused(
        "an empty parquet file",
        "train.parquet",
        b"",
        "source/train.parquet: expected a parquet file, found Parquet file size is 0 bytes; correct the file",
    ),
    refused(
        "a truncated parquet file",
        "train.parquet",
        b"PAR1" + bytes(100),
        "source/train.parquet: expected a parquet file, found Parquet magic bytes not found in footer. Either the file "
        "is corrupted or this is not a parquet file.; correct the file",
    ),
    Case(
        "a folder in place of a parquet file",
        in_a_folder,
        "source/train.parquet: expected a file, found a folder; remove it",
    ),
]

REFUSED_TABLES = [
    not_text(
        "answers that are numbers",
        {"prompt": ["hi"], "response": [3]},
        f"response: expected text, found int64; write it as text {COPY}",
    ),
    not_text(
        "answers that are classes",
        {"question": ["hi"], "answer": [True]},
        f"answer: expected text, found bool; write it as text {COPY}",
    ),
    not_text(
        "answers that are times",
        {"prompt": ["When?"], "response": [datetime.datetime(2024, 5, 1)]},
        f"response: expected text, found timestamp[us]; write it as text {COPY}",
    ),
    not_text(
        "answers that are lists of texts",
        {"prompt": ["hi"], "response": [["hello", "good day"]]},
        f"response: expected text, found list<element: string>; write it as text {COPY}",
    ),
    not_text(
        "answers that are bytes",
        {"prompt": ["hi"], "response": [b"hello"]},
        f"response: expected text, found binary; write it as text {COPY}",
    ),
    not_text(
        "messages whose content are numbers",
        {"messages": [exchange("hi", 3)[1:]]},
        f"messages.content: expected text, found int64; write it as text {COPY}",
    ),
    not_text(
        "rejected answers that are numbers",
        {"prompt": ["hi"], "chosen": ["good"], "rejected": [0.5]},
        f"rejected: expected text, found double; write it as text {COPY}",
        "preferences",
    ),
    not_text(
        "answers that are not UTF-8",
        {"prompt": ["hi", "ho"], "response": invalid_utf8()},
        "response: expected UTF-8, found Invalid UTF8 sequence at string index 1; write the source in UTF-8",
    ),
    not_text(
        "columns with other names",
        {"text": ["hi"], "label": ["hello"]},
        f"columns: expected {TURNS}, found text, label; rename them {COPY}",
    ),
    not_text(
        "prompts without answers",
        {"prompt": ["hi"], "response": [None]},
        f"columns: expected {TURNS}, found prompt, response (empty); rename them {COPY}",
    ),
    not_text(
        "preferences without rejected answers",
        {"prompt": ["hi"], "chosen": ["good"]},
        f"columns: expected {PAIRS}, found prompt, chosen; rename them {COPY}",
        "preferences",
    ),
    Case(
        "a split without rows",
        partial(in_table, {"prompt": pa.array([], pa.string())}, "prompts"),
        "data: expected 1 rows that fit, found 0 of 0 (none passed over); choose other rows",
    ),
]

REFUSED_ROWS = [
    none_left(
        "conversations with a system turn",
        {"messages": exchange("hi", "hello", SYSTEM)},
        "with a system turn); templates have no place for it; write it into the prompts, or remove it",
    ),
    none_left(
        "preferences after several turns, the prompt in a column",
        {"prompt": "hi", **SEVERAL},
        "with several turns); choose a source of answers to first turns",
        "preferences",
    ),
    none_left(
        "preferences after several turns, without a prompt",
        SEVERAL,
        "with several turns); choose a source of answers to first turns",
        "preferences",
    ),
    none_left(
        "transcripts of several turns",
        {side: f"\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: {side}" for side in ("chosen", "rejected")},
        "with several turns); choose a source of answers to first turns",
        "preferences",
    ),
    none_left(
        "prompts in the study's template",
        {"prompt": "\n\n<Human>:hi\n\n<Assistant>:", "response": "hello"},
        'with a template in the prompt); write "{prompt}" as template of the models, or remove the template from the '
        "prompts",
    ),
    none_left(
        "preferences with prompts in TIS-DPO's template",
        {**PAIR, "prompt": "\n\nHuman: hi\n\nAssistant:"},
        'with a template in the prompt); write "{prompt}" as template of the models, or remove the template from the '
        "prompts",
        "preferences",
    ),
    none_left(
        "answers that end in EOS",
        {"prompt": "hi", "response": "hello<|endoftext|>"},
        "with a special token at the end of an answer); remove it from the answers: every answer gets its end later",
    ),
    none_left(
        "prompts that are empty", {"prompt": "", "response": "hello"}, "without prompt or answer); choose other rows"
    ),
    none_left(
        "transcripts without speakers",
        {"chosen": "good", "rejected": "bad"},
        "without prompt or answer); choose other rows",
        "preferences",
    ),
    none_left(
        "messages with images",
        {
            "messages": [
                {"role": "user", "content": [{"type": "image"}]},
                {"role": "assistant", "content": [{"type": "text"}]},
            ]
        },
        "without prompt or answer); choose other rows",
    ),
]

COUNTED = [
    counted("a row with a system turn", [{"messages": exchange("a", "b", SYSTEM)}, ROW], "1 with a system turn"),
    counted("a row with text in a column `system`", [{**OTHER, "system": "Be kind."}, ROW], "1 with a system turn"),
    counted("rows with an empty object, which parquet cannot hold", [{**ROW, "metadata": {}}], "none"),
    counted("a row that begins with the assistant", [{"messages": exchange()[1:]}, ROW], "1 without prompt or answer"),
    counted("the same row twice", [ROW, ROW, OTHER], "1 duplicate", 2),
    counted(
        "a prompt with two answers",
        [ROW, {"prompt": "hi", "response": "good day"}],
        "none; 1 prompts repeated with another answer",
        2,
    ),
    counted(
        "a prompt in a template among others",
        [{"prompt": "### Instruction: a\n\n### Response: ", "response": "b"}, ROW],
        "1 with a template in the prompt",
    ),
    counted(
        "an answer that ends in EOS among others",
        [{"prompt": "a", "response": "b<|endoftext|>\n"}, ROW],
        "1 with a special token at the end of an answer",
    ),
    counted(
        "a pair after several turns",
        [{"prompt": "hi", **SEVERAL}, {"prompt": "hi", "chosen": exchange("hi", "a"), "rejected": exchange("hi", "b")}],
        "1 with several turns",
        command="preferences",
    ),
    counted(
        "a pair whose answers are equal", [{**PAIR, "rejected": "good"}, PAIR], "1 with equal answers", 1, "preferences"
    ),
    counted(
        "a pair of empty answers",
        [{**PAIR, "chosen": "", "rejected": ""}, PAIR],
        "1 with equal answers",
        command="preferences",
    ),
    counted(
        "a pair whose answers have two prompts",
        [
            {"chosen": exchange("a", "b"), "rejected": exchange("c", "d")},
            SEVERAL | {"chosen": exchange("a", "b"), "rejected": exchange("a", "d")},
        ],
        "1 with two prompts",
        command="preferences",
    ),
    counted("the same pair twice", [PAIR, PAIR, {**PAIR, "prompt": "why?"}], "1 duplicate", 2, "preferences"),
]


def held_out_pairs(folder):
    sources = "sft: {split: train_sft}\n  preferences: {hub: null, revision: null, from: sft, split: test_sft}\n"
    (folder / "study.yaml").write_text(f"data:\n  {sources}")
    return ["config", "study.yaml"]


HELDOUT = [
    Case(
        "preferences made of the held-out split",
        held_out_pairs,
        "study.yaml:3: data.preferences.split: 'test_sft' is held out; name another one",
    ),
    Case(
        "a held-out row whose prompt is trained on",
        partial(held_out, [ROW, OTHER]),
        "out.parquet: 1 rows of split test; passed over: 1 with a prompt of the training split",
        0,
    ),
    Case(
        "held-out rows all of whose prompts are trained on",
        partial(held_out, [ROW, {**ROW, "response": "good day"}]),
        "data: expected 1 rows that fit, found 0 of 2 (2 with a prompt of the training split); choose another split",
    ),
]

READ = [
    counted(
        "prompts in a template that are to stand as they are",
        [{"prompt": "\n\n<Human>:hi\n\n<Assistant>:", "response": "hello"}],
        "none",
        more=["--templates", "{prompt}", "--template", "{prompt}"],
    ),
    counted("answers that look like dates", [{"prompt": "When?", "response": "2024-05-01"}], "none"),
    counted("a row of three megabytes", [{**ROW, "source": "a" * 3_000_000}], "none"),
    counted(
        "content in parts",
        [{"messages": [{"role": role, "content": [{"type": "text", "text": role}]} for role in ("user", "assistant")]}],
        "none",
    ),
    counted("conversations of ShareGPT", [{"conversations": SHAREGPT}], "none"),
    counted("TRL's prompt and completion", [{"prompt": "hi", "completion": "hello"}], "none"),
    counted("TRL's conversations", [{"prompt": exchange()[:1], "completion": exchange()[1:]}], "none"),
    counted("question and answer", [{"question": "hi", "answer": "hello"}], "none"),
    counted("Alpaca's columns", [{"instruction": "Add.", "input": "1 and 2", "output": "3"}], "none"),
    counted("dolly's columns", [{"instruction": "Add.", "context": "1 and 2", "response": "3"}], "none"),
    counted("SPIN's rows as prompts with answers", [{"real": exchange(), "generated": exchange("hi", "no")}], "none"),
    counted(
        "SPIN's rows as preferences",
        [{"real": exchange(), "generated": exchange("hi", "no")}],
        "none",
        command="preferences",
    ),
    counted(
        "transcripts of one exchange",
        [{side: f"\n\nHuman: hi\n\nAssistant: {side}" for side in ("chosen", "rejected")}],
        "none",
        command="preferences",
    ),
    counted(
        "preferences whose prompt is in the conversations",
        [{"chosen": exchange("hi", "good"), "rejected": exchange("hi", "bad")}],
        "none",
        command="preferences",
    ),
    counted(
        "ShareGPT's preferences",
        [{"conversations": SHAREGPT[:1], "chosen": SHAREGPT[1], "rejected": {"from": "gpt", "value": "no"}}],
        "none",
        command="preferences",
    ),
]

CASES = [*REFUSED_FILES, *REFUSED_TABLES, *REFUSED_ROWS, *COUNTED, *HELDOUT, *READ]

test_rows = check_case(CASES)
