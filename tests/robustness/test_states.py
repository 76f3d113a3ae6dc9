"""Stored files that are cut off, damaged or of another form: refused, or dropped with a line where work is repeated."""

import json
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from inputs import ROOT, Case, check_case, run
from results import SCORES, study

from wspin.storage import files, provenance, tables

ROWS = {"prompt_id": ["t-0", "t-1"], "prompt": ["a", "b"], "response": ["c", "d"], "split": ["train"] * 2}
GENERATE = [
    *("--model", "model", "--manifest", "model.json", "--prompts", "prompts.parquet", "--state", "state/generate"),
    *("--shard", "0", "--shard-size", "2", "--seed", "1", "0", "--engine", "transformers", "--temperature", "1.0"),
    *("--top-p", "1.0", "--max-new-tokens", "4", "--batch-size", "2", "--template", "human-assistant"),
    *("--eos", "<|endoftext|>", "--max-prompt-tokens", "64", "--max-tokens", "96", "--eos-on-cut", "false"),
]
LIMITS = [
    *("--fits", "start/model", "--templates", "human-assistant", "--template", "human-assistant", "--seed", "1"),
    *("--eos", "<|endoftext|>", "--max-prompt-tokens", "64", "--max-tokens", "96", "--eos-on-cut", "false"),
]
METRICS = ["--metrics", "spell_backward=exact_match,none", "spell_backward_choice=acc,none"]
RECORD = "results/spin/ite0/model/provenance.json"
DAMAGED = "expected the bytes of its checksum, found others: it is damaged or cut off"


# Damage


def nothing(path):
    pass


def flip(position, path):
    """Change one bit of the byte at a position, counted from the end if negative."""
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def text(content, path):
    path.write_text(content)


def entries(changes, path):
    """Change entries of a JSON object, which then holds no checksum; None removes one."""
    value = json.loads(path.read_text()) | {"checksum": None} | changes
    path.write_text(json.dumps({key: entry for key, entry in value.items() if entry is not None}))


def metadata(content, path):
    pq.write_table(pq.read_table(path).replace_schema_metadata({"wspin": content}), path)


# Programs that read the damaged file


def generate(name, damage, folder):
    """`generate` with a damaged file: of the model, its manifest, or the prompts."""
    tables.write("prompts.parquet", "prompts", ROWS, {})
    damage(folder / name)
    return ["generate", *GENERATE, "--output", "00.parquet"]


def kept_answers(damage, folder):
    """`generate` again, after its output could not be written and its kept answers were damaged."""
    (folder / "blocked").touch()
    code, _, errors = run("generate", [*generate("model.json", nothing, folder)[1:-1], "blocked/00.parquet"])
    assert code == 1, errors
    (answers,) = folder.glob("state/generate/*/answers.jsonl")
    damage(answers)
    return ["generate", *GENERATE, "--output", "00.parquet"]


def record(command, damage, folder):
    """A command of `manage` on the results of one model, whose record is damaged."""
    study(ROOT, Path("results"))
    (folder / "results/spin/ite0/model").mkdir(parents=True)
    entry = {"program": "train", "code": "c0de", "command": ["train.py"], "started": "2026-01-01", "seconds": 7.0}
    provenance.write_record(folder / "results/spin/ite0/model", entry | {"cpu_seconds": 1.0, "peak_memory_mb": 1})
    damage(folder / RECORD)
    return ["manage", command, "--results", "results"]


def scores(damage, folder):
    path = folder / "results/sft/scores/demo.json"
    files.write_checked_json(path, {**SCORES, "model": "aa"})
    damage(path)
    flags = ["--results", "results", "--models", "sft", "--suites", "demo", *METRICS]
    return ["report", "scores", *flags, "--output", "scores.csv"]


def averages(damage, folder):
    path = folder / "averages.csv"
    path.write_text("model,arm,iteration,average,low,high\nspin/ite0,spin,0,0.5,0.4,0.6\n")
    provenance.write_record(path, {"program": "report", "code": "c0de", "sha256": files.sha256(path)})
    damage(path)
    return ["report_figure", "--averages", "averages.csv", "--confidence", "0.95", "--output", "averages.svg"]


def split(damage, folder):
    """`data prompts` of a fetched data set."""
    (folder / "source").mkdir()
    tables.write_parquet("source/train.parquet", pa.table({"prompt": ["a"], "response": ["b"]}))
    damage(folder / "source/train.parquet")
    return data_prompts(folder)


def fits(name, damage, folder):
    """`data prompts`, for a model in the form of a study: its manifest beside its folder."""
    split(nothing, folder)
    (folder / "start").mkdir()
    (folder / "model").rename("start/model")
    (folder / "model.json").rename("start/manifest.json")
    damage(folder / "start" / name)
    return data_prompts(folder)


def data_prompts(folder):
    flags = ["--source", "source", "--split", "train", "--rows", "1", "--max-new-tokens", "8", *LIMITS]
    if not (folder / "start").exists():
        flags[flags.index("start/model")] = "model"
    return ["data", "prompts", *flags, "--output", "out.parquet", "--output-digest", "out.json"]


def tasks(damage, folder):
    """`eval` on a suite whose fetched files are damaged."""
    (folder / "tasks/demo").mkdir(parents=True)
    (folder / "tasks/demo/demo.yaml").write_text("task: demo\n")
    files.write_digests("tasks/demo", "tasks/demo.json")
    damage(folder / "tasks/demo/demo.yaml")
    flags = ["--model", "model", "--manifest", "model.json", "--tasks", "tasks/demo", "--suite", "demo"]
    flags += ["--shots", "demo=0", "--engine", "transformers", "--autocast", "float32", "--token-budget", "64"]
    flags += ["--batch-size", "1", "--seeds", "0", "0", "0", "0"]
    flags += ["--template", "human-assistant", "--eos", "<|endoftext|>", "--scores", "demo.json"]
    return ["eval", *flags, "--samples", "demo.samples.parquet", "--state", "state/eval"]


MANIFEST, PROMPTS = partial(generate, "model.json"), partial(generate, "prompts.parquet")
STALE, COST = partial(record, "stale"), partial(record, "cost")

CASES = [
    Case(
        "weights with a changed bit",
        partial(generate, "model/model.safetensors", partial(flip, -9)),
        "model/model.safetensors: expected the file of model.json, found another: it is damaged or changed; make the model again",
    ),
    Case(
        "a tokenizer with a changed bit",
        partial(generate, "model/tokenizer.json", partial(flip, 300)),
        "model/tokenizer.json: expected the file of model.json, found another: it is damaged or changed; make the model again",
    ),
    Case(
        "a model's config.json, edited",
        partial(generate, "model/config.json", partial(entries, {"a": 1})),
        "model/config.json: expected the file of model.json, found another: it is damaged or changed; make the model again",
    ),
    Case(
        "weights that are cut off",
        partial(generate, "model/model.safetensors", cut),
        "model/model.safetensors: expected the file of model.json, found another: it is damaged or changed; make the model again",
    ),
    Case(
        "a model without a file of its manifest",
        partial(generate, "model/tokenizer_config.json", lambda path: path.unlink()),
        "model: expected the 5 files of model.json, found no file tokenizer_config.json; make the model again",
    ),
    Case(
        "a model with a file that its manifest lacks",
        partial(generate, "model/chat_template.jinja", partial(text, "{{ messages }}")),
        "model: expected the 5 files of model.json, found another file chat_template.jinja; make the model again",
    ),
    Case(
        "a data set for a model with a changed tokenizer",
        partial(fits, "model/tokenizer.json", partial(flip, 300)),
        "start/model/tokenizer.json: expected the file of start/manifest.json, found another: it is damaged or changed; make the model again",
    ),
    Case(
        "no manifest",
        partial(MANIFEST, lambda path: path.unlink()),
        "model.json: expected a model's manifest, found no file; make the model again",
    ),
    Case(
        "an empty manifest",
        partial(MANIFEST, partial(text, "")),
        "model.json: expected a model's manifest, found no JSON (Expecting value: line 1 column 1 (char 0)); make the model again",
    ),
    Case(
        "a manifest that is cut off",
        partial(MANIFEST, cut),
        "model.json: expected a model's manifest, found no JSON (Unterminated string starting at: line 9 column 12 (char 495)); make the model again",
    ),
    Case(
        "a manifest that is a list",
        partial(MANIFEST, partial(text, "[]")),
        "model.json: expected a model's manifest, found a JSON list; make the model again",
    ),
    Case(
        "a manifest without hashes",
        partial(MANIFEST, partial(entries, {"files": None})),
        "model.json: model: expected the fingerprint of the manifest's files, found another or none: it is damaged; make the model again",
    ),
    Case(
        "a manifest with a list of files",
        partial(MANIFEST, partial(entries, {"files": ["config.json"]})),
        "model.json: model: expected the fingerprint of the manifest's files, found another or none: it is damaged; make the model again",
    ),
    Case(
        "a manifest with a changed hash",
        partial(MANIFEST, partial(flip, 60)),
        "model.json: model: expected the fingerprint of the manifest's files, found another or none: it is damaged; make the model again",
    ),
    Case(
        "a table with a changed bit in a page",
        partial(PROMPTS, partial(flip, 40)),
        f"prompts.parquet: {DAMAGED}; delete it and run again",
    ),
    Case(
        "a table with a changed bit in its footer",
        partial(PROMPTS, partial(flip, -40)),
        f"prompts.parquet: {DAMAGED}; delete it and run again",
    ),
    Case("a table that is cut off", partial(PROMPTS, cut), f"prompts.parquet: {DAMAGED}; delete it and run again"),
    Case(
        "an empty table",
        partial(PROMPTS, partial(text, "")),
        "prompts.parquet: expected a parquet file, found Parquet file size is 0 bytes; delete it and run again",
    ),
    Case(
        "text in place of a table",
        partial(PROMPTS, partial(text, "a,b\n1,2\n")),
        "prompts.parquet: expected a parquet file, found Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file.; delete it and run again",
    ),
    Case(
        "a table whose metadata is a list",
        partial(PROMPTS, partial(metadata, "[]")),
        "prompts.parquet: metadata: expected a JSON object under `wspin`, found []; delete it and run again",
    ),
    Case(
        "a table whose metadata is cut off",
        partial(PROMPTS, partial(metadata, '{"format": 1')),
        "prompts.parquet: metadata: expected a JSON object under `wspin`, found Expecting ',' delimiter: line 1 column 13 (char 12); delete it and run again",
    ),
    Case(
        "a table of another kind",
        partial(PROMPTS, partial(metadata, '{"format": 1, "kind": "weights"}')),
        "prompts.parquet: kind: expected 'prompts', found 'weights'; it comes from other inputs or settings",
    ),
    Case(
        "a fetched split with a changed bit",
        partial(split, partial(flip, 60)),
        f"source/train.parquet: {DAMAGED}; fetch the data set again",
    ),
    Case(
        "fetched task files with a changed bit",
        partial(tasks, partial(flip, 3)),
        "tasks/demo/demo.yaml: expected the file of tasks/demo.json, found another: it is damaged or changed; fetch it again",
    ),
    Case(
        "fetched tasks without a file",
        partial(tasks, lambda path: path.unlink()),
        "tasks/demo/demo.yaml: expected the file of tasks/demo.json, found none; fetch it again",
    ),
    Case(
        "scores with a changed bit",
        partial(scores, partial(flip, 300)),
        f"results/sft/scores/demo.json: {DAMAGED}; evaluate the model again",
    ),
    Case(
        "scores that are cut off",
        partial(scores, cut),
        f"results/sft/scores/demo.json: {DAMAGED}; evaluate the model again",
    ),
    Case(
        "an empty file of scores",
        partial(scores, partial(text, "")),
        "results/sft/scores/demo.json: expected scores, found no JSON (Expecting value: line 1 column 1 (char 0)); evaluate the model again",
    ),
    Case(
        "scores that are a list",
        partial(scores, partial(text, "[]")),
        "results/sft/scores/demo.json: expected scores, found a JSON list; evaluate the model again",
    ),
    Case(
        "a table of averages with a changed digit",
        partial(averages, partial(flip, -5)),
        "averages.csv: expected the bytes of its record, found others: it is damaged; make it again",
    ),
    Case(
        "kept answers: a line that is cut off",
        partial(kept_answers, cut),
        "generate: 1 of 2 kept answers are damaged and sampled again",
        code=0,
    ),
    Case(
        "kept answers: a changed bit",
        partial(kept_answers, partial(flip, 30)),
        "generate: 1 of 2 kept answers are damaged and sampled again",
        code=0,
    ),
    Case(
        "kept answers: zeros, as a crash may leave",
        partial(kept_answers, partial(text, "\0" * 99)),
        "generate: 1 of 1 kept answers are damaged and sampled again",
        code=0,
    ),
    Case(
        "`stale`: a record that is cut off", partial(STALE, cut), f"{RECORD}: {DAMAGED}; make the result again", code=0
    ),
    Case(
        "`stale`: an empty record",
        partial(STALE, partial(text, "")),
        f"{RECORD}: expected a record, found no JSON (Expecting value: line 1 column 1 (char 0)); make the result again",
        code=0,
    ),
    Case(
        "`stale`: a record that is a list",
        partial(STALE, partial(text, "[]")),
        f"{RECORD}: expected a record, found a JSON list; make the result again",
        code=0,
    ),
    Case(
        "`stale`: a record without its program",
        partial(STALE, partial(entries, {"program": None})),
        f"{RECORD}: expected the entries of a record, found no program; make the result again",
        code=0,
    ),
    Case(
        "`stale`: a record whose program is a number",
        partial(STALE, partial(entries, {"program": 1})),
        f"{RECORD}: program: expected a text, found 1; make the result again",
        code=0,
    ),
    Case(
        "`cost`: a record that is cut off",
        partial(COST, cut),
        f"Not counted: {RECORD}: {DAMAGED}; make the result again",
        code=0,
    ),
    Case(
        "`cost`: a record whose time is text",
        partial(COST, partial(entries, {"seconds": "7"})),
        f"Not counted: {RECORD}: seconds: expected a number, found '7'; make the result again",
        code=0,
    ),
    Case(
        "`cost`: a record without its start",
        partial(COST, partial(entries, {"started": None})),
        f"Not counted: {RECORD}: expected the entries of a record, found no started; make the result again",
        code=0,
    ),
]

test_states = check_case(CASES)
