"""Code in a model's folder: no program imports it, asks about it or waits; one line names the model."""

import ast
import builtins
import json
import shutil
from types import SimpleNamespace

import pytest
from attacks import attack
from inputs import ROOT, run
from scored import dialogue_settings

from wspin.config.flags import flags
from wspin.config.sources import Model
from wspin.errors import StudyError
from wspin.models import folders
from wspin.preflight import sizes
from wspin.storage import tables

CODE = "open('imported', 'w')\nclass Config: pass\n"
AUTO_MAP = {"AutoConfig": "foreign.Config", "AutoModelForCausalLM": "foreign.Config"}
ROWS = {"prompt_id": ["t-0", "t-1"], "prompt": ["a", "b"], "response": ["c", "d"], "split": ["train"] * 2}
LOADS = {"from_pretrained", "from_config", "LLM", "VLLM", "HFLM", "Conversation"}  # what opens a model's folder

FILES = ["--model", "start/model", "--manifest", "start/manifest.json"]
SHARD, SEED, OUT = ["--shard", "0", "--shard-size", "2"], ["--seed", "1", "0"], ["--output", "out"]
DIALOGUE = flags(dialogue_settings())
FETCH = ["model", "--path", "start/model", *OUT, "--output-manifest", "out.json", "--eos", "<|endoftext|>"]
FIT = ["--fits", "start/model", "--templates", "human-assistant", "--max-new-tokens", "8", "--seed", "1", *DIALOGUE]
DRAW = ["prompts", "--source", "source", "--split", "train", "--rows", "1", *FIT, *OUT, "--output-digest", "out.json"]
ANSWERED = [*FILES, *SHARD, *DIALOGUE, "--prompts", "prompts.parquet", "--max-new-tokens", "4", *OUT]
SAMPLE = [*ANSWERED, *SEED, "--state", "state", "--engine", "transformers", "--temperature", "1", "--top-p", "1"]
SAMPLE += ["--batch-size", "2"]
GIVEN = [*ANSWERED, "--given", "given.jsonl"]
SCORE = ["scorer", *FILES, *SHARD, *DIALOGUE, "--rows", "prompts.parquet", "--autocast", "float32", *OUT]
SCORE += ["--token-budget", "64"]
TRAIN = [*FILES, *DIALOGUE, *SEED, "--rows", "prompts.parquet", "--metrics", "out.jsonl", "--state", "state", *OUT]
TRAIN += ["--output-manifest", "out.json", "--autocast", "float32", "--processes", "1", "--replays", "0"]
EVAL = [*FILES, "--tasks", "tasks", "--suite", "demo", "--shots", "demo=0", "--engine", "transformers"]
EVAL += ["--autocast", "float32", "--token-budget", "64"]
EVAL += ["--batch-size", "1", "--seeds", "0", "0", "0", "0", "--template", "human-assistant", "--eos", "<|endoftext|>"]
EVAL += ["--scores", "scores.json", "--samples", "samples.parquet", "--state", "state"]
TASK = "task: demo\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n"
TASK += (
    "output_type: generate_until\ndoc_to_text: text\ndoc_to_target: response\nmetric_list: [{metric: exact_match}]\n"
)
PROGRAMS = {"fetch": FETCH, "data": DRAW, "generate": SAMPLE, "generate_given": GIVEN, "logprobs": SCORE}
PROGRAMS |= {"train": TRAIN, "eval": EVAL}


@pytest.fixture
def folder(tmp_path, monkeypatch, scratch_model):
    """A folder with a model, `start/model`, and its rows, in which questions have no answer."""

    def ask(*_):
        raise AssertionError("a program asks and waits")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builtins, "input", ask)
    shutil.copytree(scratch_model, tmp_path / "start/model")
    (tmp_path / "start/model/foreign.py").write_text(CODE)
    for name in ("source", "tasks"):
        (tmp_path / name).mkdir()
    (tmp_path / "tasks/demo.yaml").write_text(TASK)
    (tmp_path / "tasks/rows.jsonl").write_text('{"text": "a", "response": "b"}\n')
    tables.write("prompts.parquet", "prompts", ROWS, {})
    with open("given.jsonl", "w") as file:
        for prompt, answer in zip(ROWS["prompt"], ROWS["response"], strict=True):
            pair = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"real": pair, "generated": pair}) + "\n")
    return tmp_path


def edit(name, **entries):
    path = f"start/model/{name}"
    with open(path) as file:
        content = json.load(file)
    with open(path, "w") as file:
        json.dump(content | entries, file)


def message(folder, program, *more):
    """The one line that a program ends with; nothing of the model's folder has been imported."""
    folders.write_manifest("start/model", "start/manifest.json")
    code, _, errors = run(program, [*PROGRAMS[program], *more])
    assert not list(folder.rglob("imported"))
    assert code == 1
    return errors.strip()


def fetched(folder):
    """The names of the files that `fetch` takes; nothing of the model's folder has been imported."""
    code, _, errors = run("fetch", FETCH)
    assert code == 0, errors
    assert not list(folder.rglob("imported"))
    return {path.name for path in (folder / "out").rglob("*")}


@attack(
    "code",
    "a model whose config.json names classes in a file beside it, through every program that opens a model",
    "start/model/config.json: auto_map.AutoConfig: expected Qwen2Config or none, found foreign.Config; code in a "
    "model's folder is not run; take a model of transformers' own",
)
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_refuses_classes_in_the_folder(folder, train_settings, program, outcome):
    edit("config.json", auto_map=AUTO_MAP)
    assert message(folder, program, *(flags(train_settings(loss="sft")) if program == "train" else ())) == outcome


@attack(
    "code",
    "a model of an unknown architecture with its classes beside it",
    "start/model/config.json: model_type: expected an architecture of transformers, found 'foreign'; code in its "
    "folder is not run",
)
@pytest.mark.parametrize("program", ["fetch", "generate_given"])
def test_an_unknown_architecture_is_not_asked_about(folder, program, outcome):
    edit("config.json", auto_map=AUTO_MAP, model_type="foreign")
    assert message(folder, program) == outcome


@attack(
    "code",
    "a model whose config.json names a class in another repository",
    "start/model/config.json: auto_map.AutoModelForCausalLM: expected Qwen2ForCausalLM or none, found "
    "other/repository--foreign.Config; code in a model's folder is not run; take a model of transformers' own",
)
def test_classes_of_another_repository_are_refused(folder, outcome):
    edit("config.json", auto_map={"AutoModelForCausalLM": "other/repository--foreign.Config"})
    assert message(folder, "fetch") == outcome


@attack(
    "malformed",
    "an auto_map that is no object",
    "start/model/config.json: auto_map: expected an object, found 'AutoModelForCausalLM'; copy the file again",
)
def test_an_auto_map_that_is_a_text_is_refused(folder, outcome):
    edit("config.json", auto_map="AutoModelForCausalLM")
    assert message(folder, "fetch") == outcome


@attack(
    "code",
    "a tokenizer_config.json that names a class in a file beside it",
    "start/model/tokenizer_config.json: auto_map.AutoTokenizer: expected none, found ['foreign.Config', None]; "
    "code in a model's folder is not run; take a tokenizer of transformers' own",
)
@pytest.mark.parametrize("form", [lambda code: {"AutoTokenizer": code}, lambda code: code], ids=["object", "list"])
def test_a_tokenizer_class_in_the_folder_is_refused(folder, form, outcome):
    edit("tokenizer_config.json", auto_map=form(["foreign.Config", None]))
    assert message(folder, "fetch") == outcome


@attack("code", "a tokenizer_class that is a name of Python's, not of a tokenizer", "read as a plain fast tokenizer")
@pytest.mark.parametrize("name", ["foreign.Config", "os.system", "__import__('foreign')", "subprocess"])
def test_a_tokenizer_class_is_a_name_of_transformers(folder, name):
    edit("tokenizer_config.json", tokenizer_class=name)
    assert "tokenizer.json" in fetched(folder)


@attack(
    "code", "`custom_generate/generate.py`, and classes in generation_config.json", "the model answers without them"
)
def test_a_generate_function_in_the_folder_is_no_part_of_a_model(folder):
    (folder / "start/model/custom_generate").mkdir()
    (folder / "start/model/custom_generate/generate.py").write_text(CODE)
    code = {"auto_map": AUTO_MAP, "custom_generate": "start/model", "trust_remote_code": True}
    (folder / "start/model/generation_config.json").write_text(json.dumps({"eos_token_id": 0, **code}))
    names = fetched(folder)
    assert "generation_config.json" in names
    assert not {"custom_generate", "generate.py", "foreign.py"} & names
    folders.write_manifest("start/model", "start/manifest.json")
    assert run("generate", [*SAMPLE, "--output", "answers.parquet"])[0] == 0
    assert not list(folder.rglob("imported"))


@attack("code", "`_name_or_path` of a model that names a repository on the hub", "the folder's own files are read")
def test_a_name_in_a_config_leads_nowhere(folder, monkeypatch):
    edit("config.json", _name_or_path="other/repository", base_model_name_or_path="other/repository")
    edit("tokenizer_config.json", name_or_path="other/repository", _commit_hash="main")
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: pytest.fail("a connection"))
    assert "model.safetensors" in fetched(folder)


@attack(
    "code",
    "an adapter whose base model is a repository on the hub",
    "start/model: expected a whole model, found adapter_config.json; merge or remove the adapter",
)
def test_an_adapter_leads_nowhere(folder, outcome):
    (folder / "start/model/adapter_config.json").write_text('{"base_model_name_or_path": "other/repository"}')
    assert message(folder, "fetch") == outcome


@attack(
    "code",
    "a config.json that takes its attention from a repository of compiled kernels",
    "start/model/config.json: attn_implementation: expected none, found 'other/kernel'; remove it: code of a hub "
    "is not run",
)
def test_kernels_of_the_hub_are_refused(folder, outcome):
    edit("config.json", attn_implementation="other/kernel")
    assert message(folder, "fetch") == outcome


@pytest.mark.parametrize("name", ["Qwen2ForCausalLM", "QWen2ForCausalLM", "Qwen2_ForCausalLM"])
def test_a_class_of_transformers_replaces_its_copy_in_the_folder(folder, name):
    """As Phi-3's, Phi-3.5-MoE's (`PhiMoE` for `Phimoe`) and ERNIE 4.5's (`Ernie4_5_` for `Ernie4_5`)."""
    code = {"AutoConfig": f"foreign.{name}".replace("ForCausalLM", "Config"), "AutoModelForCausalLM": f"foreign.{name}"}
    edit("config.json", architectures=[name], auto_map={**code, "AutoTokenizer": "other/repository"})
    assert "model.safetensors" in fetched(folder)


def test_preflight_imports_no_class_of_a_folder(folder):
    edit("config.json", auto_map=AUTO_MAP)
    study = SimpleNamespace(models={"m": Model(path="start/model")})
    paths = SimpleNamespace(fetched_models=["m"], study=study, model=lambda _: "none")
    with pytest.raises(StudyError, match=r"auto_map\.AutoConfig: expected Qwen2Config or none"):
        sizes.known_sizes(paths)
    assert not list(folder.rglob("imported"))


def test_every_load_refuses_remote_code():
    """By name, whatever the default of a library is."""
    without = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in [*ROOT.glob("workflow/scripts/**/*.py"), *ROOT.glob("bench/**/*.py")]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in LOADS
        if "trust_remote_code=False" not in map(ast.unparse, node.keywords)
    ]
    assert without == []
