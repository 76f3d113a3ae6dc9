"""Configuration files: one line for each mistake, with its file and line."""

from functools import partial

from inputs import Case, check_case


def overlay(text, folder):
    (folder / "study.yaml").write_text(text)
    return ["config", "study.yaml"]


def written(text):
    """Prepares an overlay with this text."""
    return partial(overlay, text)


CASES = [
    Case(
        "a key without a value",
        written("train:\n  beta:\n"),
        """\
config/config.yaml:20: models.dpo.train.beta: missing key; loss dpo needs it, and nothing is defaulted silently
config/config.yaml:120: arms.spin.train.beta: missing key; loss spin needs it, and nothing is defaulted silently
config/config.yaml:121: arms.wspin.train.beta: missing key; loss wspin needs it, and nothing is defaulted silently
config/config.yaml:122: arms.wspin.paper.train.beta: missing key; loss wspin needs it, and nothing is defaulted silently""",
    ),
]

test_config = check_case(CASES)
