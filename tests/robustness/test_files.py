"""Files of the study and of others, read by its programs."""

import gzip
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
from inputs import Case, check_case

from wspin.storage import tables


def no_rows(folder):
    (folder / "source").mkdir()
    return ["fetch", "data", "--path", "source", "--splits", "train", "--state", "state", "--output", "out"]


def jsonl_file(content, *flags):
    """Prepares the import of a file with this content, a text, bytes or rows."""

    def prepare(folder):
        rows = content if isinstance(content, list) else []
        text = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "pairs.jsonl").write_bytes(content if isinstance(content, bytes) else text.encode())
        form = "spin" if rows and "real" in rows[0] else "tis-dpo"
        return ["exchange", "import", "--format", form, "--train", "pairs.jsonl", "--output", "given", *flags]

    return prepare


def parquet_pairs(folder):
    pq.write_table(pa.Table.from_pylist([PAIR]), folder / "pairs.jsonl")
    return ["exchange", "import", "--format", "tis-dpo", "--train", "pairs.jsonl", "--output", "given"]


def imported_twice(folder):
    (folder / "given").mkdir()
    return jsonl_file([PAIR])(folder)


PAIR = {"prompt": "sun", "chosen": "nus", "rejected": "uns"}
TURNS = [{"role": "user", "content": "sun"}, {"role": "assistant", "content": "nus"}]
LINE = json.dumps(PAIR) + "\n"


def study_files(folder, rows=(PAIR,), template="human-assistant", **metadata):
    """A study's rows and the answers to them."""
    ids = [f"train-{i}" for i in range(len(rows))]
    columns = {"prompt": [row["prompt"] for row in rows], "response": [row["chosen"] for row in rows]}
    tables.write(
        folder / "prompts.parquet", "prompts", {"prompt_id": ids, **columns, "split": ["train"] * len(ids)}, {}
    )
    answers = {"response": ["a"] * len(ids), "token_ids": [[66, 0]] * len(ids), "finish_reason": ["stop"] * len(ids)}
    made_with = {"model": "m", "tokenizer": "t", "template": template, **metadata}
    tables.write(folder / "answers.parquet", "generations", {"prompt_id": ids, **answers}, made_with)


def exported(*flags, form="tis-dpo", before=lambda folder: None, **files):
    """Prepares the export of a study's files."""

    def prepare(folder):
        study_files(folder, **files)
        before(folder)
        program = ["exchange", "export", "--format", form, "--rows", "prompts.parquet"]
        return [*program, "--generations", "answers.parquet", "--output", "out.jsonl", *flags]

    return prepare


def answers_given(*rows, limit=8):
    """Prepares generations from a file of answers."""

    def prepare(folder):
        study_files(folder)
        (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        shard = ["--shard", "0", "--shard-size", "9", "--max-new-tokens", str(limit), "--output", "out.parquet"]
        dialogue = ["--template", "human-assistant", "--eos", "<|endoftext|>", "--max-prompt-tokens", "64"]
        dialogue += ["--max-tokens", "96", "--eos-on-cut", "false"]
        model = ["--model", "model", "--manifest", "model.json", "--prompts", "prompts.parquet"]
        return ["generate_given", *model, "--given", "pairs.jsonl", *shard, *dialogue]

    return prepare


SCORE = {
    "shots": 0,
    "version": "1.0",
    "n": 2,
    "prompt_hash": "p",
    "metrics": {"acc,none": 0.5},
    "stderr": {"acc,none": 0.1},
}
SCORES = {"suite": "demo", "engine": "transformers", "dtype": "float32", "autocast": "float32"}
SCORES |= {"token_budget": 64, "batch_size": 8, "seeds": [0, 1, 2, 3], "template": None}
SCORES |= {"versions": {"lm_eval": "0.4.13"}, "tasks": {"spell": SCORE}}


def scored(kind="scores", **changes):
    """Prepares a table of two models; `changes`: a function of the second one's file and its text."""

    def prepare(folder):
        for model in ("a", "b"):
            (folder / f"results/{model}/scores").mkdir(parents=True)
            text = json.dumps({**SCORES, "model": model})
            (folder / f"results/{model}/scores/demo.json").write_text(changes["b"](text) if model == "b" else text)
        models = ["--results", "results", "--models", "a", "b", "--suites", "demo", "--metrics", "spell=acc,none"]
        draws = ["--against", "b=a", "--bootstrap", "9", "--seed", "1", "--confidence", "0.9", "--averages", "out.csv"]
        return ["report", kind, *models, *(draws if kind == "differences" else []), "--output", "out.md"]

    return prepare


def figure(text):
    """Prepares the figure of a table of averages."""

    def prepare(folder):
        (folder / "averages.csv").write_text(text)
        return ["report_figure", "--confidence", "0.9", "--averages", "averages.csv", "--output", "out.svg"]

    return prepare


def rewards(text):
    """Prepares the figure of a training curve."""

    def prepare(folder):
        (folder / "metrics.jsonl").write_text(text)
        return ["report_rewards", "--iterations", "spin/ite0", "--curves", "metrics.jsonl", "--output", "out.svg"]

    return prepare


def example_names(folder):
    study_files(folder)
    opponents = ["--opponents", "sft", "sft", "--answers", "answers.parquet", "answers.parquet"]
    return [
        "report",
        "examples",
        "--prompts",
        "prompts.parquet",
        "--shards",
        "00",
        "--count",
        "1",
        *opponents,
        "--output",
        "out.md",
    ]


def evaluated(
    *shots,
    task="output_type: multiple_choice\ndoc_to_choice: [nus, uns]\ndoc_to_target: 0",
    rows=8,
    split="fewshot_split: test",
    flags=(),
):
    """Prepares the evaluation of a task on rows of fifty characters; the model's context has 128 tokens."""

    def prepare(folder):
        (folder / "tasks").mkdir()
        head = "task: spell\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n"
        (folder / "tasks/spell.yaml").write_text(
            f"{head}doc_to_text: text\n{split}\n{task}\nmetadata: {{version: 1.0}}\n"
        )
        (folder / "tasks/rows.jsonl").write_text(
            "".join(json.dumps({"text": f"{i}" + f" {i}" * 24}) + "\n" for i in range(rows))
        )
        program = ["eval", "--model", "model", "--manifest", "model.json", "--tasks", "tasks", "--suite", "demo"]
        program += ["--engine", "transformers", "--autocast", "float32", "--token-budget", "64"]
        program += ["--batch-size", "8", "--seeds", "0", "1", "2", "3", *flags]
        program += ["--template", "human-assistant", "--eos", "<|endoftext|>", "--shots", *shots]
        return [*program, "--scores", "out.json", "--samples", "out.parquet", "--state", "state"]

    return prepare


CASES = [
    Case(
        "a data set's folder without its splits",
        no_rows,
        "source: expected train.parquet or train.jsonl, found nothing; convert the split to one of these, or correct its name",
    ),
    Case(
        "an import of gzip data",
        jsonl_file(gzip.compress(LINE.encode())),
        "pairs.jsonl: expected JSON lines as text, found gzip data; unpack or convert it, for example "
        "by the method to_json of datasets",
    ),
    Case(
        "an import of parquet",
        parquet_pairs,
        "pairs.jsonl: expected JSON lines as text, found parquet; unpack or convert it, for example by "
        "the method to_json of datasets",
    ),
    Case(
        "an import of a zip archive",
        jsonl_file(b"PK\x03\x04" + bytes(20)),
        "pairs.jsonl: expected JSON lines as text, found a zip archive; unpack or convert it, for "
        "example by the method to_json of datasets",
    ),
    Case(
        "an import of UTF-16",
        jsonl_file(LINE.encode("utf-16")),
        "pairs.jsonl: expected JSON lines as text, found UTF-16; unpack or convert it, for example by "
        "the method to_json of datasets",
    ),
    Case(
        "an import of a JSON array on one line",
        jsonl_file(json.dumps([PAIR, PAIR])),
        "pairs.jsonl:1: expected a JSON object, found a list; write every row as an object on its own line",
    ),
    Case(
        "an import of a JSON array over several lines",
        jsonl_file(json.dumps([PAIR, PAIR], indent=1)),
        "pairs.jsonl:1: expected a JSON object on one line, found Expecting value: line 2 column 1 "
        "(char 2); correct the line, or copy the file again",
    ),
    Case(
        "an import with 100,000 brackets inside each other",
        jsonl_file(LINE + "[" * 100_000),
        "pairs.jsonl:2: expected a JSON object on one line, found brackets inside each other "
        "without end; correct the line, or copy the file again",
    ),
    Case(
        "an import with bytes that are not UTF-8",
        jsonl_file(LINE.encode() + b'{"prompt": "s\xfcn"}\n'),
        "pairs.jsonl:2: expected a JSON object on one line, found 'utf-8' codec can't decode byte 0xfc "
        "in position 13: invalid start byte; correct the line, or copy the file again",
    ),
    Case(
        "an import whose last line is incomplete",
        jsonl_file(LINE + LINE[:30]),
        "pairs.jsonl:2: expected a JSON object on one line, found Unterminated string starting at: line "
        "1 column 29 (char 28); correct the line, or copy the file again",
    ),
    Case("an import of an empty file", jsonl_file(""), "pairs.jsonl: expected pairs, found none; copy the file again"),
    Case(
        "an import of other columns",
        jsonl_file([{"question": "sun", "answer": "nus"}]),
        "pairs.jsonl:1: expected the keys prompt, chosen, rejected (tis-dpo) or real, generated (spin), "
        "found question, answer; rename the columns",
    ),
    Case(
        "an import without an answer",
        jsonl_file([PAIR | {"rejected": None}]),
        "pairs.jsonl:1: rejected: expected a text, found nothing; correct or remove the row",
    ),
    Case(
        "an import of a list of answers",
        jsonl_file([PAIR | {"rejected": ["uns"]}]),
        'pairs.jsonl:1: rejected: expected a text, found ["uns"]; correct or remove the row',
    ),
    Case(
        "an import with half a surrogate pair",
        jsonl_file([PAIR | {"chosen": "\ud800"}]),
        "pairs.jsonl:1: chosen: expected Unicode text, found a lone surrogate (\\ud800 to \\udfff); remove it",
    ),
    Case(
        "an import with weights of one side",
        jsonl_file([PAIR | {"chosen_weight": [1.0]}]),
        "pairs.jsonl:1: rejected_weight: expected a list of weights as on the other side, found none; give both or neither",
    ),
    Case(
        "an import with a weight that is not finite",
        jsonl_file([PAIR | {"chosen_weight": [math.inf], "rejected_weight": [1]}]),
        "pairs.jsonl:1: chosen_weight: expected finite 32-bit numbers, found [Infinity]; correct the row",
    ),
    Case(
        "an import of SPIN's rows with two turns",
        jsonl_file([{"real": TURNS * 2, "generated": TURNS}]),
        'pairs.jsonl:1: real: expected a user\'s and an assistant\'s message, found [{"role": "user", '
        '"content": "sun"}, {"role": "assistant"...; correct or remove the row',
    ),
    Case(
        "an import of SPIN's rows with two prompts",
        jsonl_file([{"real": TURNS, "generated": [{"role": "user", "content": "moon"}, TURNS[1]]}]),
        'pairs.jsonl:1: generated: expected the user\'s message of real, found "moon"; correct or remove the row',
    ),
    Case(
        "an import of prompts in a template",
        jsonl_file([PAIR, PAIR | {"prompt": "Human: sun\n\nAssistant:"}]),
        "pairs.jsonl:2: prompt: expected texts without a template, found one in 1 of 2 rows; remove it, "
        'or add --rendered and set dialogue.template to "{prompt}"',
    ),
    Case(
        "an import of prompts in a template, meant so",
        jsonl_file([PAIR | {"prompt": "Human: sun\n\nAssistant:"}], "--rendered"),
        "train: 1 pairs; 0 duplicates dropped; 1 prompts in a template",
        code=0,
    ),
    Case(
        "an import of answers that end in the text of EOS",
        jsonl_file([PAIR | {"chosen": "nus</s>", "rejected": "uns</s>"}]),
        "pairs.jsonl:1: chosen: expected answers without the text of EOS, found </s> at the end of 2 of "
        "2; add --eos '</s>', which removes it: each gets its end later",
    ),
    Case(
        "an import of such answers with the EOS named",
        jsonl_file([PAIR | {"chosen": "nus</s>", "rejected": "uns</s>"}], "--eos", "</s>"),
        "train: 1 pairs; 0 duplicates dropped; </s> removed from 2 answers",
        code=0,
    ),
    Case("an import of equal pairs", jsonl_file([PAIR, PAIR]), "train: 1 pairs; 1 duplicates dropped", code=0),
    Case(
        "an import into a folder that exists",
        imported_twice,
        "given: expected nothing of that name, found it; name another, nothing is replaced",
    ),
    Case(
        "an export over a file",
        exported(before=lambda folder: (folder / "out.jsonl").write_text("mine")),
        "out.jsonl: expected nothing of that name, found it; name another, nothing is replaced",
    ),
    Case(
        "an export of weights in SPIN's format",
        exported("--weights", "weights.parquet", form="spin"),
        "export: --weights: SPIN's rows hold no weights; leave them out, or use --format tis-dpo",
    ),
    Case(
        "an export without a shard of the answers",
        exported(
            before=lambda folder: (
                study_files(folder, [PAIR])
                or tables.write(
                    folder / "prompts.parquet",
                    "prompts",
                    {"prompt_id": ["a", "b"], "prompt": ["x", "y"], "response": ["x", "y"], "split": ["t", "t"]},
                    {},
                )
            )
        ),
        "answers.parquet: expected the 2 rows of prompts.parquet, found 1; they differ in row 0",
    ),
    Case(
        "an export with the template of a model that did not answer",
        exported("--rendered", "model"),
        "model: expected the model that generated answers.parquet, found one with another tokenizer; name its folder",
    ),
    Case(
        "given answers without one of the study's prompts",
        answers_given(PAIR | {"prompt": "moon"}),
        'pairs.jsonl: expected prompt "sun" with its real answer "nus", found no such row; the study\'s '
        "rows and this file must come from one source",
    ),
    Case(
        "given answers with a prompt twice",
        answers_given(PAIR, PAIR),
        "pairs.jsonl:2: expected a prompt with its real answer once, found it in line 1 too; remove "
        "one, or import the file",
    ),
    Case(
        "a given answer that is too long",
        answers_given(PAIR | {"rejected": "a long answer"}),
        "pairs.jsonl:1: rejected: expected 1 to 8 tokens (generate.max_new_tokens), found 14; raise the "
        "limit, or replace the answer",
    ),
    Case(
        "a given answer with other token ids",
        answers_given(PAIR | {"token_ids": [1, 2, 0]}),
        "pairs.jsonl:1: token_ids: expected ids that spell the answer's text and end, found others; leave them out",
    ),
    Case(
        "a given answer with an id beyond the model's vocabulary",
        answers_given(PAIR | {"token_ids": [270, 0]}),
        "pairs.jsonl:1: token_ids: expected ids that spell the answer's text and end, found others; leave them out",
    ),
    Case(
        "a score file that is incomplete",
        scored(b=lambda text: text[:-40]),
        "results/b/scores/demo.json: expected scores, found no JSON (Unterminated string starting at: line 1 "
        "column 309 (char 308)); evaluate the model again",
    ),
    Case(
        "a score file of another version of lm-eval",
        scored(b=lambda text: text.replace("0.4.13", "0.4.9")),
        "results/b/scores/demo.json: versions (of engine transformers): expected {'lm_eval': '0.4.13'} as in "
        "results/a/scores/demo.json, found {'lm_eval': '0.4.9'}; scores made in different ways do not "
        "compare: evaluate one of the two again",
    ),
    Case(
        "a score file of another version of a task",
        scored(b=lambda text: text.replace('"1.0"', '"2.0"')),
        "results/b/scores/demo.json: tasks.spell.version: expected '1.0' as in "
        "results/a/scores/demo.json, found '2.0'; scores made in different ways do not compare: "
        "evaluate one of the two again",
    ),
    Case(
        "a score that is not finite",
        scored(b=lambda text: text.replace("0.5", "NaN")),
        "results/b/scores/demo.json: tasks.spell.metrics.acc,none: expected a finite number, "
        "found nan; evaluate the model again",
    ),
    Case(
        "a score beyond 1",
        scored(b=lambda text: text.replace("0.5", "50.0")),
        "results/b/scores/demo.json: tasks.spell.metrics.acc,none: expected a fraction, found 50.0; choose another",
    ),
    Case(
        "a score file of another suite",
        scored(b=lambda text: text.replace('"demo"', '"arc"')),
        "results/b/scores/demo.json: suite: expected 'demo', found 'arc'; evaluate the model again",
    ),
    Case(
        "scores without the samples behind them",
        scored("differences", b=lambda text: text),
        "results/a/scores/demo.samples.parquet: expected the samples of results/a/scores/demo.json, "
        "found no file; evaluate again",
    ),
    Case(
        "a table of averages with a value that is not finite",
        figure("model,arm,iteration,average,low,high\nsft,,,0.5,nan,0.6\n"),
        "averages.csv: row 1: low: expected a finite number, found 'nan'; make the table again",
    ),
    Case(
        "an empty table of averages",
        figure(""),
        "averages.csv: header: expected model,arm,iteration,average,low,high and rows below it, found "
        "nothing and 0; make it again",
    ),
    Case(
        "a training curve without margins",
        rewards('{"step": 1, "loss": 0.7}\n'),
        "metrics.jsonl: line 1: rewards/margin: missing key; nothing is defaulted silently; train the model again",
    ),
    Case(
        "two opponents of one name on the page of examples",
        example_names,
        "--opponents: expected a name of its own for every file of answers, found 2 names (sft, sft) for 2 files",
    ),
    Case(
        "few-shot prompts longer than the context",
        evaluated("spell=7"),
        "eval.suites.demo: spell: expected requests of at most 128 tokens, the model's context, found "
        "16 of 16 longer, up to 422 with 7 shots; give fewer shots, or set eval.too_long to cut, which "
        "keeps the end of each and counts them in the scores",
    ),
    Case(
        "answers longer than the context",
        evaluated(
            "spell=0",
            task="output_type: generate_until\ndoc_to_target: text\ngeneration_kwargs: {max_gen_toks: 128}",
            flags=["--cut"],
        ),
        "eval.suites.demo: spell: expected requests of at most 128 tokens, the model's context, found 8 "
        "of 8 that leave no room for a prompt, up to 129 tokens without it; leave the task out, or "
        "lower its max_gen_toks",
    ),
    Case(
        "more shots than the task has other documents",
        evaluated("spell=8"),
        "eval.suites.demo: spell: expected documents that make requests with 8 shots, found ValueError: "
        "Sample larger than population or is negative; correct the task, its data or its shots",
    ),
    Case(
        "a task whose data has no document",
        evaluated("spell=0", rows=0),
        "tasks: expected the data of spell, found StopIteration: StopIteration; correct "
        "eval.sources.demo or fetch it again",
    ),
    Case(
        "examples from the documents that are evaluated",
        evaluated("spell=2", split="target_delimiter: ''"),
        "eval.suites.demo: spell: expected examples of other documents, found 2 shots of the split "
        "test, which is evaluated: a prompt could hold its own answer; set fewshot_split in the task",
    ),
    Case(
        "a choice without a token",
        evaluated(
            "spell=0",
            task='output_type: multiple_choice\ndoc_to_choice: \'{{["nus", "" if text[0] == "3" else "uns"]}}\'\ndoc_to_target: 0\ntarget_delimiter: \'\'',
        ),
        "spell, document 3: expected an answer of a token or more, found ''; correct the task or its data",
    ),
]

test_files = check_case(CASES)
