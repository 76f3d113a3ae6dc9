"""Configuration files: one line for each mistake, with its file and line."""

from functools import partial

from inputs import Case, check_case

LOSSES = "'sft', 'dpo', 'spin', 'hinge', 'ipo', 'tdpo1', 'tdpo2' or 'wspin'"


def overlay(text, arguments, encoding, folder):
    (folder / "study.yaml").write_bytes(text.encode(encoding))
    return ["config", "study.yaml", *arguments]


def written(text, *arguments, encoding="utf-8"):
    """Prepares an overlay with this text; further arguments are those of Snakemake."""
    return partial(overlay, text, arguments, encoding)


def given(*arguments):
    """Prepares no overlay, but arguments."""
    return lambda folder: ["config", *arguments]


CASES = [
    Case(
        "an overlay indented with a tab",
        written("train:\n\tbeta: 0.2\n"),
        "study.yaml:2: expected blanks, found a tab; indent with blanks",
    ),
    Case(
        "an overlay with a NUL byte",
        written("seed: 1\n\x00"),
        "study.yaml:2: expected text, found the control character '\\x00'; save it as UTF-8",
    ),
    Case(
        "an overlay in UTF-16, as Windows PowerShell writes it",
        written("seed: 1\n", encoding="utf-16"),
        "study.yaml: expected UTF-8, found UTF-16; save the file as UTF-8",
    ),
    Case(
        "an overlay in Latin-1",
        written("# café\nseed: 1\n", encoding="latin-1"),
        "study.yaml:1: expected UTF-8, found the byte 0xe9; save the file as UTF-8",
    ),
    Case("an overlay in UTF-8 with a byte order mark", written("seed: 1\n", encoding="utf-8-sig"), "valid", code=0),
    Case(
        "an overlay of two documents",
        written("seed: 1\n---\nseed: 2\n"),
        "study.yaml:2: expected one document, found a second behind `---`; write it into a file of its own",
    ),
    Case(
        "an empty overlay",
        written("# to be written\n"),
        "study.yaml: expected keys with values, found an empty file; remove it from the command line",
    ),
    Case(
        "an overlay that does not exist",
        given("overlays/mine.yaml"),
        "overlays/mine.yaml: expected a configuration file, found none; correct its path",
    ),
    Case(
        "a folder as overlay",
        given("config"),
        "config: expected a configuration file, found a folder; name a file in it",
    ),
    Case(
        "an overlay that is a list",
        written("- seed: 1\n"),
        "study.yaml:1: expected `key: value`, found a list; remove the dashes",
    ),
    Case(
        "no blank behind a colon",
        written("seed:1\n"),
        "study.yaml:1: expected `key: value`, found 'seed:1'; a blank must follow the colon",
    ),
    Case("an INI file as overlay", written("seed = 3\n"), "study.yaml:1: expected `key: value`, found 'seed = 3'"),
    Case(
        "an odd indentation",
        written("train:\n  beta: 0.2\n epochs: 1\n"),
        "study.yaml:3: expected YAML: expected <block end>, but found '<block mapping start>' (while parsing a block mapping, from line 1); check colons, quotes, brackets and indentation here",
    ),
    Case(
        "a brace that is not closed",
        written("arms: {mine: {train: {beta: 0.2}}\n"),
        "study.yaml:2: expected YAML: expected ',' or '}', but got '<stream end>' (while parsing a flow mapping, from line 1); check colons, quotes, brackets and indentation here",
    ),
    Case(
        "a quote that is not closed",
        written('dialogue: {eos: "<|end|>}\n'),
        "study.yaml:2: expected YAML: found unexpected end of stream (while scanning a quoted scalar, from line 1); check colons, quotes, brackets and indentation here",
    ),
    Case(
        "an alias without anchor, merged",
        written("train:\n  <<: *defaults\n  beta: 0.2\n"),
        "study.yaml:2: expected an anchor `&defaults` above, found none; write it, or quote a text that begins with `*`",
    ),
    Case(
        "a merge key with a number",
        written("train: {<<: 5}\n"),
        "study.yaml:1: `<<` takes the keys of another section: expected a mapping or list of mappings for merging, but found scalar; give `<<: *anchor`",
    ),
    Case(
        "aliases that multiply (billion laughs)",
        written(
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                (f"{b}: &{b} [{', '.join(9 * ['*' + a])}]\n" for a, b in ("ab", "bc", "cd", "de", "ef", "fg", "gh"))
            )
        ),
        "study.yaml:1: expected at most 20000 keys and values, found 5.45e+07 behind aliases; write them out",
    ),
    Case(
        "an alias inside its own anchor",
        written("arms: &arms {mine: *arms}\n"),
        "study.yaml:1: expected at most 20000 keys and values, found no end of them behind aliases; write them out",
    ),
    Case(
        "hundreds of nested brackets",
        written("seed: " + "[" * 2000 + "\n"),
        "study.yaml: expected sections a few levels deep, found brackets nested without end",
    ),
    Case(
        "a key given twice",
        written("train:\n  beta: 0.1\n  epochs: 1\n  beta: 0.2\n"),
        "study.yaml:4: train.beta: the key is given twice; remove one of them",
    ),
    Case(
        "a section given twice",
        written("train: {beta: 0.1}\nseed: 1\ntrain: {epochs: 1}\n"),
        "study.yaml:3: train: the key is given twice; remove one of them",
    ),
    Case(
        "a Python object",
        written("seed: !!python/object/apply:os.system [ls]\n"),
        "study.yaml:1: seed: expected plain values, found the tag !!python/object/apply:os.system; remove it",
    ),
    Case(
        "a tag of another program",
        written("seed: !env SEED\n"),
        "study.yaml:1: seed: expected plain values, found the tag !env; remove it",
    ),
    Case(
        "an arm called `no`",
        written("arms: {no: {}}\n"),
        "study.yaml:1: arms.no: expected a name, found `no`, which YAML reads as a truth value; quote it",
    ),
    Case(
        "an arm called by a number",
        written("arms: {1: {}}\n"),
        "study.yaml:1: arms.1: expected a name, found `1`, which YAML reads as a number; quote it, or write decimals with a point",
    ),
    Case(
        "a decimal comma in braces",
        written("train: {beta: 0,1}\n"),
        "study.yaml:1: train.1: expected a name, found `1`, which YAML reads as a number; quote it, or write decimals with a point",
    ),
    Case(
        "a number with a leading zero",
        written("seed: 010\n"),
        "study.yaml:1: seed: found 010, which YAML reads in base 8; remove the leading zero, or quote text",
    ),
    Case(
        "minutes as hours and minutes",
        written("resources: {train: {runtime: 12:30}}\n"),
        "study.yaml:1: resources.train.runtime: found 12:30, which YAML reads in base 60; write one number, or quote text",
    ),
    Case(
        "a date as text",
        written("models: {base: {license: 2024-01-01}}\n"),
        "study.yaml:1: models.base.license: found 2024-01-01, which YAML reads as a date; quote it",
    ),
    Case("`1e-7` without a point, text to YAML 1.1", written("train: {learning_rate: 1e-7}\n"), "valid", code=0),
    Case(
        "a key without a value",
        written("train:\n  beta:\n"),
        "study.yaml:2: train.beta: missing key; needed by loss dpo, spin, hinge, ipo, tdpo1, tdpo2, wspin, and nothing is "
        "defaulted silently",
    ),
    Case(
        "an arm without a value",
        written("arms:\n  mine:\n"),
        "study.yaml:2: arms.mine: null deletes an inherited key, and none is inherited; remove the line, or give a value or {}",
    ),
    Case(
        "a required key set to null",
        written("seed: null\n"),
        "study.yaml:1: seed: missing key; nothing is defaulted silently",
    ),
    Case(
        "a required section set to null",
        written("generate: null\n"),
        "study.yaml:1: generate: missing key; nothing is defaulted silently",
    ),
    Case(
        "all arms deleted",
        written("arms: {spin: null, wspin: null, wspin.paper: null}\n"),
        "study.yaml:1: arms: expected 1 or more entries, found {}",
    ),
    Case(
        "null in a list",
        written("data: {fits: [base, null]}\n"),
        "study.yaml:1: data.fits.1: expected text, found null; remove it",
    ),
    Case(
        "a section as a list",
        written("train: [beta, 0.2]\n"),
        "study.yaml:1: train: expected a section, `key: value`, found ['beta', 0.2]; write `beta: ...` without the dash or brackets",
    ),
    Case(
        "arms as a list of names",
        written("arms: [spin, wspin]\n"),
        "study.yaml:1: arms: expected a section, `key: value`, found ['spin', 'wspin']; write `spin: ...` without the dash or brackets",
    ),
    Case(
        "a word in place of a schedule",
        written("train: {schedule: linear}\n"),
        "study.yaml:1: train.schedule: expected a section, `key: value`, found 'linear'",
    ),
    Case(
        "a model as a name, without its section",
        written("models: {base: Qwen/Qwen1.5-4B}\n"),
        "study.yaml:1: models.base: expected a section, `key: value`, found 'Qwen/Qwen1.5-4B'",
    ),
    Case(
        "a loss in brackets",
        written("train: {loss: [spin]}\n"),
        f"study.yaml:1: train.loss: expected {LOSSES}, found ['spin']; did you mean 'spin'?",
    ),
    Case(
        "an arm's loss in brackets",
        written("arms: {mine: {train: {loss: [spin]}}}\n"),
        f"study.yaml:1: arms.mine.train.loss: expected {LOSSES}, found ['spin']; did you mean 'spin'?",
    ),
    Case(
        "an unknown loss",
        written("arms: {mine: {train: {loss: kto}}}\n"),
        f"study.yaml:1: arms.mine.train.loss: expected {LOSSES}, found 'kto'",
    ),
    Case("a seed below 0", written("seed: -1\n"), "study.yaml:1: seed: expected a number of at least 0, found -1"),
    Case(
        "an arm's seed above 32 bits",
        written("arms: {mine: {seed: 4294967296}}\n"),
        "study.yaml:1: arms.mine.seed: expected a number of at most 4294967295, found 4294967296",
    ),
    Case(
        "a seed of 50 digits",
        written("seed: " + "1234567890" * 5 + "\n"),
        "study.yaml:1: seed: expected a number, found one of 50 digits",
    ),
    Case(
        "a truth value as a number",
        written("train: {epochs: true}\n"),
        "study.yaml:1: train.epochs: expected a number, found true",
    ),
    Case("infinity", written("train: {beta: .inf}\n"), "study.yaml:1: train.beta: expected a finite number, found inf"),
    Case(
        "a number beyond float64",
        written("train: {learning_rate: 1e400}\n"),
        "study.yaml:1: train.learning_rate: expected a finite number, found '1e400'",
    ),
    Case(
        "not a number, as a bound",
        written("weigh: {lower: .nan}\n"),
        "study.yaml:1: weigh.lower: expected a finite number, found nan",
    ),
    Case(
        "text in a list of numbers",
        written("train: {beta: [0.1, x, 0.1, 0.1]}\n"),
        "study.yaml:1: train.beta.1: expected a number, found 'x'",
    ),
    Case(
        "a decimal comma", written("train:\n  beta: 0,1\n"), "study.yaml:2: train.beta: expected a number, found '0,1'"
    ),
    Case(
        "a percentage",
        written("train: {schedule: {warmup: 10%}}\n"),
        "study.yaml:1: train.schedule.warmup: expected a number, found '10%'",
    ),
    Case(
        "a fraction of epochs",
        written("train: {epochs: 1.5}\n"),
        "study.yaml:1: train.epochs: expected a whole number, found 1.5",
    ),
    Case(
        "a confidence in percent",
        written("report: {confidence: 95}\n"),
        "study.yaml:1: report.confidence: expected a number below 1, found 95",
    ),
    Case(
        "memory with a unit",
        written("resources: {train: {mem_mb: 200G}}\n"),
        "study.yaml:1: resources.train.mem_mb: expected a whole number, found '200G'",
    ),
    Case(
        "more minutes than a stage's most",
        written("resources: {train: {runtime: 1440, max_runtime: 720}}\n"),
        "study.yaml:1: resources.train: expected max_runtime of at least runtime, 1440 minutes, found 720; raise it, or "
        "lower runtime",
    ),
    Case(
        "iterations without end",
        written("iterations: 100000\ntrain: {learning_rate: 1.0e-6}\n"),
        "study.yaml:1: iterations: expected a number of at most 1000, found 100000",
    ),
    Case(
        "a shard for each row",
        written("data: {sft: {shard: 1}}\n"),
        "study.yaml:1: data.sft.shard: expected at most 10000 files of answers, found 600000: 50000 rows by 1, 12 times; give a larger shard, or fewer iterations",
    ),
    Case(
        "one draw of the bootstrap",
        written("report: {bootstrap: 1}\n"),
        "study.yaml:1: report.bootstrap: expected a number of at least 2, found 1",
    ),
    Case(
        "a list shorter than the iterations",
        written("train: {learning_rate: [5.0e-7, 1.0e-7]}\n"),
        "study.yaml:1: train.learning_rate: expected one value or a list of 4, one for each iteration, found a list of 2",
    ),
    Case(
        "more iterations than a list has values",
        written("train: {learning_rate: [5.0e-7, 5.0e-7, 1.0e-7, 1.0e-7]}\n", "--config", "iterations=5"),
        "--config: iterations: contradicts study.yaml:1: train.learning_rate: expected one value or a list of 5, one for each iteration, found a list of 4",
    ),
    Case(
        "lower above upper",
        written("weigh: {lower: 2.0, upper: 1.0}\n"),
        "study.yaml:1: weigh.lower: expected at most upper 1.0, found 2.0",
    ),
    Case(
        "a clamp that overflows",
        written("weigh: {mu_chosen: 100}\n"),
        "study.yaml:1: weigh.mu_chosen: expected weights that float32 holds, found up to exp(150) by k 1.0, lower -0.5, upper 1.5 and mu_chosen 100.0",
    ),
    Case(
        "text in place of a number, on the command line",
        given("--config", "iterations=x"),
        "--config: iterations: expected a whole number, found 'x'",
    ),
    Case(
        "an unknown key on the command line",
        given("--config", "train={'bta': 0.2}"),
        "--config: train.bta: unknown key; did you mean `beta`?",
    ),
    Case(
        "a negative number of shots",
        written("eval: {suites: {gsm8k: {gsm8k: -5}}}\n"),
        "study.yaml:1: eval.suites.gsm8k.gsm8k: expected a number of at least 0, found -5",
    ),
    Case(
        "three seeds for lm-eval",
        written("eval: {seeds: [0, 1, 2]}\n"),
        "study.yaml:1: eval.seeds: expected 4 or more entries, found [0, 1, 2]",
    ),
    Case(
        "a task with a slash",
        written("eval: {suites: {gsm8k: {tasks/mine: 5}}}\n"),
        "study.yaml:1: eval.suites.gsm8k.tasks/mine: expected the name of a task of lm-eval, without folders, found 'tasks/mine'",
    ),
    Case(
        "a suite without source and metric",
        written("eval: {suites: {new: {piqa: 0}}}\n"),
        """\
study.yaml:1: eval.suites.new: no source; add one to eval.sources, such as `new: {path: config/tasks/new}`
study.yaml:1: eval.suites.new.piqa: no metric; add one to report.metrics, such as `piqa: 'acc,none'`""",
    ),
    Case(
        "a metric of a task in no suite",
        written("report: {metrics: {piqa: 'acc,none'}}\n"),
        "study.yaml:1: report.metrics.piqa: no task 'piqa' in eval.suites",
    ),
    Case(
        "a baseline that is no arm",
        written("report: {baseline: sft}\n"),
        "study.yaml:1: report.baseline: no arm 'sft'; there are spin, wspin, wspin.paper",
    ),
    Case(
        "a published row beside a model that is none",
        written("report: {published: {swift1: {rows: {spim: spin}}}}\n"),
        "study.yaml:1: report.published.swift1.rows.spim: no model or arm 'spim'; there are base, sft, teacher, dpo, spin, wspin, wspin.paper; remove the row, or set it to null",
    ),
    Case(
        "results in the home folder",
        written("results: $HOME_OF_STUDIES/results\n"),
        "study.yaml:1: results: expected a path without `~` and `$`, which are not expanded here, found '$HOME_OF_STUDIES/results'; write it out",
    ),
    Case(
        "results with braces",
        written("results: 'results/{arm}'\n"),
        "study.yaml:1: results: expected a path without braces, which are wildcards to Snakemake, found 'results/{arm}'; rename the folder",
    ),
    Case(
        "results with a line break",
        written('results: "a\\nb"\n'),
        "study.yaml:1: results: expected text in one line, without blanks around it or control characters, found 'a\\nb'",
    ),
    Case(
        "results in the current folder",
        written("results: .\n"),
        "study.yaml:1: results: found '.', expected a folder of its own, such as results/mine",
    ),
    Case(
        "results among the configuration",
        written("results: config\n"),
        "study.yaml:1: results: found 'config', expected a folder of its own, such as results/mine",
    ),
    Case(
        "results in two spellings",
        written("results: ./results/\n"),
        "study.yaml:1: results: found './results/', expected 'results': one spelling, so that Snakemake knows its files",
    ),
    Case(
        "results as a number", written("results: 2024\n"), "study.yaml:1: results: expected text, found 2024; quote it"
    ),
    Case(
        "an empty path",
        written("models: {base: {hub: null, revision: null, license: null, path: ''}}\n"),
        "study.yaml:1: models.base.path: expected text, found ''",
    ),
    Case(
        "a file name of 300 characters",
        written("generate: {given: " + "a" * 300 + "}\n"),
        "study.yaml:1: generate.given: expected names of at most 255 bytes in a path, found 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...; shorten them",
    ),
    Case(
        "an empty end-of-answer token",
        written("dialogue: {eos: ''}\n"),
        "study.yaml:1: dialogue.eos: expected text, found ''",
    ),
    Case(
        "a template without quotes",
        written("dialogue: {template: {prompt}}\n"),
        "study.yaml:1: dialogue.template: expected text, found {}; quote text in braces",
    ),
    Case(
        "a template without its prompt",
        written("dialogue: {template: 'User: {question}'}\n"),
        "study.yaml:1: dialogue.template: found 'User: {question}'; expected one of human-assistant, instruction-response, zephyr, chat (the model's own), or a text that holds {prompt} once",
    ),
    Case(
        "a slice of a split",
        written('data: {sft: {split: "train_sft[:1000]"}}\n'),
        "study.yaml:1: data.sft.split: expected the name of a split, without slices or folders, found 'train_sft[:1000]'; `prompts` and `pairs` limit its rows",
    ),
    Case(
        "a folder as hub name",
        written("models: {base: {hub: ./models/qwen}}\n"),
        "study.yaml:1: models.base.hub: expected a name on the hub, `owner/name`, found './models/qwen'; a local folder is given as `path`",
    ),
    Case(
        "a branch as revision",
        written("models: {base: {revision: main}}\n"),
        "study.yaml:1: models.base.revision: expected the 40 hex digits of a commit, found 'main'; `make revisions` looks them up where the key is missing",
    ),
    Case(
        "a model from two sources",
        written("models: {base: {path: models/base}}\n"),
        "study.yaml:1: models.base: expected exactly one of hub, path, package, scratch, from, found hub, path; set the others to null",
    ),
    Case(
        "a version that YAML takes for a number",
        written("models: {small: {package: {name: p, version: 1.10, sha256: " + "a" * 64 + ", file: m.gguf}}}\n"),
        "study.yaml:1: models.small.package.version: expected text, found 1.1; quote it",
    ),
    Case(
        "an arm named as an iteration",
        written("arms: {ite0: {}}\n"),
        "study.yaml:1: arms.ite0: 'ite0' is the name of an iteration; choose another",
    ),
    Case(
        "an arm named as a folder of the results",
        written("arms: {data: {}}\n"),
        "study.yaml:1: arms.data: 'data' is the name of a folder of the results; choose another",
    ),
    Case(
        "two arms that differ by case alone",
        written("arms: {Spin: {}}\n"),
        "study.yaml:1: arms.Spin: expected a name of a-z, 0-9, `_`, `.` and `-` that begins with a letter, found 'Spin'; rename it",
    ),
    Case(
        "an arm with a Cyrillic letter",
        written("arms: {sp\u0456n: {}}\n"),
        "study.yaml:1: arms.sp\\u0456n: expected a name of a-z, 0-9, `_`, `.` and `-` that begins with a letter, found 'sp\\u0456n'; rename it",
    ),
    Case(
        "an arm's name of 300 characters",
        written("arms: {" + "a" * 300 + ": {}}\n"),
        "study.yaml:1: arms.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: expected at most 100 characters, found 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...",
    ),
    Case(
        "an arm and a model of one name",
        written("arms: {sft: {}}\n"),
        "study.yaml:1: arms.sft: 'sft' is a model of the registry too; arms and models share one set of names",
    ),
    Case(
        "an unknown section", written("trian: {beta: 0.2}\n"), "study.yaml:1: trian: unknown key; did you mean `train`?"
    ),
    Case(
        "a key outside its section",
        written("beta: 0.2\n"),
        "study.yaml:1: beta: unknown key; did you mean `train: {beta: ...}`?",
    ),
    Case(
        "an arm's setting outside its section",
        written("arms: {mine: {upper: 2.0}}\n"),
        "study.yaml:1: arms.mine.upper: unknown key; did you mean `weigh: {upper: ...}`?",
    ),
    Case(
        "a section with a Cyrillic letter",
        written("tr\u0430in: {beta: 0.2}\n"),
        "study.yaml:1: tr\\u0430in: unknown key; did you mean `train`?",
    ),
    Case(
        "a key that an arm may not set",
        written("arms: {mine: {generate: {temperature: 0}}}\n"),
        "study.yaml:1: arms.mine.generate: an arm may not set `generate`, it is the study's: use another results folder",
    ),
    Case(
        "an unknown key for models of a loss that no model has",
        written("models: {dpo: null}\neval: {models: [base]}\ntrain: {dpo: {betta: 1}}\nreport: {published: null}\n"),
        "study.yaml:3: train.dpo.betta: unknown key; did you mean `beta`?",
    ),
    Case(
        "a fork from itself",
        written("arms: {mine: {fork: {from: mine, at: 1}}}\n"),
        "study.yaml:1: arms.mine.fork.from: expected another arm, found 'mine' itself",
    ),
    Case(
        "another model of the hub, with the commit of the one that it replaces",
        written("models: {base: {hub: Qwen/Qwen1.5-0.5B}}\n"),
        "study.yaml:1: models.base.hub: expected a revision of its own, found that of Qwen/Qwen1.5-1.8B; give its commit, or null for `make revisions`",
    ),
    Case(
        "a fork from an iteration that does not exist",
        written("arms: {mine: {fork: {from: spin, at: 4}}}\n"),
        """\
study.yaml:1: arms.mine.fork.at: 'spin' has no iteration 4; its last is 3
study.yaml:1: arms.mine.fork.at: the arm ends before iteration 4""",
    ),
    Case(
        "an answer longer than the longest sequence",
        written("generate: {max_new_tokens: 2048}\n"),
        "study.yaml:1: generate.max_new_tokens: expected at most 1024 (dialogue.max_tokens 2048 less max_prompt_tokens 1024), found 2048",
    ),
    Case(
        "more GPUs than pairs in a step",
        written("resources: {train: {gpu: 128}}\ntrain: {global_batch: 64}\n"),
        "study.yaml:2: train.global_batch: expected one pair or more for each GPU (resources.train.gpu 128), found 64",
    ),
    Case(
        "a model named twice in the tables",
        written("eval: {models: [base, base]}\n"),
        "study.yaml:1: eval.models: 'base' is given 2 times; name it once",
    ),
    Case(
        "a precision of another library",
        written("generate: {dtype: float16}\n"),
        "study.yaml:1: generate.dtype: expected 'float32' or 'bfloat16', found 'float16'; did you mean 'bfloat16'?",
    ),
    Case(
        "several mistakes in two files",
        written("seed: x\ntrain: {bta: 1}\n", "--config", "iterations=0"),
        """\
study.yaml:1: seed: expected a whole number, found 'x'
study.yaml:2: train.bta: unknown key; did you mean `beta`?
--config: iterations: expected a number above 0, found 0""",
    ),
]

test_config = check_case(CASES)
