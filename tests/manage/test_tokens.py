"""One pair of a study as a table, found by its arm, iteration and prompt."""

import pytest
import weighted_pairs
import workflow
import yaml

import report as program
from wspin.errors import StudyError
from wspin.manage.tokens import pair_files, token_table
from wspin.report.token_page import token_page
from wspin.report.token_rows import first_pairs
from wspin.storage import tables

PAIRS = [
    ("Say hello.", "Hello to everybody", "Goodbye\n\nhello"),
    ("Count.", "one two three", ""),
    ("More?", "yes", "\u202e12,345 | is"),
    ("Last.", "no", "never"),
]


@pytest.fixture
def overlays(tmp_path, monkeypatch):
    """Overlays of a study of two shards with two pairs each, whose iteration wspin/ite0 is weighed."""
    results = tmp_path / "results"
    overlay = {"results": str(results), "data": {"sft": {"prompts": 4, "shard": 2}}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(overlay))
    kinds = {"generations": "sft/generations", "reference": "sft/reference", "weights": "wspin/ite0/weights"}
    kinds |= {"chosen": "logprobs/teacher/gold", "rejected": "logprobs/teacher/sft"}
    for shard in (0, 1):
        (made := tmp_path / f"{shard}").mkdir()
        weighted_pairs.write(made, PAIRS[2 * shard : 2 * shard + 2], first=2 * shard)
        for kind, folder in kinds.items():
            (results / folder).mkdir(parents=True, exist_ok=True)
            (made / f"{kind}.parquet").rename(results / folder / f"{shard:02d}.parquet")
    prompts, real, _ = zip(*PAIRS, strict=True)
    rows = {"prompt_id": [f"train-{i}" for i in range(4)], "prompt": prompts, "response": real, "split": ["t"] * 4}
    tables.write(results / "data/prompts.parquet", "prompts", rows, {})
    monkeypatch.chdir(workflow.ROOT)
    return ["config/overlays/demo.yaml", str(tmp_path / "small.yaml")]


def printed(capsys, overlays, prompt, arm="wspin", k=0):
    capsys.readouterr()  # of the weighing
    program.main(["token", "--arm", arm, "--iteration", str(k), "--prompt", prompt, "--configfile", *overlays])
    return capsys.readouterr().out.rstrip("\n").split("\n")


def test_the_table_has_a_line_for_every_token(capsys, overlays):
    header, rule, *lines = printed(capsys, overlays, "train-0")
    ends = [i + len(part) for part, i in _columns(rule)]
    starts = [i for _, i in _columns(rule)]
    cells = [[line[a:b].strip() for a, b in zip(starts, [*ends[:-1], None], strict=True)] for line in [header, *lines]]
    names = ["side", "token", "text", "log p student", "log p teacher", "log-ratio", "weight", "clamped"]
    assert cells.pop(0) == names
    assert [cell[:3] for cell in cells] == [
        *(["chosen", str(i), text] for i, text in enumerate(['"Hello"', '" to"', '" everybody"', "EOS"], 1)),
        *(["rejected", str(i), t] for i, t in enumerate(['"Goodbye"', r'"\n"', r'"\n"', '"hello"', "EOS"], 1)),
    ]
    hello, to, *_ = cells
    parts = [float(part.rpartition(" ")[2]) for part in hello[4].split(", ")]
    assert hello[4].startswith('"Hell" ')
    ratios = [float(ratio) for ratio in hello[5].split(", ")]
    assert ratios == pytest.approx([part - float(hello[3]) for part in parts], abs=2e-4)
    assert float(to[4]) - float(to[3]) == pytest.approx(float(to[5]), abs=2e-4)  # the teacher's own token
    assert cells[3][3:] == [cells[3][3], "-", "-", "1", "-"]
    clamped = {cell[7] for cell in cells} - {"-"}
    assert clamped
    assert all(part.endswith(("lower", "upper")) for cell in clamped for part in cell.split(", "))


def _columns(rule):
    """(dashes, place) of the columns of a table."""
    place, columns = 0, []
    for part in rule.split("  "):
        columns.append((part, place))
        place += len(part) + 2
    return columns


def test_a_prompt_of_another_shard_is_found_and_its_text_is_on_one_line(capsys, overlays):
    lines = printed(capsys, overlays, "train-2")
    assert len(lines) == 2 + 2 + 8
    assert r'"\u202e"' in "\n".join(lines)
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"arm": "spin"}, r"--arm: expected an arm with token weights \(equal, wspin, wspin.paper\), found spin"),
        ({"k": 9}, r"--iteration: expected one of arm wspin \(0, 1, 2, 3\), found 9"),
        (
            {"prompt": "7"},
            r"--prompt: expected one of the 4 ids in .*prompts.parquet \(train-0, train-1, train-2, ...\), found 7",
        ),
        (
            {"k": 1},
            r"wspin/ite1/generations/00.parquet: expected a file of generations, found none",
        ),
    ],
)
def test_a_wrong_name_is_one_line_that_names_what_there_is(capsys, overlays, wrong, message):
    with pytest.raises(StudyError, match=message):
        printed(capsys, overlays, **{"prompt": "train-0", **wrong})


def test_without_a_teacher_there_are_no_columns_for_one(tmp_path):
    weighted = first_pairs(weighted_pairs.write(tmp_path, PAIRS, **weighted_pairs.EQUAL), 1)
    assert token_table(weighted).split("\n")[0].split() == ["side", "token", "text", "log", "p", "student", "weight"]


def test_the_page_reads_the_files_of_the_command(overlays, tmp_path):
    """The flags of the rule and the command name the same files."""
    import report_tokens
    from wspin.config.load import read_study
    from wspin.iteration import Iteration
    from wspin.study.paths import StudyPaths
    from wspin.study.rule_flags import RuleFlags

    paths = StudyPaths(read_study(["config/config.yaml", *overlays]))
    files = pair_files(paths, Iteration("wspin", 0), "00")
    output = tmp_path / "tokens.html"
    flags = RuleFlags(paths).report_tokens("wspin", "0")
    report_tokens.main([*flags, "--rows", paths.data("prompts"), "--output", str(output)])
    assert output.read_text() == token_page("wspin/ite0", files)
    assert sorted(files.inputs) == sorted([paths.data("prompts"), *paths.token_page_inputs("wspin", "0")])
