"""Lm-eval on a tiny model, with the study's own tasks and with lm-eval's."""

import hashlib
import importlib
import json
import logging
import os
import random
import re
import shutil
import socket
import sys
from collections import Counter
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from unittest import mock

import pyarrow.parquet as pq
import pytest
from lm_eval.api.instance import Instance
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast

from wspin.config.sources import Scratch, TaskSource
from wspin.config.stages import Dialogue, EvalSettings
from wspin.data.chat import ChatTokenizer
from wspin.data.rendering import Template
from wspin.errors import StudyError
from wspin.eval import harness, heldout, language_models, lengths
from wspin.eval.shared_prefix import SharedPrefixLM
from wspin.fetch import tasks
from wspin.models import folders
from wspin.models.scratch import make_scratch
from wspin.storage import tables

EOS = "<|endoftext|>"
SEEDS = [0, 1234, 1234, 1234]
TASKS = Path(__file__).parents[2] / "config/tasks/demo"
KEYS = {"checksum", "suite", "model", "engine", "autocast", "token_budget", "batch_size", "seeds", "versions"}
KEYS |= {"dtype", "template", "tasks"}
SPELL = "Spell this word backward (example: sun -> nus): "


@pytest.fixture(scope="module", autouse=True)
def no_network():
    """An evaluation that asks the network for anything fails."""
    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the evaluation asked the network"))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def words():
    rng = random.Random(0)
    return ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 7))) for _ in range(400)]


@pytest.fixture(scope="module")
def made(words, tmp_path_factory):
    """A folder with a model, its manifest, and the demo's tasks as they are fetched."""
    folder = tmp_path_factory.mktemp("made")
    size = {"hidden": 32, "intermediate": 64, "layers": 1, "heads": 2, "context": 512, "vocabulary": 300}
    texts = [text for word in words for text in (SPELL + word, word[::-1])]
    settings = Scratch(architecture="qwen2", text="sft", **size)
    make_scratch(settings, texts, EOS, 1, folder / "model")
    folders.write_manifest(folder / "model", folder / "manifest.json")
    (folder / "tasks").mkdir()
    tasks.fetch(TaskSource(path=str(TASKS), heldout=True), folder / "tasks", "nowhere")
    write_heldout(folder / "heldout.parquet", words[:40])
    return folder


def hugging_face_model(folder, eos, batch_size=16, autocast="float32"):
    sizes = {"token_budget": 2048, "batch_size": batch_size}
    settings = EvalSettings(engine="transformers", autocast=autocast, seeds=SEEDS, **sizes)
    return language_models.hugging_face_model(folder, settings, eos)


def write_heldout(path, words, answers=None):
    columns = {
        "prompt_id": [f"test-{i}" for i in range(len(words))],
        "prompt": [SPELL + word for word in words],
        "response": answers or [word[::-1] for word in words],
        "split": ["test"] * len(words),
    }
    tables.write(path, "prompts", columns, {})


def run_program(made, out, suite="demo", shots=("spell_backward=0", "spell_backward_choice=0"), **changes):
    """eval.py on the demo's tasks; returns (scores, sample rows)."""
    flags = {
        "--model": made / "model",
        "--manifest": made / "manifest.json",
        "--tasks": made / "tasks",
        "--heldout": made / "heldout.parquet",
        "--suite": suite,
        "--engine": "transformers",
        "--autocast": "float32",
        "--token-budget": 2048,
        "--batch-size": 16,
        "--template": "human-assistant",
        "--eos": EOS,
        "--scores": out / f"{suite}.json",
        "--samples": out / f"{suite}.samples.parquet",
        "--state": out / ".state/eval",
        **changes,
    }
    given = [text for flag, value in flags.items() if value is not None for text in (flag, str(value))]
    given = [text for text in given if text != "True"]  # a flag alone
    more = [] if flags["--heldout"] else ["--default-tasks", "--heldout"]  # an input that is empty leaves a bare flag
    importlib.import_module("eval").main([*given, "--seeds", *map(str, SEEDS), "--shots", *shots, *more])
    return json.loads((out / f"{suite}.json").read_text()), pq.read_table(out / f"{suite}.samples.parquet").to_pylist()


@pytest.fixture(scope="module")
def demo(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    scores, rows = run_program(made, out)
    return out, scores, rows


def check_rows_give_scores(scores, rows):
    """The mean of each metric over the rows of a task and filter is the task's score."""
    for task, entry in scores.items():
        for key, value in entry["metrics"].items():
            metric, _, filter_ = key.partition(",")
            mine = [row for row in rows if row["task"] == task and row["filter"] == filter_]
            assert len(mine) == entry["n"] == len({row["doc_id"] for row in mine})
            assert mean(json.loads(row["metrics"])[metric] for row in mine) == pytest.approx(value, abs=1e-12)


def test_a_model_is_loaded_without_a_word(made, caplog):
    """lm-eval would note twice that it is given a loaded one."""
    hugging_face_model(made / "model", EOS)
    assert caplog.messages == []


def test_scores_and_rows_agree(demo, made):
    _, scores, rows = demo
    assert set(scores) == KEYS
    assert scores["model"] == folders.read_manifest(made / "manifest.json")["model"]
    assert set(scores["versions"]) == {"lm_eval", "transformers", "torch"}
    assert scores["seeds"] == SEEDS
    for task, metric in (("spell_backward", "exact_match,none"), ("spell_backward_choice", "acc,none")):
        entry = scores["tasks"][task]
        assert set(entry) == {"shots", "version", "n", "prompt_hash", "metrics", "stderr"}
        assert (entry["shots"], entry["version"], entry["n"]) == (0, "1.0", 40)
        assert list(entry["metrics"]) == list(entry["stderr"]) == [metric]
        assert isinstance(entry["stderr"][metric], float)
    check_rows_give_scores(scores["tasks"], rows)
    assert 0 < scores["tasks"]["spell_backward_choice"]["metrics"]["acc,none"] < 1
    assert len(rows) == 80
    assert [(row["task"], row["doc_id"]) for row in rows] == sorted((row["task"], row["doc_id"]) for row in rows)
    for row in rows:
        assert float(row["target"] == row["answer"]) == next(iter(json.loads(row["metrics"]).values()))


def test_prompt_hashes_are_of_the_rendered_prompts(demo, words):
    _, scores, rows = demo
    rendered = [Template("human-assistant").render(SPELL + word).text for word in words[:40]]
    expected = [hashlib.sha256(text.encode()).hexdigest() for text in rendered]
    assert [row["prompt_hash"] for row in rows if row["task"] == "spell_backward"] == expected
    entries = scores["tasks"].values()
    assert len({entry["prompt_hash"] for entry in entries}) == 1


def test_an_answer_that_equals_the_real_one_scores(demo, made, words, tmp_path):
    """Half the held-out rows get as real answer what the model says anyway."""
    says = [row["answer"] for row in demo[2] if row["task"] == "spell_backward"]
    answers = [said if i % 2 else word[::-1] for i, (said, word) in enumerate(zip(says, words[:40], strict=True))]
    write_heldout(tmp_path / "heldout.parquet", words[:40], answers)
    changes = {"--heldout": tmp_path / "heldout.parquet"}
    scores, rows = run_program(made, tmp_path, shots=["spell_backward=0"], **changes)
    assert scores["tasks"]["spell_backward"]["metrics"] == {"exact_match,none": 0.5}
    check_rows_give_scores(scores["tasks"], rows)


def test_equal_runs_give_equal_bytes_and_leave_nothing(demo, made, tmp_path, monkeypatch):
    import datasets

    here, before = Path.cwd(), sorted(made.rglob("*"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    run_program(made, tmp_path)
    for name in ("demo.json", "demo.samples.parquet"):
        assert (tmp_path / name).read_bytes() == (demo[0] / name).read_bytes()
    assert (Path.cwd(), datasets.config.HF_DATASETS_CACHE) == (here, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert sorted(made.rglob("*")) == before
    assert os.path.realpath(tmp_path) not in (tmp_path / "demo.json").read_text()


@pytest.mark.parametrize("template", ["human-assistant", "instruction-response"])
def test_lm_eval_reads_what_training_reads(made, words, template):
    """Prompts, and prompts with a choice, have the ids that the model is trained on; no token crosses the border."""
    room = {"max_prompt_tokens": 64, "max_tokens": 128, "eos_on_cut": False}
    said = ChatTokenizer(folders.load_tokenizer(made / "model"), Dialogue(template=template, eos=EOS, **room))
    lm = hugging_face_model(made / "model", EOS, batch_size=8)
    own = hugging_face_model(made / "model", None, batch_size=8)  # lm-eval's encoding, untouched
    documents = heldout.heldout_documents(made / "heldout.parquet", template, EOS, made / "model")
    for word, document in zip(words, documents, strict=False):
        prompt = said.prompt_ids(SPELL + word)
        assert lm.tok_batch_encode([document["text"]])[0][0].tolist() == prompt
        for choice in document["choices"]:
            answer = said.response_ids(choice.removesuffix(EOS))
            assert lm._encode_pair(document["text"], choice) == (prompt, answer)
            if template == "human-assistant":
                assert own._encode_pair(document["text"], choice) == (prompt, answer)


def test_answers_have_the_ids_of_training_where_a_tokenizer_puts_a_space_before_a_text(scratch_model, monkeypatch):
    """As sentencepiece does. The text of EOS stays text, which here is a piece of the vocabulary."""
    pieces = [
        ("</s>", 0.0),
        ("<unk>", 0.0),
        *((character, -2.0) for character in "\u2581abcdefghijklmnopqrstuvwxyz<>/:\n"),
    ]
    backend = Tokenizer(Unigram(pieces, unk_id=1))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    monkeypatch.setattr(folders, "load_tokenizer", lambda folder: tokenizer)
    lm = hugging_face_model(scratch_model, "</s>", batch_size=8)
    room = {"max_prompt_tokens": 64, "max_tokens": 128, "eos_on_cut": False}
    trained = ChatTokenizer(tokenizer, Dialogue(template="q: {prompt}\na:", eos="</s>", **room))
    for text in ("stone", "a </s> b"):
        expected = trained.prompt_ids(text), trained.response_ids(text)
        assert lm._encode_pair(f"q: {text}\na:", text + "</s>") == expected


def test_special_tokens_around_heldout_prompts_are_refused(made):
    """lm-eval would read them as text, letter by letter."""
    with pytest.raises(StudyError, match=r"dialogue.template: expected a template without special tokens .* <\|endoft"):
        heldout.heldout_documents(made / "heldout.parquet", f"{EOS}{{prompt}}", EOS, made / "model")


def test_choices_are_wrong_but_one(made, words):
    documents = heldout.heldout_documents(made / "heldout.parquet", "human-assistant", EOS, made / "model")
    for word, document in zip(words, documents, strict=False):
        texts = [choice.removesuffix(EOS) for choice in document["choices"]]
        assert len(set(texts)) == 4
        assert document["choices"][document["label"]] == word[::-1] + EOS
        assert [i for i, text in enumerate(texts) if text == word[::-1]] == [document["label"]]
    assert documents == heldout.heldout_documents(made / "heldout.parquet", "human-assistant", EOS, made / "model")


def test_labels_are_spread_and_belong_to_the_prompt():
    labels = Counter(heldout.choices(f"test-{i}", "olleh")[1] for i in range(400))
    assert set(labels) == {0, 1, 2, 3}
    assert min(labels.values()) > 70
    for answer in ("", "a", "aa"):
        texts, label = heldout.choices("test-0", answer)
        assert texts[label] == answer
        assert len(set(texts)) == 4
    assert heldout.choices("test-1", "olleh") != heldout.choices("test-2", "olleh")


def test_groups_and_shots(made, tmp_path):
    """A group has the aggregate of its subtasks, weighted by size, and tasks of a suite may have other shots."""
    tasks.fetch(TaskSource(path=str(TASKS)), tmp_path / "tasks", "nowhere")
    include = "include: spell_backward_choice.yaml\n"
    for name in ("second", "first"):
        (tmp_path / f"tasks/{name}.yaml").write_text(f"{include}task: {name}\n")
    aggregate = "aggregate_metric_list: [{metric: acc, weight_by_size: true}]\nmetadata: {version: 2.0}\n"
    (tmp_path / "tasks/both.yaml").write_text(f"group: both\ntask: [second, first]\n{aggregate}")
    shots = ["both=2", "spell_backward_choice=0"]
    scores, rows = run_program(made, tmp_path, shots=shots, **{"--tasks": tmp_path / "tasks"})
    both, alone = scores["tasks"]["both"], scores["tasks"]["spell_backward_choice"]
    assert set(both["subtasks"]) == {"first", "second"}
    assert (both["n"], both["version"], both["shots"], alone["shots"]) == (80, "2.0", 2, 0)
    check_rows_give_scores({**both["subtasks"], "spell_backward_choice": alone}, rows)
    parts = [entry["metrics"]["acc,none"] for entry in both["subtasks"].values()]
    assert both["metrics"]["acc,none"] == pytest.approx(mean(parts))
    assert both["stderr"]["acc,none"] > 0
    assert both["subtasks"]["first"]["prompt_hash"] != alone["prompt_hash"]  # examples stand before the prompt
    assert {row["task"] for row in rows} == {"first", "second", "spell_backward_choice"}


def test_what_is_wrong_is_said_in_one_line(made, tmp_path):
    def refused(match, *shots, **changes):
        with pytest.raises(StudyError, match=match) as error:
            run_program(made, tmp_path, shots=shots, **changes)
        assert len(str(error.value).splitlines()) == 1
        assert not (tmp_path / "demo.json").exists()

    refused("expected task 'spell_backwards', found spell_backward", "spell_backwards=0")
    refused("expected task 'spell_backward', found no task", "spell_backward=0", **{"--tasks": made / "model"})
    refused(r"eos_token_id: expected .* \(dialogue.eos\), found", "spell_backward=0", **{"--eos": "a"})
    write_heldout(tmp_path / "none.parquet", [])
    refused("expected held-out rows, found none", "spell_backward=0", **{"--heldout": tmp_path / "none.parquet"})
    tasks.fetch(TaskSource(path=str(TASKS)), tmp_path / "tasks", "nowhere")
    include, lost = "include: spell_backward_choice.yaml\n", "dataset_kwargs: {data_files: {test: lost.jsonl}}\n"
    (tmp_path / "tasks/lost.yaml").write_text(f"{include}{lost}task: lost\n")
    (tmp_path / "tasks/fixed.yaml").write_text(f"{include}task: fixed\nnum_fewshot: 0\n")
    (tmp_path / "tasks/free.yaml").write_text(f"{include}task: free\n")
    (tmp_path / "tasks/bare.yaml").write_text("group: bare\ntask: [free]\n")
    (tmp_path / "tasks/endless.yaml").write_text(
        "include: spell_backward.yaml\ntask: endless\nprocess_results: !function endless.score\n"
    )
    (tmp_path / "tasks/endless.py").write_text("def score(doc, results):\n    return {'exact_match': float('inf')}\n")
    changes = {"--tasks": tmp_path / "tasks", "--code": "allow"}
    refused("expected the data of lost, found FileNotFoundError", "lost=0", **changes)
    refused("expected 0 shots, as the task says, found 3", "fixed=3", **changes)
    refused("no score of its own; name the tasks in it", "bare=0", **changes)
    refused("no finite score", "endless=0", **changes)
    (tmp_path / "tasks/bare.yaml").write_text("group: bare\ntask: [free]\naggregate_metric_list: [{metric: acc}]\n")
    refused("expected a task once, found free with other shots", "bare=0", "free=1", **changes)


@pytest.mark.parametrize("shots", ["spell_backwards=0", "spell_backward_choice=41"])
def test_tasks_are_refused_before_a_model_is_loaded(made, tmp_path, monkeypatch, shots):
    monkeypatch.setattr(harness, "hugging_face_model", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(StudyError, match=r"expected task|expected documents"):
        run_program(made, tmp_path, shots=[shots])


def hellaswag(folder):
    """A snapshot of a data set as the hub has it, with few rows."""
    folder.mkdir(parents=True)
    for split, count in (("train", 6), ("validation", 10)):
        with open(folder / f"{split}.jsonl", "w") as file:
            for i in range(count):
                row = {"ind": i, "activity_label": "Cooking", "ctx_a": f"A man stirs pot {i}.", "ctx_b": "then he"}
                endings = [f"eats {i}.", "sleeps.", "runs away [title] fast.", f"adds {i} onions."]
                row |= {"ctx": f"{row['ctx_a']} {row['ctx_b']}", "endings": endings, "label": str(i % 4)}
                row |= {"source_id": str(i), "split": split, "split_type": "indomain"}
                file.write(json.dumps(row) + "\n")


def test_lm_evals_own_task_runs_offline_on_a_snapshot(made, tmp_path):
    """The unchanged task `hellaswag` reads the snapshot, and gives what lm-eval's own entry point gives."""
    from lm_eval import simple_evaluate

    hellaswag(tmp_path / "fetched/Rowan/hellaswag")
    changes = {"--tasks": tmp_path / "fetched", "--heldout": None}
    scores, rows = run_program(made, tmp_path, "hellaswag", ["hellaswag=2"], **changes)
    entry = scores["tasks"]["hellaswag"]
    assert (entry["n"], entry["shots"], entry["version"]) == (10, 2, "1.0")
    assert set(entry["metrics"]) == {"acc,none", "acc_norm,none"}
    check_rows_give_scores(scores["tasks"], rows)
    assert rows[1]["target"] == "sleeps."

    suite = harness.Suite("hellaswag", tmp_path / "fetched", {"hellaswag": 2}, default_tasks=True)
    lm = hugging_face_model(made / "model", None, batch_size=16)
    with harness.working_folder(suite):
        names = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
        theirs = simple_evaluate(lm, tasks=["hellaswag"], num_fewshot=2, **dict(zip(names, SEEDS, strict=True)))
    for key, value in entry["metrics"].items():
        assert theirs["results"]["hellaswag"][key] == value
    for key, value in entry["stderr"].items():
        assert theirs["results"]["hellaswag"][key.replace(",", "_stderr,")] == pytest.approx(value)
    assert [one["prompt_hash"] for one in theirs["samples"]["hellaswag"]] == [row["prompt_hash"] for row in rows]


def test_task_files_are_copied_with_what_they_name(tmp_path):
    source = tmp_path / "source"
    (source / "below/__pycache__").mkdir(parents=True)
    for name in ("a.yaml", "_default_yaml", "below/utils.py", "data.jsonl", "notes.md", "below/__pycache__/utils.pyc"):
        (source / name).write_text(name)
    tasks.fetch(TaskSource(path=str(source), code="allow"), tmp_path / "out", "nowhere")
    copied = sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert copied == ["_default_yaml", "a.yaml", "below/utils.py", "data.jsonl"]
    with pytest.raises(StudyError, match=r"expected a folder with \*.yaml, found none"):
        tasks.fetch(TaskSource(path=str(tmp_path / "missing")), tmp_path / "other", "nowhere")


# Requests longer than the context


@pytest.fixture(scope="module")
def short(made, tmp_path_factory):
    """The model with a context of 128 tokens, and its files."""
    folder = tmp_path_factory.mktemp("short")
    shutil.copytree(made, folder, dirs_exist_ok=True)
    path = folder / "model/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_position_embeddings": 128}))
    folders.write_manifest(folder / "model", folder / "manifest.json")
    return folder


def message_of(short, out, *shots, **changes):
    """The message of a refused evaluation, which wrote no scores and asked the model nothing."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StudyError) as error:
        for method in ("loglikelihood", "generate_until"):
            asked = lambda *_, **__: pytest.fail("the model was asked")  # noqa: E731
            patch.setattr(f"wspin.eval.shared_prefix.SharedPrefixLM.{method}", asked)
        run_program(short, out, shots=shots, **changes)
    assert not (out / "demo.json").exists()
    return str(error.value)


def test_few_shot_prompts_that_lm_eval_would_cut_are_refused(short, tmp_path):
    message = message_of(short, tmp_path, "spell_backward_choice=7", "spell_backward=0")
    found = re.fullmatch(
        r"eval.suites.demo: spell_backward_choice: expected requests of at most 128 tokens, the model's context, "
        r"found 160 of 160 longer, up to (\d+) with 7 shots; "
        "give fewer shots, or set eval.too_long to cut, which keeps the end of each and counts them in the scores",
        message,
    )
    assert int(found[1]) > 400


def test_answers_without_room_behind_their_prompts_are_refused(short, tmp_path):
    tasks.fetch(TaskSource(path=str(TASKS), heldout=True), tmp_path / "tasks", "nowhere")
    for room in (100, 128):
        text = (
            f"include: spell_backward.yaml\ntask: long{room}\ngeneration_kwargs: {{max_gen_toks: {room}, until: []}}\n"
        )
        (tmp_path / f"tasks/long{room}.yaml").write_text(text)
    changes = {"--tasks": tmp_path / "tasks"}
    assert "long100: expected requests of at most 128 tokens" in message_of(short, tmp_path, "long100=0", **changes)
    cut = {**changes, "--cut": True}
    message = message_of(short, tmp_path, "long128=0", **cut)
    assert "found 40 of 40 that leave no room for a prompt" in message
    scores, _ = run_program(short, tmp_path, shots=["long100=0"], **cut)
    assert 0 < scores["tasks"]["long100"]["cut"] <= 40


def test_cut_requests_are_counted_in_the_scores_and_no_other_entry_changes(short, made, tmp_path):
    (tmp_path / "uncut").mkdir()
    shots = ["spell_backward_choice=7", "spell_backward=0"]
    scores, _ = run_program(short, tmp_path, shots=shots, **{"--cut": True})
    whole, _ = run_program(made, tmp_path / "uncut", shots=shots, **{"--cut": True})
    cut, uncut = (of["tasks"]["spell_backward_choice"] for of in (scores, whole))
    assert cut["cut"] == 160
    assert cut["prompt_hash"] == uncut["prompt_hash"]
    assert cut.keys() - uncut.keys() == {"cut"}
    assert "cut" not in scores["tasks"]["spell_backward"]


def test_a_text_of_rolling_likelihood_is_divided_not_cut(short, tmp_path):
    """Longer than the context, and every token of it is scored once."""
    text = "dataset_path: json\ndataset_kwargs: {data_files: {test: rolling.jsonl}}\ntest_split: test\n"
    text += "task: rolling\noutput_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: text\n"
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/rolling.yaml").write_text(text + "metric_list: [{metric: byte_perplexity}]\n")
    (tmp_path / "tasks/rolling.jsonl").write_text(json.dumps({"text": "a dog " * 200}) + "\n")
    scored = []
    with pytest.MonkeyPatch.context() as patch:
        run = SharedPrefixLM._loglikelihood_tokens
        patch.setattr(
            SharedPrefixLM,
            "_loglikelihood_tokens",
            lambda lm, requests, **more: (scored.extend(ids for *_, ids in requests), run(lm, requests, **more))[1],
        )
        scores, _ = run_program(short, tmp_path, shots=["rolling=0"], **{"--tasks": tmp_path / "tasks"})
    assert scores["tasks"]["rolling"]["metrics"]["byte_perplexity,none"] > 1
    tokens = folders.load_tokenizer(short / "model").encode("a dog " * 200)
    assert [token for ids in scored for token in ids] == tokens
    assert max(map(len, scored)) <= 128 < len(tokens)


def warning_of_cuts(continuation):
    """Ours cuts without lm-eval's warning, as the harness counts the requests beforehand."""

    def of_tokens(context, answer):
        kept = continuation(context, answer)
        if len(kept.ids) < len(context) + len(answer):
            logging.getLogger("lm_eval").warning("Truncated")
        return kept

    return of_tokens


def backend(engine, model, patch):
    """lm-eval's backend, whose model answers nothing; vLLM's without vLLM."""
    if engine == "transformers":
        lm = hugging_face_model(model, EOS, batch_size=1)
        patch.setattr(lm, "_continuation", warning_of_cuts(lm._continuation))
        patch.setattr(lm, "_model_generate", lambda context, **_: context)
        return lm
    for name in ("vllm", "vllm.lora.request", "vllm.tokenizers"):
        patch.setitem(sys.modules, name, mock.MagicMock())
    with mock.patch("importlib.metadata.version", return_value="0.1"):
        from lm_eval.models import vllm_causallms

    lm = object.__new__(vllm_causallms.VLLM)
    for name in ("add_bos_token", "custom_prefix_token_id", "think_end_token", "enable_thinking"):
        setattr(lm, name, None)
    lm._max_length, lm._max_gen_toks, lm.batch_size, lm.truncation_side = 128, 256, 1, "left"
    lm._rank, lm._world_size, lm.tokenizer, lm.cache_hook = 0, 1, folders.load_tokenizer(model), mock.MagicMock()
    patch.setattr(lm, "_parse_logprobs", lambda **_: (0.0, False))
    output = SimpleNamespace(outputs=[SimpleNamespace(text="")])
    patch.setattr(lm, "_model_generate", lambda requests, **_: [output] * len(requests))
    return lm


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until"])
def test_what_is_counted_is_what_lm_eval_cuts(short, engine, kind, monkeypatch, caplog):
    """Around the context's length, lm-eval warns of exactly those requests that are counted as longer."""
    lm = backend(engine, short / "model", monkeypatch)
    second = " q" * 3 if kind == "loglikelihood" else {"max_gen_toks": 24, "until": []}
    cut = []
    for length in range(90, 135):
        prompt = lm.tokenizer.decode(lm.tokenizer.encode("q z " * 100)[:length])
        request = Instance(kind, {}, (prompt, second), 0, ("task", 0, 1))
        task = SimpleNamespace(instances=[request], config=SimpleNamespace(task="cut"))
        (need,) = lengths.request_needs(lm, task, engine)
        caplog.clear()
        getattr(lm, kind)([request], disable_tqdm=True)
        warned = any("uncat" in record.getMessage() for record in caplog.records)
        assert (need.whole > 128) == warned
        cut.append(warned)
    assert 5 < sum(cut) < 40


def test_an_answer_without_tokens_is_refused(made, tmp_path):
    choices = """doc_to_choice: '{{["a", "b", "c", "" if prompt_id == "test-3" else "d"]}}'"""
    tasks.fetch(TaskSource(path=str(TASKS), heldout=True), tmp_path / "tasks", "nowhere")
    (tmp_path / "tasks/empty.yaml").write_text(f"include: spell_backward_choice.yaml\ntask: empty\n{choices}\n")
    message = message_of(made, tmp_path, "empty=0", **{"--tasks": tmp_path / "tasks"})
    assert message == "empty, document 3: expected an answer of a token or more, found ''; correct the task or its data"


def test_examples_that_are_the_evaluated_documents_are_refused(made, tmp_path):
    """Without a split for them, lm-eval drew examples from all documents: a prompt could hold its own answer."""
    tasks.fetch(TaskSource(path=str(TASKS), heldout=True), tmp_path / "tasks", "nowhere")
    (tmp_path / "tasks/same.yaml").write_text("include: spell_backward.yaml\ntask: same\nfewshot_split: null\n")
    message = message_of(made, tmp_path, "same=2", **{"--tasks": tmp_path / "tasks"})
    assert message.startswith(
        "eval.suites.demo: same: expected examples of other documents, found 2 shots of the split"
    )
    run_program(made, tmp_path, shots=["same=0"], **{"--tasks": tmp_path / "tasks"})


def test_more_shots_than_documents_are_refused(made, tmp_path):
    message = message_of(made, tmp_path, "spell_backward_choice=41")
    assert message.startswith("eval.suites.demo: spell_backward_choice: expected documents that make requests with 41")
