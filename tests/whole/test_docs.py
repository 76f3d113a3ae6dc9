"""What the guides in docs/ work out by hand is what the library computes; commands plan; files and functions exist."""

import ast
import itertools
import json
import re
import shlex
import subprocess
import sys

import attacks
import critique
import inputs
import numpy as np
import pytest
import structure
import torch
import update
import workflow
import yaml
from faults import test_kills

import exchange
from wspin.config import document
from wspin.config import losses as config_losses
from wspin.config.load import load_study, merge
from wspin.config.weigh import Weigh
from wspin.train import losses
from wspin.weigh import alignment, forms

ROOT = workflow.ROOT
PAGE = (ROOT / "docs/token-weights.md").read_text()
TOKEN = re.compile(r'`(".*?")`(?: (-?[\d.]+))?')
FORMS = ("paper_mean", "log_mean", "sum_spread")
SETTINGS = {"source": "teacher", "form": "exp_clamp", "k": 1.0, "mu_chosen": 1.0, "mu_rejected": -1.0, "lower": -0.5}
SETTINGS |= {"upper": 1.5, "control": "none", "normalise": "none", "eos_weight": 1.0}


def worked_example(side):
    """Rows of the table under a side's name; `the same` in a cell is what stands above it."""
    lines = PAGE.split(f"**{side.capitalize()}**")[1].split("\n\n")[1].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
    for above, row in itertools.pairwise(rows):
        row[3] = above[3] if row[3] == "the same" else row[3]
    return rows


def tokens(cell):
    """(text, log-probability) of the tokens in a cell."""
    return [(json.loads(text), float(value or 0)) for text, value in TOKEN.findall(cell)]


def teacher_tokens(rows):
    """The teacher's tokens, those of a segment once."""
    cells = {row[0]: row[3] for row in rows}
    return [token for cell in cells.values() for token in tokens(cell)]


def aligned(rows):
    student, teacher = [tokens(row[1])[0][0] for row in rows], [text for text, _ in teacher_tokens(rows)]
    assert "".join(student) == "".join(teacher)
    ends = [np.cumsum([len(text) for text in side]) for side in (student, teacher)]
    return alignment.align("".join(student), *ends)


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_the_segments_are_those_of_the_page(side):
    rows = worked_example(side)
    assert aligned(rows).student.tolist() == [int(row[0]) for row in rows]
    assert len(rows) in (4, 5)


@pytest.mark.parametrize("side", ["chosen", "rejected"])
@pytest.mark.parametrize("form", FORMS)
def test_the_weights_are_those_of_the_page(side, form):
    rows = worked_example(side)
    student = np.array([float(row[2]) for row in rows])
    teacher = np.array([value for _, value in teacher_tokens(rows)])
    settings = Weigh(**SETTINGS, segment_agg=form)
    computed = forms.scored_weights(aligned(rows), -student, teacher, side, settings, None).weights
    assert [f"{weight:.3f}" for weight in computed] == [row[5 + FORMS.index(form)] for row in rows]


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_the_log_ratios_are_those_of_the_page(side):
    for row in worked_example(side):
        expected = [value - float(row[2]) for _, value in tokens(row[3])]
        assert [float(ratio) for ratio in row[4].split(", ")] == pytest.approx(expected)


# The losses


def loss_rows():
    """Loss -> cells of its row."""
    lines = (ROOT / "docs/losses.md").read_text().split("| `loss` |")[1].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row for row in rows}


def test_the_table_of_losses_is_that_of_the_configuration():
    rows = loss_rows()
    assert tuple(rows) == config_losses.LOSSES
    for loss, row in rows.items():
        assert set(re.findall(r"`(.+?)`", row[1])) == {k for k, v in config_losses.ALIASES.items() if v == loss}


@pytest.mark.parametrize("loss", config_losses.LOSSES[1:])
def test_the_losses_are_those_of_the_page(loss):
    values = {"beta": 0.1, "label_smoothing": 0.0, "alpha": 0.5}
    options = {key: values[key] for key in config_losses.loss_keys(loss)}
    examples = ((0.0, 0.0, 0.0), (2.0, 0.3, 0.5))
    for (margin, chosen, rejected), cell in zip(examples, loss_rows()[loss][3:5], strict=True):
        if config_losses.LOSS_INPUTS[loss].divergence:
            options |= {"chosen_kl": torch.tensor(chosen), "rejected_kl": torch.tensor(rejected)}
        found = losses.PREFERENCE[loss](torch.tensor(margin), **options).item()
        named = {"log 2": np.log(2.0), "1": 1.0, "1 / (4 β²) = 25": 25.0}
        assert found == pytest.approx(named[cell] if cell in named else float(cell), abs=1e-6)


# From the original


ORIGINAL = (ROOT / "docs/from-the-original.md").read_text()
BLOCKS = {kind: re.findall(rf"^```{kind}\n(.*?)^```$", ORIGINAL, re.M | re.S) for kind in ("bash", "yaml")}
INLINE = re.findall(r"`((?:snakemake|make|git|conda) [^`]+)`", ORIGINAL)


def commands(tool):
    """Commands of the page that begin with a tool: those of its blocks and those in its tables."""
    lines = "\n".join(BLOCKS["bash"]).replace("\\\n", " ").splitlines()
    return [shlex.split(command) for command in (*lines, *INLINE) if command.startswith(f"{tool} ")]


def snakemakes():
    """Options -> targets: what can be planned in one run."""
    targets = {}
    for _, profile, name, *words in commands("snakemake"):
        end = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
        targets.setdefault((profile, name, *words[end:]), []).extend(words[:end])
    return targets


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A copy of the repository with the page's overlay, and the files that it names."""
    copy = workflow.checkout(tmp_path_factory.mktemp("original"))
    (overlay,) = BLOCKS["yaml"]
    (copy.folder / overlay.splitlines()[0].removeprefix("# ")).write_text(overlay)
    for name in ("rows/train.parquet", "rows/test.parquet", "pairs.jsonl"):
        (copy.folder / "given" / name).parent.mkdir(parents=True, exist_ok=True)
        (copy.folder / "given" / name).touch()
    return copy


@pytest.mark.parametrize(("options", "targets"), snakemakes().items(), ids=lambda words: " ".join(words[:4]))
def test_a_command_of_the_page_plans_every_target(imported, options, targets):
    command = [sys.executable, "-m", "snakemake", "--dry-run", *targets, *options]
    done = subprocess.run(command, cwd=imported.folder, env=workflow.environment(), text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rules = set(re.findall(r"^(?:local)?rule (\S+):$", done.stdout, re.MULTILINE))
    if "--until" in options:
        assert options[-1] in rules
        assert not {"eval", *targets} & rules
    else:
        assert set(targets) <= rules | workflow.Plan(done.stdout).made()
    if "--configfile" in options:
        assert {"generate_given", "weigh_given"} <= rules


def test_the_pages_commands_of_other_tools_are_known():
    parser = exchange.parser()
    assert len([parser.parse_args(words[2:]) for words in commands("python")]) == 4
    assert {words[1] for words in commands("python")} == {"workflow/scripts/exchange.py"}
    assert {words[1] for words in commands("make")} == {"setup"}


def test_the_page_has_every_step_and_file_of_the_readme():
    steps = re.findall(r"^\| (\d\.\d) \|", ORIGINAL, re.MULTILINE)
    assert steps == ["2.1", "2.2", "2.3", "2.4", *(f"{part}.{step}" for part in (3, 4, 5) for step in (1, 2, 3, 4))]
    assert [part for part in range(2) if f"Part {part}" in ORIGINAL] == [0, 1]
    named = ("environment.yml", "requirements.txt", "scripts/download.py", "train.py", "utils.py", "output/")
    named += ("preference_datasets.py", "trainers.py", "transform_config.py", "loss=dpo", "loss=tis-dpo", "datasets=")
    named += ("model=qwen", "model.name_or_path", "base_data_dir", "git clone", "git lfs pull", "conda activate wspin")
    named += tuple(f"data/Ultrachat200k/{kind}/" for kind in ("DPO", "SPIN", "WSPIN"))
    assert [name for name in named if name not in ORIGINAL] == []


def test_files_that_the_page_names_exist():
    names = re.findall(r"`((?:workflow|wspin|config|envs)/[\w./]+|constraints\.txt)`", ORIGINAL)
    roots = (ROOT, ROOT / "workflow/scripts")
    assert len(names) > 10
    assert [name for name in names if not any((root / name).exists() for root in roots)] == []


def test_keys_that_the_page_names_are_keys():
    """Overlays in the text, and names of keys in the tables of settings."""
    base = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    overlays = [yaml.safe_load(text) for text in re.findall(r"`(\w+: \{.+?\})`", ORIGINAL)]
    assert len(overlays) >= 2
    for overlay in overlays:
        load_study(merge(base, overlay))
    keys = {".".join(key.path) for key in document.leaves()}
    named = re.findall(r"`((?:train|weigh|dialogue|generate|data|logprobs)\.(?!py)[\w.]+)`", ORIGINAL)
    assert len(named) > 15
    assert [name for name in named if not any(f"{key}.".startswith(f"{name}.") for key in keys)] == []


def test_the_pages_ranges_are_those_of_the_formula():
    settings = Weigh(**SETTINGS, segment_agg="paper_mean")
    for mu in (1.0, -1.0):
        ends = sorted(forms.exp_clamp(np.array([settings.lower, settings.upper]), mu, settings))
        assert "between {:.3f} and {:.3f}".format(*ends) in ORIGINAL


# Names of the code

PAGES = [
    ROOT / name
    for name in ("README.md", "CONTRIBUTING.md", *(f"docs/{name}.md" for name in ("architecture", "engine")))
]
PAGES += [
    ROOT / f"docs/{name}.md" for name in ("token-weights", "cluster", "generation", "fetching", "preflight", "demo")
]
PLACE = re.compile(r"`((?:\w+/)*\w+\.(?:py|smk))(?::([\w.]+))?`")


def definitions(path):
    """Names that a module defines: functions, classes, constants, and `Class.method`."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
            yield from (f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_functions_that_a_page_names_exist(page):
    """`path.py` and `path.py:function`, from the repository, the programs or the library."""
    missing = []
    for place, name in PLACE.findall(page.read_text()):
        roots = (ROOT, ROOT / "workflow/scripts", ROOT / "workflow/scripts/wspin")
        path = next((root / place for root in roots if (root / place).is_file()), None)
        if path is None or (name and name not in definitions(path)):
            missing.append(f"{place}:{name}")
    assert missing == []


def test_the_rooms_of_the_page_are_those_of_the_table():
    """`| room | may import | what is in it |` in docs/architecture.md."""
    table = (
        (ROOT / "docs/architecture.md").read_text().split("| room | may import | what is in it |\n")[1].split("\n\n")[0]
    )
    rows = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()[1:]]
    written = {room.strip("`/").removesuffix(".py"): set(re.findall(r"`(\w+)`", allowed)) for room, allowed, _ in rows}
    assert written == {room: set(allowed.split()) for room, allowed in structure.ALLOWED.items()}


def test_the_index_lists_every_page():
    index = (ROOT / "docs/README.md").read_text()
    assert [page.name for page in ROOT.glob("docs/*.md") if f"({page.name})" not in index] == ["README.md"]


# What is generated


def test_the_table_of_inputs_is_that_of_the_cases():
    """`python tests/update.py` renews it."""
    page = (ROOT / "docs/robustness.md").read_text()
    assert update.fill(page, "inputs", inputs.markdown()) == page
    kinds = {kind: len(cases) for kind, cases in inputs.all_cases()}
    assert sum(kinds.values()) >= 150
    assert kinds.keys() >= {"config", "rows", "models", "tokenizers", "templates", "files", "states"}


def test_the_page_of_faults_has_every_stage_and_nothing_lost():
    """`make faults` and `python tests/update.py` renew it."""
    page = (ROOT / "docs/robustness.md").read_text()
    rows = re.findall(r"^\| ([\w :-]+) \| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    tried = {name.removeprefix("kill -9: "): int(number) for name, number, _, _ in rows}
    assert tried.keys() == {*test_kills.STAGES, "interruptions", "storage", "bad inputs", "all"}
    assert sum(tried[stage] for stage in test_kills.STAGES) >= 500
    assert {lost for *_, lost in rows} == {"0"}


def test_the_table_of_attacks_is_that_of_the_tests():
    """`python tests/update.py` renews it; a row that is compared with a message shows it as code."""
    page = (ROOT / "SECURITY.md").read_text()
    assert update.fill(page, "attacks", attacks.markdown()) == page
    kinds = {row[0] for row in attacks.attacks()}
    assert kinds == set(attacks.KINDS)


def test_the_readme_counts_the_studys_jobs(repository):
    """As `snakemake --profile local -n all` plans them; `python tests/update.py` renews the table."""
    listed = (ROOT / "README.md").read_text().split("<!-- study jobs -->\n")[1].split("<!-- study jobs end -->")[0]
    assert listed == update.job_list(repository.plan("all").counts)


def test_the_hours_of_the_pages_are_those_of_preflight():
    """`python tests/update.py` renews them."""
    for page, mark, text in update.estimated_hours():
        written = (ROOT / page).read_text()
        assert f"<!-- {mark} -->\n{text}<!-- {mark} end -->" in written


def test_the_published_page_is_computed_from_the_published_cells():
    """`python tests/update.py` renews it."""
    page = (ROOT / "docs/published.md").read_text()
    assert update.fill(page, "published numbers", critique.markdown()) == page
    assert "**33 cells cannot be a share" in page


def test_the_real_models_page_shows_what_a_run_made():
    """Tables and texts are there, and no mark was left empty."""
    page = (ROOT / "docs/real-model.md").read_text()
    for mark, first in (("scores", "| model "), ("weights", "| iteration "), ("examples", "The first prompts")):
        assert page.split(f"<!-- real {mark} -->\n")[1].startswith(first)
