"""Task files of a folder: what would run code, or read files beyond the folder, is refused in a line with its place."""

import json
import shutil
from pathlib import Path

import pytest
from attacks import attack
from inputs import run

from wspin.storage.files import write_digests

ROW = {"text": "river"}
TASK = {
    "task": "demo",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "test.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}}",
    "doc_to_choice": ["a", "b"],
    "doc_to_target": 0,
    "metric_list": [{"metric": "acc"}],
}
FETCH = ["tasks", "--path", "demo", "--output", "fetched/demo", "--output-manifest", "fetched/demo.json"]
EVAL = ["--tasks", "fetched/demo", "--suite", "demo", "--shots", "demo=0", "--engine", "transformers"]
EVAL += ["--model", "model", "--manifest", "model.json", "--autocast", "float32"]
EVAL += ["--token-budget", "64", "--batch-size", "1", "--seeds", "0", "0", "0", "0"]
EVAL += ["--template", "human-assistant", "--eos", "<|endoftext|>", "--scores", "scores.json"]
EVAL += ["--samples", "samples.parquet", "--state", "state"]


@pytest.fixture
def folder(tmp_path, monkeypatch, scratch_model):
    """A folder with a model, and a folder of task files: `demo`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(scratch_model, "model")
    shutil.copyfile(scratch_model.with_suffix(".json"), "model.json")
    Path("demo").mkdir()
    Path("demo/test.jsonl").write_text(json.dumps(ROW) + "\n")
    write_task()
    return tmp_path


def write_task(**changes):
    """The task with other values, a line a key; texts among them are YAML."""
    lines = {key: json.dumps(value) for key, value in TASK.items()}
    lines |= {key: value if isinstance(value, str) else json.dumps(value) for key, value in changes.items()}
    Path("demo/demo.yaml").write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))


def write_code(path):
    """A Python file that leaves the file `ran`, wherever it is imported."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(f"open({str(Path('ran').resolve())!r}, 'w')\ndef run(rows):\n    return rows\n")


def refused(outcome):
    """`fetch` refuses the folder with this message; so does `eval`, if it lies in the results nevertheless."""
    code, _, errors = run("fetch", FETCH)
    assert (code, errors.strip()) == (1, outcome)
    assert not Path("fetched/demo").exists()
    shutil.copytree("demo", "fetched/demo")
    write_digests("fetched/demo", "fetched/demo.json")
    assert evaluated() == (1, outcome.replace("demo/", "fetched/demo/", 1))


def evaluated(*more):
    """(exit code, message) of `eval`."""
    code, _, errors = run("eval", [*EVAL, *more])
    assert Path("scores.json").exists() == (code == 0)
    return code, errors.strip()


@attack(
    "code",
    "a task file that names a function of a file beside it",
    "demo/demo.yaml:10: expected no code and no files beyond the folder, found !function evil.run; read them, then "
    "set `code: allow` beside the suite's `path`",
)
def test_functions_of_task_files_are_refused(folder, outcome):
    write_code("demo/evil.py")
    write_task(process_docs="!function evil.run")
    refused(outcome)
    assert not Path("ran").exists()


@attack("code", "the same with `code: allow`, once it has been read", "its functions run")
def test_functions_of_task_files_run_where_the_study_allows_them(folder):
    write_code("demo/evil.py")
    write_task(process_docs="!function evil.run")
    assert run("fetch", [*FETCH, "--code", "allow"])[0] == 0
    assert evaluated("--code", "allow") == (0, "")
    assert Path("ran").exists()


@attack(
    "code",
    "a task file that names a function of Python's own",
    "demo/demo.yaml:10: expected no code and no files beyond the folder, found !function os.system; read them, then "
    "set `code: allow` beside the suite's `path`",
)
def test_functions_of_installed_packages_are_refused(folder, outcome):
    write_task(process_docs="!function os.system")
    refused(outcome)


@attack(
    "code",
    "a Python file among task files that name none",
    "demo/below/evil.py: expected task files without code, found a Python file; read them, then set `code: allow` "
    "beside the suite's `path`",
)
def test_python_files_are_refused(folder, outcome):
    write_code("demo/below/evil.py")
    refused(outcome)


@attack(
    "code",
    "a YAML tag that makes Python objects, by another name",
    "demo/demo.yaml:3: expected no code and no files beyond the folder, found tag:yaml.org,2002:python/name:os.system; "
    "read them, then set `code: allow` beside the suite's `path`",
)
def test_tags_of_python_are_refused(folder, outcome):
    Path("demo/demo.yaml").write_text("%TAG !e! tag:yaml.org,2002:python/\n---\nprocess_docs: !e!name:os.system ''\n")
    refused(outcome)


@attack(
    "code",
    "a task file that includes one outside its folder",
    "demo/demo.yaml:10: expected no code and no files beyond the folder, found include: ../other/evil.yaml; read "
    "them, then set `code: allow` beside the suite's `path`",
)
@pytest.mark.parametrize("value", ["../other/evil.yaml", "[test.yaml, ../other/evil.yaml]"], ids=["file", "list"])
def test_includes_beyond_the_folder_are_refused(folder, value, outcome):
    write_code("other/evil.py")
    Path("other/evil.yaml").write_text("process_docs: !function evil.run\n")
    write_task(include=value)
    refused(outcome)
    assert not Path("ran").exists()


def test_includes_of_the_folder_are_read(folder):
    """From a folder below, and without an ending that names its format."""
    Path("demo/below").mkdir()
    shutil.move("demo/demo.yaml", "demo/_default_yaml")
    Path("demo/below/demo.yaml").write_text("include: ../_default_yaml\ntask: demo\n")
    assert run("fetch", FETCH)[0] == 0
    assert evaluated() == (0, "")


@pytest.mark.parametrize("name", ["demo_template", "_demo", "below/demo"])
def test_included_files_may_have_any_name(folder, name):
    """As in lm-eval's own folders, of which several include files such as `flores`."""
    Path("demo/below").mkdir()
    shutil.move("demo/demo.yaml", f"demo/{name}")
    shutil.copyfile("demo/test.jsonl", "demo/below/test.jsonl")
    Path("demo/demo.yaml").write_text(f"include: {name}\ntask: demo\n")
    assert run("fetch", FETCH)[0] == 0
    assert evaluated() == (0, "")


@attack(
    "code",
    "a function in a file that a task file includes, whatever its name",
    "demo/template:10: expected no code and no files beyond the folder, found !function evil.run; read them, then set "
    "`code: allow` beside the suite's `path`",
)
def test_functions_of_included_files_are_refused(folder, outcome):
    write_task(process_docs="!function evil.run", include="./below/../template")  # itself
    shutil.move("demo/demo.yaml", "demo/template")
    Path("demo/below").mkdir()
    Path("demo/demo.yaml").write_text("include: template\ntask: demo\n")
    refused(outcome)


@attack(
    "code",
    "a metric that is a script in a folder",
    "demo/demo.yaml:9: expected no code and no files beyond the folder, found metric: ./other; read them, then set "
    "`code: allow` beside the suite's `path`",
)
def test_scripts_of_metrics_are_refused(folder, outcome):
    write_code("other/other.py")
    write_task(metric_list=[{"metric": "./other", "aggregation": "mean", "higher_is_better": True}])
    refused(outcome)
    assert not Path("ran").exists()


@attack(
    "code",
    "a task file that generates with `custom_generate/generate.py` of a folder",
    "demo/demo.yaml:10: expected no code and no files beyond the folder, found custom_generate: other; read them, "
    "then set `code: allow` beside the suite's `path`",
)
def test_scripts_of_generation_are_refused(folder, outcome):
    write_code("other/custom_generate/generate.py")
    write_task(output_type="generate_until", generation_kwargs={"custom_generate": "other"})
    refused(outcome)
    assert not Path("ran").exists()


@attack(
    "code",
    "a task file that trusts the code of its data set",
    "demo/demo.yaml:3: expected no code and no files beyond the folder, found trust_remote_code: true; read them, "
    "then set `code: allow` beside the suite's `path`",
)
def test_trust_in_a_data_set_is_refused(folder, outcome):
    write_task(dataset_kwargs={"trust_remote_code": True})
    refused(outcome)


@attack(
    "paths",
    "a task file that reads files of the user as its data: `/etc/passwd`, `~/x`, `../x`, `file:/etc/passwd`",
    "demo/demo.yaml:3: expected no code and no files beyond the folder, found dataset_kwargs: /etc/passwd; read them, "
    "then set `code: allow` beside the suite's `path`",
)
@pytest.mark.parametrize("path", ["/etc/passwd", "~/secret", "../secret", "a/../../secret", "file:/etc/passwd"])
def test_data_beyond_the_folder_is_refused(folder, path, outcome):
    write_task(dataset_path="text", dataset_kwargs={"data_files": {"test": ["test.jsonl", path]}})
    refused(outcome.replace("/etc/passwd", path))


@pytest.mark.parametrize("path", ["local:../secret", "local:~/secret", "simplecache::secret", "https://host/secret"])
def test_data_of_other_file_systems_is_refused(folder, path):
    """As fsspec writes them."""
    write_task(dataset_path="text", dataset_kwargs={"data_files": path})
    code, _, errors = run("fetch", FETCH)
    assert (code, errors.partition(";")[0].partition("found ")[2]) == (1, f"dataset_kwargs: {path}")


@pytest.mark.parametrize(
    "data",
    ["../secret.jsonl", "~/secret.jsonl", "http://127.0.0.1:9/rows.jsonl", "hf://datasets/a/b/c.jsonl", "script.py"],
)
def test_data_of_other_places_is_refused(folder, data):
    place = "demo/demo.yaml:3: expected no code and no files beyond the folder"
    write_task(dataset_kwargs={"data_files": data})
    refused(f"{place}, found dataset_kwargs: {data}; read them, then set `code: allow` beside the suite's `path`")


@attack(
    "paths",
    "a card in a task folder's data that gives a split files of the user",
    "demo/lab/chats/README.md: data_files: /etc/passwd: expected the name of a file below its folder, found an "
    "absolute path; use no such file",
)
@pytest.mark.parametrize("start", ["", "\ufeff", "\u2003\n"], ids=["", "mark of UTF-8", "wide blank"])
def test_a_card_names_no_file_beyond_its_folder(folder, start, outcome):
    Path("demo/lab/chats").mkdir(parents=True)
    Path("demo/lab/chats/train.txt").write_text("river\n")
    Path("demo/lab/chats/README.md").write_text(
        f"{start}---\nconfigs:\n- {{config_name: a, data_files: /etc/passwd}}\n---\n"
    )
    code, _, errors = run("fetch", FETCH)
    assert (code, errors.strip()) == (1, outcome)
    code, _, errors = run("fetch", [*FETCH, "--hub", "lab/chats"])
    assert (code, errors.strip()) == (1, outcome)


def test_a_card_behind_blanks_is_refused(folder):
    """`datasets` would read it; the fetch reads no more than 2 MiB."""
    Path("demo/README.md").write_text("\n" * 2**21 + "---\nconfigs: []\n---\n")
    code, _, errors = run("fetch", FETCH)
    assert (code, errors.partition(";")[0]) == (1, "demo/README.md: expected at most 2 MiB of YAML, found more")


@attack(
    "paths",
    "the same in `.huggingface.yaml`",
    "demo/.huggingface.yaml:1: expected no code and no files beyond the folder, found data_files: /etc/passwd; read "
    "them, then set `code: allow` beside the suite's `path`",
)
def test_no_other_card_names_files_beyond_the_folder(folder, outcome):
    Path("demo/.huggingface.yaml").write_text("configs: [{config_name: a, data_files: [{path: /etc/passwd}]}]\n")
    refused(outcome)
    code, _, errors = run("fetch", [*FETCH, "--hub", "lab/chats"])
    found = "demo/.huggingface.yaml: expected the card of data in README.md, found another; write it there"
    assert (code, errors.strip()) == (1, found)


@attack(
    "paths",
    "a task folder whose data is a link to a file of the user",
    "demo/test.jsonl: expected no code and no files beyond the folder, found a link to {target}; read them, then set "
    "`code: allow` beside the suite's `path`",
)
def test_a_link_out_of_the_folder_is_refused(folder, outcome):
    shutil.move("demo/test.jsonl", "secret.jsonl")
    Path("demo/test.jsonl").symlink_to("../secret.jsonl")
    code, _, errors = run("fetch", FETCH)
    assert (code, errors.strip()) == (1, outcome.format(target="../secret.jsonl"))
    assert not Path("fetched/demo").exists()


@attack(
    "malformed",
    "a task file of 100,000 brackets, at which its parser ends the process",
    "demo/demo.yaml:1: expected no code and no files beyond the folder, found more than 50 nested collections; read "
    "them, then set `code: allow` beside the suite's `path`",
)
def test_nested_brackets_are_refused(folder, outcome):
    Path("demo/demo.yaml").write_text("task: " + "[" * 100_000)
    refused(outcome)


@attack(
    "code",
    "a task file whose template reaches for Python (`{{ cycler.__init__.__globals__ }}`)",
    "fetched/demo: expected the data of demo, found SecurityError: access to attribute '__init__' of 'type' object is "
    "unsafe.; correct eval.sources.demo or fetch it again",
)
def test_templates_of_task_files_reach_no_python(folder, outcome):
    write_task(doc_to_text=f"\"{{{{ cycler.__init__.__globals__.os.system('touch {folder}/ran') }}}}\"")
    assert run("fetch", FETCH)[0] == 0
    assert evaluated() == (1, outcome)
    assert not Path("ran").exists()
