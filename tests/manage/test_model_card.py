"""What a model's card says, when it is renewed, and that it makes nothing else again."""

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest
import results as made
from attacks import attack
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from transformers import AutoModelForCausalLM

import manage
from wspin.config.load import read_results
from wspin.errors import StudyError
from wspin.manage import model_card, stale
from wspin.study.paths import StudyPaths

MODEL = "wspin/ite3"


@pytest.fixture
def results(root, tmp_path, scratch_model):
    folder = made.study(root, tmp_path / "results")
    made.put_model(folder, MODEL, scratch_model)
    return folder


def text(results, model=MODEL):
    return (results / model / "model/README.md").read_text()


def renew(results):
    """The models whose cards have been written."""
    *paths, total = model_card.renew_cards(results)
    assert re.fullmatch(rf"cards written: {len(paths)} of \d; the others are up to date", total)
    return [str(Path(path).parents[1].relative_to(results)) for path in paths]


def layout(results):
    return StudyPaths(read_results(results))


def test_a_card_says_what_the_model_is(results):
    assert renew(results) == [MODEL]
    told = text(results)
    for part in (
        "`base` → `sft` → `wspin/ite0` → `wspin/ite1` → `wspin/ite2` → `wspin/ite3`",
        "TIS-DPO",
        "of 2 iterations",
        "seed 42, iteration 3",
        "Not scored yet.",
        "\\n\\n<Human>:{prompt}\\n\\n<Assistant>:",
        "mu_rejected: -1.0",
        "beta: 1.0",
        "arXiv 2401.01335",
    ):
        assert part in told, part
    assert "node17" not in told and str(results) not in told


FROZEN = "Its reference is a frozen copy of `sft`"
REFERENCE_FREE = "Without a reference (`reference_free`): log-probabilities stand"


@pytest.mark.parametrize(
    ("train", "parts"),
    [
        ({"loss": "dpo"}, ["exp(-β h)"]),
        ({"loss": "dpo", "reference_free": True}, ["exp(-β h)", REFERENCE_FREE]),
        ({"loss": "hinge"}, ["max(0, 1 - β h)"]),
        ({"loss": "ipo"}, ["(h - 1 / (2 β))²"]),
        ({"loss": "tdpo1"}, ["exp(-β (h - KL(rejected) + KL(chosen)))", "KL(reference ‖ policy) of the", FROZEN]),
        ({"loss": "tdpo2", "alpha": 0.5}, [" (KL(rejected) - KL(chosen)))", "KL(reference ‖ policy)", FROZEN]),
        ({"loss": "wspin", "alpha": 0.0}, ["exp(-β h)"]),
        ({"loss": "wspin", "alpha": 0.5}, [" (KL(chosen) - KL(rejected)))", "KL(policy ‖ reference)", FROZEN]),
    ],
)
def test_a_card_describes_its_loss_and_names_a_reference_exactly_where_it_has_one(
    root, tmp_path, scratch_model, train, parts
):
    arm = "wspin" if train["loss"] == "wspin" else "spin"
    folder = made.study(root, tmp_path / "results", arms={arm: {"train": train}})
    made.put_model(folder, f"{arm}/ite0", scratch_model)
    renew(folder)
    card = text(folder, f"{arm}/ite0")
    assert [part for part in parts if part not in card] == []
    assert [sentence in card for sentence in (FROZEN, REFERENCE_FREE)] == [
        sentence in parts for sentence in (FROZEN, REFERENCE_FREE)
    ]
    assert ("KL" in card) == (FROZEN in parts)


PAIRED = {"source": "pair", "positive": "dpo", "negative": "student"}


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ({"loss": "dpo", "data": "preferences"}, ["- N pairs of the split"]),
        (
            {"loss": "dpo", "data": "preferences", "reverse": True},
            ["- N pairs, their chosen and rejected answers swapped,"],
        ),
        (
            {"loss": "sft", "data": "preferences.rejected"},
            ["tokens of rejected answers,", "the rejected answers of N pairs"],
        ),
        ({"loss": "sft", "data": "answers", "of": "dpo"}, ["tokens of answers of `dpo` (sequence-level distillation"]),
        (
            {"loss": "wspin", "data": "preferences"},
            ["weights come from the teacher `teacher`: trained"],
        ),
        (
            {"loss": "wspin", "data": "preferences", "weigh": PAIRED},
            ["to the model it started from on the chosen answer", "of `dpo`, minus those of `sft`.", "positive: dpo"],
        ),
    ],
)
def test_a_card_says_what_a_registry_model_was_trained_on(root, tmp_path, scratch_model, entry, parts):
    models = {"m": {"from": "sft", **entry}}
    folder = made.study(root, tmp_path / "results", models=models, generate={"answers": "greedy"})
    made.put_model(folder, "m", scratch_model)
    renew(folder)
    card = text(folder, "m").replace(f"{layout(folder).study.data.preferences.pairs} pairs", "N pairs")
    assert [part for part in parts if part not in card] == []
    assert "opponent" not in card


@pytest.mark.parametrize(("side", "told"), [("plus", False), ("minus", True)])
def test_a_card_says_what_a_contrast_is_for(root, tmp_path, scratch_model, side, told):
    arms = {"pair": {"train": {"loss": "wspin"}, "weigh": {"source": "pair", "retrain": True}}}
    folder = made.study(root, tmp_path / "results", arms=arms)
    made.put_model(folder, f"pair/ite1/{side}", scratch_model)
    assert renew(folder) == [f"pair/ite1/{side}"]
    card = text(folder, f"pair/ite1/{side}")
    assert "one of the pair that weighs the tokens of `pair/ite1`" in card
    assert ("rejected in favour of the opponent's own" in card) is told


def test_the_header_is_one_that_the_hub_reads(results):
    renew(results)
    header = ModelCard.load(results / MODEL / "model/README.md").data.to_dict()
    assert header == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["self-play", "wspin"],
    }


def test_a_base_model_of_the_hub_gives_its_licence_to_all_that_is_trained_from_it(root, tmp_path, scratch_model):
    hub = {"hub": "Qwen/Qwen1.5-1.8B", "revision": "7" * 40, "scratch": None, "license": model_card.QWEN}
    folder = made.study(root, tmp_path / "results", models={"base": hub})
    made.put_model(folder, MODEL, scratch_model)
    renew(folder)
    header = ModelCard.load(folder / MODEL / "model/README.md").data
    assert (header.license, header.license_name, header.base_model) == ("other", model_card.QWEN, "Qwen/Qwen1.5-1.8B")
    assert header.license_link.startswith("https://huggingface.co/Qwen/")
    assert "not for commercial use" in text(folder) and "check its card too" in text(folder)


def test_a_licence_that_nobody_stated_is_not_made_up(root, tmp_path, scratch_model):
    hub = {"hub": "me/base", "revision": "7" * 40, "scratch": None}
    folder = made.study(root, tmp_path / "results", models={"base": hub})
    made.put_model(folder, MODEL, scratch_model)
    renew(folder)
    assert "license" not in ModelCard.load(folder / MODEL / "model/README.md").data.to_dict()
    assert "Not stated in the study: see the base model, [me/base]" in text(folder)


def test_scores_come_with_their_errors_once_there_are_some(results):
    renew(results)
    made.put_scores(results, MODEL)
    assert renew(results) == [MODEL]
    assert "| spell_backward | `exact_match,none` | 0 | 400 | 50.00 ± 2.50 |" in text(results)
    assert "| average | | | | 50.00 ± 1.77 |" in text(results)
    assert renew(results) == []


def test_scores_of_another_model_are_not_this_ones(results):
    made.put_scores(results, MODEL)
    file = results / MODEL / "scores/demo.json"
    file.write_text(file.read_text().replace('"model": "', '"model": "0'))
    renew(results)
    assert "Not scored yet." in text(results)


def test_the_model_still_loads_and_is_what_its_manifest_says(results):
    before = (results / MODEL / "manifest.json").read_text()
    renew(results)
    provenance_model = json.loads(before)
    AutoModelForCausalLM.from_pretrained(results / MODEL / "model")
    assert "README.md" not in provenance_model["files"]
    assert [str(path) for path, _ in stale.stale_results(results)[0]] == [str(results / MODEL / "model")]  # code "c0de"


@pytest.mark.parametrize("chat_template", [None, "{{ messages[0].content }}"], ids=["plain", "as it is"])
def test_the_snippet_runs(results, monkeypatch, capsys, chat_template):
    """That of a folder with a chat template is shorter; folders of earlier versions have none."""
    if chat_template:
        (results / MODEL / "model/chat_template.jinja").write_text(chat_template)
    renew(results)
    monkeypatch.chdir(results / MODEL / "model")
    snippet = text(results).split("```python\n")[1].split("```")[0]
    exec(snippet, {})
    assert capsys.readouterr().out
    assert ("pipeline(" in snippet) is bool(chat_template)


def test_a_card_is_left_with_a_model_that_has_just_been_made(results, tmp_path, capsys):
    model_card.add_card(str(results / MODEL / "model"))
    assert "# wspin/ite3" in text(results)
    model_card.add_card(str(tmp_path / "alone/model"))
    assert "no card yet" in capsys.readouterr().out


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), jinja2.UndefinedError("no such name")])
def test_a_card_that_cannot_be_written_does_not_fail_the_job(results, monkeypatch, capsys, error):
    def full(path):
        raise error

    monkeypatch.setattr(model_card, "whole_file", full)
    model_card.add_card(str(results / MODEL / "model"))
    assert "no card yet" in capsys.readouterr().out


def test_a_folder_without_a_study_is_refused_in_one_line(tmp_path):
    with pytest.raises(StudyError, match="expected the resolved study, found no file"):
        manage.main(["cards", "--results", str(tmp_path)])


def test_a_renewed_card_makes_nothing_again(study):
    """Downstream jobs watch the manifest; the folder's own time is nobody's business."""
    for folder in study.folder.glob("results/two/**/model"):
        (folder / "README.md").write_text("# a card\n")
    assert study.plan("all").jobs == []


def test_a_run_leaves_cards_with_the_scores_that_it_made(study, scratch_model):
    """`all` ends with them, whatever it made, and its next dry run still plans nothing."""
    results, name = study.folder / "results/two", "spin/ite1"
    suites = {results / name / "scores/quick.json": ["one"], results / name / "scores/slow.json": ["two", "three"]}
    manifest = results / name / "manifest.json"
    times = {path: path.stat() for path in (manifest, *suites)}
    shutil.rmtree(results / name / "model")
    made.put_model(results, name, scratch_model)
    entries = {**made.SCORES, "model": json.loads(manifest.read_text())["model"]}
    for path, tasks in suites.items():
        scored = dict.fromkeys(tasks, made.SCORES["tasks"]["spell_backward_choice"])
        path.write_text(json.dumps({**entries, "suite": path.stem, "tasks": scored}))
    for path, time in times.items():
        os.utime(path, ns=(time.st_atime_ns, time.st_mtime_ns))
    (results / "tables/scores.md").unlink()
    done = study.run("all")
    assert done.returncode == 0, done.stdout
    assert "cards written: 1 of 1; the others are up to date" in done.stdout
    assert "| one | `acc,none` | 0 | 400 | 50.00 ± 2.50 |" in text(results, name)
    assert study.plan("all").jobs == []


def test_a_card_that_cannot_be_written_does_not_fail_the_run(results, capsys):
    (results / MODEL / "model/provenance.json").write_text("{")
    model_card.refresh_cards(results)
    line = capsys.readouterr().out
    assert line.startswith("cards: not all up to date, `snakemake --profile local cards` tries again: ")
    assert "provenance.json" in line and line.count("\n") == 1


def test_a_card_names_the_engines_with_their_suites():
    def engines(**by_suite):
        files = [SimpleNamespace(engine=engine, suite=suite) for suite, engine in by_suite.items()]
        return model_card._engines([SimpleNamespace(scores=scores) for scores in files])

    assert engines(arc="vllm", gsm8k="vllm") == "vllm"
    mixed = engines(arc="transformers", gsm8k="vllm", mmlu="transformers")
    assert mixed == "transformers (arc, mmlu) and vllm (gsm8k)"


@pytest.mark.parametrize(
    ("dtype", "autocast", "expected"),
    [
        ("float32", "float32", "products in float32"),
        ("float32", "bfloat16", "products in bfloat16"),
        ("bfloat16", "float32", "weights and products in bfloat16"),
        ("bfloat16", "bfloat16", "weights and products in bfloat16"),
    ],
)
def test_a_card_says_in_which_precision_a_model_was_scored(dtype, autocast, expected):
    """A model that is loaded in bfloat16 computes in it, whatever `eval.autocast` says."""
    assert model_card._precision(SimpleNamespace(dtype=dtype, autocast=autocast)) == expected


HOSTILE = "x\n---\nlicense: mit\n```\n<script>alert(1)</script> [x](javascript:y) ![](http://127.0.0.1/t.png) `|"
FOREIGN = ("link_open", "image", "html_inline", "html_block", "fence", "heading_open", "th_open", "td_open")


def card_of(root, folder, scratch_model, foreign):
    """(header, number of blocks and links by kind) of a card into which this text was put wherever any can be put."""
    line = foreign.replace("\n", " ")
    edit = {"dialogue": {"template": f"{{prompt}} {foreign}"}, "models": {"base": {"license": line}}}
    path = made.put_model(made.study(root, folder, **edit), MODEL, scratch_model)
    made.put_scores(folder, MODEL)
    scores, record = folder / MODEL / "scores/demo.json", path / "provenance.json"
    scores.write_text(json.dumps(json.loads(scores.read_text()) | {"engine": foreign, "versions": {foreign: foreign}}))
    entries = json.loads(record.read_text()) | {"commit": foreign, "settings": {**made.SETTINGS, foreign: foreign}}
    record.write_text(json.dumps({key: value for key, value in entries.items() if key != "checksum"}))
    renew(folder)
    assert all(line.isprintable() for line in text(folder).split("\n"))
    card = ModelCard.load(path / "README.md")
    blocks = MarkdownIt().enable("table").parse(card.text)
    kinds = [token.type for block in blocks for token in (block, *(block.children or ()))]
    return card.data.to_dict(), [kinds.count(kind) for kind in FOREIGN]


@attack(
    "display",
    "a licence, template, version or setting with YAML of its own, a closing code fence, HTML, links or images",
    "the card's header has the same keys; below it stands text, under the same headings",
)
def test_foreign_text_in_a_card_is_text(root, tmp_path, scratch_model):
    header, kinds = card_of(root, tmp_path / "plain", scratch_model, "plain")
    hostile, same = card_of(root, tmp_path / "hostile", scratch_model, HOSTILE)
    assert hostile == {**header, "license_name": HOSTILE.replace("\n", " ")}
    assert kinds == same
