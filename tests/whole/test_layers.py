"""The design rules: which room imports which, and that a program's code hash covers what it runs."""

import re
import shutil

import pytest
import structure

ROOMS = structure.ALLOWED.keys()


@pytest.fixture
def library(tmp_path):
    """A copy of the library, to plant imports in."""
    return shutil.copytree(structure.LIBRARY, tmp_path / "wspin")


def plant(library, file, line):
    with open(library / file, "a") as text:
        text.write(f"\n{line}\n")
    return structure.violations(library)


def test_every_room_imports_what_it_may_and_no_file_stands_in_a_circle():
    assert structure.violations(structure.LIBRARY) == []


def test_the_table_names_every_room_and_no_other():
    assert set(structure.floors(structure.LIBRARY)) == set(ROOMS)


def test_no_stage_may_import_a_stage():
    above = {"study", "preflight", "manage", "report"}
    below = {"ground", "config", "storage", "models", "engine", "data"}
    stages = set(ROOMS) - above - below - {"cli"}
    assert stages == {"fetch", "generate", "logprobs", "weigh", "train", "eval", "exchange"}
    for room in stages | below:
        assert set(structure.ALLOWED[room].split()) <= below, room


def test_an_allowance_is_used():
    used = {ends for ends in structure.arrows(structure.LIBRARY) if ends[1] != "ground"}
    assert {(room, other) for room in ROOMS for other in structure.ALLOWED[room].split()} - used == set()


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("weigh/weights.py", "from wspin.train import losses", "weigh/weights.py: weigh may not import train"),
        ("train/losses.py", "import wspin.weigh.weights", "train/losses.py: train may not import weigh"),
        ("eval/harness.py", "from ..generate.answer import Answer", "eval/harness.py: eval may not import generate"),
        ("errors.py", "from .storage.files import sha256", "errors.py: ground may not import storage"),
        ("storage/files.py", "from wspin.config.study import Study", "storage/files.py: storage may not import config"),
        ("config/base.py", "from wspin import study", "config/base.py: config may not import study"),
        ("data/chat.py", "def late():\n    from wspin.manage import stale", "data/chat.py: data may not import manage"),
        ("cli.py", "from wspin.report import tables", "cli.py: cli may not import report"),
    ],
)
def test_a_planted_import_is_seen(library, file, line, told):
    assert any(found.startswith(told) for found in plant(library, file, line))


def test_a_planted_circle_is_seen(library):
    found = plant(library, "storage/files.py", "from .tables import write")
    assert [line for line in found if line.startswith("circle: ")] == ["circle: storage/files.py, storage/tables.py"]


def test_files_and_functions_fit_their_measures():
    _, (longest, file), (screen, function) = structure.sizes(structure.LIBRARY)
    assert longest <= 300, file
    assert screen <= 40, function


def test_the_house_is_as_small_as_it_was_planned():
    """Rooms, floors and arrows may grow only with a reason that is worth these numbers."""
    between = [ends for ends in structure.arrows(structure.LIBRARY) if ends[1] != "ground"]
    floors = structure.floors(structure.LIBRARY)
    assert len(floors) <= 22
    assert max(floors.values()) <= 6
    assert len(between) <= 70


def test_only_the_upper_rooms_know_snakemake_or_the_command_line():
    knowing = re.compile(r"^\s*(?:import|from) (?:argparse|snakemake)\b|sys\.argv", re.MULTILINE)
    known = {
        structure.room(file, structure.LIBRARY)
        for file in structure.files(structure.LIBRARY)
        if knowing.search(file.read_text())
    }
    assert known <= {"study", "manage", "cli", "config", "storage"}
