"""Sections as flags and back, and the documents generated from the sections."""

import argparse
import difflib

import pytest
import yaml
from configuration import CONFIG, SCRATCH, load, merged
from pydantic import Field

from wspin.config import base, document
from wspin.config.flags import add_flags, flags, from_flags
from wspin.config.load import load_study
from wspin.config.sources import Scratch
from wspin.config.stages import Dialogue, Generate, Train, at_iteration
from wspin.errors import StudyError

# Flags


def rendered(overlay, k=0):
    return flags(at_iteration(load(overlay).arm_train("spin"), k))


def test_equal_values_give_equal_flags():
    usual = rendered({"train": {"beta": 0.1, "learning_rate": 5.0e-7, "max_grad_norm": 10.0}})
    assert rendered({"train": {"max_grad_norm": 10, "beta": yaml.safe_load("0.10"), "learning_rate": "5e-7"}}) == usual
    assert rendered({"arms": {"spin": {"train": {"beta": "0.1", "learning_rate": [5e-7] * 4}}}}) == usual
    reordered = merged()
    reordered["train"] = dict(reversed(reordered["train"].items()))
    reordered["train"]["schedule"] = dict(reversed(reordered["train"]["schedule"].items()))
    assert flags(at_iteration(load_study(reordered).arm_train("spin"), 0)) == rendered({})
    assert rendered({"train": {"beta": 0.2}}) != rendered({})


def test_flags_hold_this_iterations_values_alone():
    given = {"train": {"learning_rate": [1e-6, 2e-6, 3e-6, 4e-6]}}
    rates = [rendered(given, k)[rendered(given, k).index("--learning-rate") + 1] for k in range(4)]
    assert rates == ["1e-06", "2e-06", "3e-06", "4e-06"]


SECTIONS = {
    "train": at_iteration(load().arm_train("spin"), 2),
    "train of a baseline": load().model_train("dpo"),
    "dialogue": Dialogue(
        template="Q: {prompt}\n100% A: ", eos="</s>", max_prompt_tokens=3, max_tokens=9, eos_on_cut=True
    ),
    "generate": Generate(engine="transformers", temperature=0, top_p=0.95, max_new_tokens=5, batch_size=2),
    "logprobs": load().logprobs,
    "scratch": Scratch(**SCRATCH, context=128),
}


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_trap_08_flags_come_back_as_the_section_they_came_from(section):
    parser = argparse.ArgumentParser()
    add_flags(parser, type(section))
    assert from_flags(parser.parse_args(flags(section)), type(section)) == section


def test_a_percent_sign_in_a_description_is_no_format():
    class Odd(base.Section):
        share: float = Field(description="100% of it")

    parser = argparse.ArgumentParser()
    add_flags(parser, Odd)
    assert "100% of it" in parser.format_help()


def test_sections_share_a_parser_and_every_flag_is_required(capsys):
    parser = argparse.ArgumentParser()
    add_flags(parser, Generate)
    add_flags(parser, Dialogue)
    given = [*flags(SECTIONS["generate"]), *flags(SECTIONS["dialogue"])]
    assert from_flags(parser.parse_args(given), Dialogue) == SECTIONS["dialogue"]
    with pytest.raises(SystemExit):
        parser.parse_args(given[2:])
    assert "--engine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--beta", "x", "--beta: expected a number, found 'x'"),
        ("--schedule-warmup", "2", "--schedule-warmup: expected a number of at most 1, found '2'"),
        ("--optimizer", "sgd", "--optimizer: expected 'rmsprop' or 'adamw', found 'sgd'"),
    ],
)
def test_wrong_flags_are_refused_by_name(flag, value, message):
    parser = argparse.ArgumentParser()
    add_flags(parser, Train)
    with pytest.raises(StudyError) as error:
        from_flags(parser.parse_args([*flags(SECTIONS["train"]), flag, value]), Train)
    assert str(error.value) == message


# Documents


def test_every_key_has_a_description():
    assert [".".join(key.path) for key in document.leaves() if not key.node.get("description")] == []
    assert len(document.leaves()) > 80


@pytest.mark.parametrize("name", ["README.md", "schema.json"])
def test_generated_documents_are_up_to_date(name):
    text = document.render_for(CONFIG)[name]
    diff = difflib.unified_diff(
        (CONFIG / name).read_text().splitlines(), text.splitlines(), f"config/{name}", "generated", lineterm=""
    )
    shown = "\n".join(diff)
    assert not shown, f"run `python tests/update.py`:\n{shown}"


def test_the_readme_explains_every_file_and_every_key():
    text = (CONFIG / "README.md").read_text()
    for path in CONFIG.iterdir():
        assert f"| `{path.name}{'/' if path.is_dir() else ''}` |" in text, f"name {path.name} in document.INTRODUCTION"
    for key in document.leaves():
        single = len(key.path) == 1
        assert f"| `{'.'.join(key.path if single else key.path[1:])}` |" in text
    marked = [line.split("`")[1] for line in text.splitlines() if "**per iteration**" in line]
    assert marked == ["beta", "learning_rate", "epochs"]
