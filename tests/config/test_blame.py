"""Mistakes of a user's overlay are reported at the key of the layer that has to change."""

import pytest
import yaml
from configuration import BASE, CONFIG, line_of

from wspin.config.load import read_study
from wspin.errors import StudyError

BELOW, ABOVE = "eval: {batch_size: 8}\n", "report: {examples: 5}\n"
LISTED = "expected one value or a list of {}, one for each iteration, found a list of 4"
REGISTRY = "it holds base, sft, teacher, dpo"
ARMS = "there are spin, wspin, wspin.paper"
TASKS = "there are arc_challenge, hellaswag, mmlu, truthfulqa_mc2, winogrande, gsm8k"
NAME = "expected a name of a-z, 0-9, `_`, `.` and `-` that begins with a letter"


def below(text):
    """The line of the study's file that begins with a text."""
    return f"contradicts {line_of(text)}"


# Overlay; line and key of the overlay at which it is reported; the rest of the message
MISTAKES = {
    "an unknown teacher of an arm": (
        "arms:\n  mine: {train: {loss: wspin}, teacher: techer}",
        "2: arms.mine.teacher",
        f"no model 'techer' in the registry; {REGISTRY}; did you mean 'teacher'?",
    ),
    "a start of one's own, whose context no row has to fit": (
        "models:\n  sft: {path: /data/mine, from: null, loss: null, data: null}",
        "2: models.sft",
        f"{below('fits:')}: data.fits: 'sft' is missing, from which arms start: rows have to fit its context; add it",
    ),
    "a fork of an arm that is missing": (
        "arms:\n  mine:\n    fork: {from: spinn, at: 1}",
        "3: arms.mine.fork.from",
        f"no arm 'spinn'; {ARMS}, mine; did you mean 'spin'?",
    ),
    "a fork beyond the parent's iterations": (
        "arms:\n  mine:\n    fork: {from: spin, at: 4}\n    iterations: 5\n    train: {learning_rate: 1.0e-7}",
        "3: arms.mine.fork.at",
        "'spin' has no iteration 4; its last is 3",
    ),
    "more iterations than the study's list has values": (
        "arms:\n  mine: {iterations: 6}",
        "2: arms.mine.train.learning_rate",
        f"{LISTED.format(6)} in train.learning_rate; give arms.mine.train its own",
    ),
    "fewer iterations than the study's list has values": (
        "seed: 7\niterations: 3",
        "2: iterations",
        f"{below('learning_rate:')}: train.learning_rate: {LISTED.format(3)}",
    ),
    "an unknown source of weights": (
        "arms:\n  mine: {train: {loss: wspin}, weigh: {source: teachr}}",
        "2: arms.mine.weigh.source",
        "expected 'teacher', 'equal', 'pair' or 'swift_as_released', found 'teachr'; did you mean 'teacher'?",
    ),
    "an unknown scorer of an arm": (
        "arms:\n  mine: {train: {loss: wspin}, weigh: {source: pair, positive: me, negative: base}}",
        "2: arms.mine.weigh.positive",
        f"no model 'me' in the registry; {REGISTRY}",
    ),
    "a seed given twice": (
        "arms:\n  spin: {seeds: [42, 43, 43]}",
        "2: arms.spin.seeds",
        "43 is given 2 times; name it once",
    ),
    "seeds without the study's": (
        "arms:\n  spin: {seeds: [43, 44]}",
        "2: arms.spin.seeds",
        "expected the study's seed 42 among them, which 'spin' itself has; add it",
    ),
    "an unknown task in a mean": (
        "report:\n  groups: {average: [arc_challenge, mmlu2]}",
        "2: report.groups.average",
        f"no task 'mmlu2' in report.metrics; {TASKS}; did you mean 'mmlu'?",
    ),
    "a model without a source": (
        "models:\n  mine: {template: chat}",
        "2: models.mine",
        "expected exactly one of hub, path, package, scratch, from, found none; give one",
    ),
    "a path beside the inherited name on the hub": (
        "models:\n  base: {path: /data/model}",
        "2: models.base",
        "expected exactly one of hub, path, package, scratch, from, found hub, path; set the others to null",
    ),
    "another name on the hub, with the commit of the one before": (
        "models:\n  teacher: {hub: someone/else}",
        "2: models.teacher.hub",
        "expected a revision of its own, found that of alignment-handbook/zephyr-7b-sft-full; give its commit, or null"
        " for `make revisions`",
    ),
    "a model removed that tables still name": (
        "models:\n  dpo: null",
        "2: models.dpo",
        f"{below('models: [base, sft')}: eval.models: no model 'dpo' in the registry; it holds base, sft, teacher",
    ),
    "a baseline removed": (
        "arms:\n  mine: {}\n  spin: null",
        "3: arms.spin",
        f"{below('baseline:')}: report.baseline: no arm 'spin'; there are wspin, wspin.paper, mine;"
        " did you mean 'wspin'?",
    ),
    "a list where a section is wanted": (
        "arms:\n  - mine",
        "1: arms",
        "expected a section, `key: value`, found ['mine']; write `mine: ...` without the dash or brackets",
    ),
    "text where an arm is wanted": (
        "arms:\n  mine: spin",
        "2: arms.mine",
        "expected a section, `key: value`, found 'spin'",
    ),
    "a wrong type in an arm's training": (
        "arms:\n  mine: {train: {beta: strong}}",
        "2: arms.mine.train.beta",
        "expected a number, found 'strong'",
    ),
    "a wrong type in a list of an arm's training": (
        "arms:\n  mine: {train: {epochs: [1, 2, three, 4]}}",
        "2: arms.mine.train.epochs.2",
        "expected a whole number, found 'three'",
    ),
    "an arm's key one level too high": (
        "arms:\n  mine: {beta: 0.2}",
        "2: arms.mine.beta",
        "unknown key; did you mean `train: {beta: ...}`?",
    ),
    "a key at the top that belongs to a section": (
        "beta: 0.2",
        "1: beta",
        "unknown key; did you mean `train: {beta: ...}`?",
    ),
    "a slash in an arm's name": (
        "arms:\n  wspin/ite0: {}",
        "2: arms.wspin/ite0",
        f"{NAME}, found 'wspin/ite0'; rename it",
    ),
    "engines without those of the study's suites": (
        "eval:\n  engine: {gsm8k: vllm, mmlu: vllm}",
        "2: eval.engine",
        "no engine for suites 'arc', 'hellaswag', 'truthfulqa', 'winogrande'; add one, such as `arc: transformers`",
    ),
    "lengths that leave no room for the study's answers": (
        "dialogue: {max_tokens: 1200}",
        "1: dialogue.max_tokens",
        f"{below('max_new_tokens:')}: generate.max_new_tokens: expected at most 176"
        " (dialogue.max_tokens 1200 less max_prompt_tokens 1024), found 512",
    ),
    "more GPUs than a step has pairs": (
        "resources:\n  train: {gpu: 128}",
        "2: resources.train.gpu",
        f"{below('global_batch:')}: train.global_batch: expected one pair or more for each GPU"
        " (resources.train.gpu 128), found 64",
    ),
    "an arm's loss that contradicts the study's alpha": (
        "arms:\n  mine: {train: {loss: tdpo2}}",
        "2: arms.mine.train.loss",
        f"{below('alpha:')}: train.alpha: loss tdpo2 without its KL term is dpo: expected above 0"
        " (0.5 in the published code)",
    ),
}


def refusal(files, command_line=None):
    with pytest.raises(StudyError) as error:
        read_study([BASE, *files], command_line)
    return error.value.args


@pytest.mark.parametrize(("overlay", "at", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported_in_its_layer(tmp_path, overlay, at, message):
    """As the file in the middle of three, and as text of the command line."""
    files = [tmp_path / name for name in ("below.yaml", "mine.yaml", "above.yaml")]
    for file, text in zip(files, (BELOW, overlay, ABOVE), strict=True):
        file.write_text(f"{text}\n")
    assert refusal(files) == (f"{files[1]}:{at}: {message}",)
    assert refusal([files[0]], yaml.safe_load(overlay)) == (f"--config: {at.split(': ')[1]}: {message}",)


def test_of_two_overlays_the_later_contradicts_the_earlier(tmp_path):
    lists, rounds = tmp_path / "lists.yaml", tmp_path / "rounds.yaml"
    lists.write_text("train:\n  epochs: [1, 1, 2, 2]\n")
    rounds.write_text("train: {learning_rate: 1.0e-7}\niterations: 2\n")
    told = "train.epochs: expected one value or a list of 2, one for each iteration, found a list of 4"
    assert refusal([lists, rounds]) == (f"{rounds}:2: iterations: contradicts {lists}:2: {told}",)
    assert refusal([rounds, lists]) == (f"{lists}:2: {told}",)


def test_a_seed_contradicts_the_replicates_of_an_overlay(tmp_path):
    """Each entry with seeds is reported at the one key that is to blame."""
    seed = tmp_path / "seed.yaml"
    seed.write_text("seed: 41\n")
    lines = refusal([CONFIG / "overlays/demo.yaml", CONFIG / "overlays/findings.yaml", seed])
    assert len(lines) > 5
    assert all(line.startswith(f"{seed}:1: seed: contradicts {CONFIG}/overlays/findings.yaml:") for line in lines)


@pytest.mark.parametrize(
    "overlay",
    [
        "models: {teacher: {hub: someone/else, revision: 0123456789abcdef0123456789abcdef01234567}}",
        "models: {teacher: {hub: alignment-handbook/zephyr-7b-sft-full}}",
        "models: {teacher: {hub: null, revision: null, path: here}}",
        "models: {teacher.large: {hub: someone/else, revision: 0123456789abcdef0123456789abcdef01234567}}",
    ],
)
def test_a_name_on_the_hub_comes_with_its_commit(tmp_path, overlay):
    (file := tmp_path / "mine.yaml").write_text(overlay)
    assert read_study([BASE, file])
