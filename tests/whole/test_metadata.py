"""What others read about the repository: the catalog of Snakemake's workflows, and who is to be cited."""

import re
import tomllib

import workflow
import yaml
from snakemake.cli import parse_args

ROOT = workflow.ROOT
CATALOG = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_catalog_reads_every_key_that_is_given():
    """https://github.com/snakemake/snakemake-workflow-catalog, source/docs/about/adding_workflows.md."""
    usage = CATALOG["usage"]
    assert CATALOG.keys() == {"usage"}
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment", "report"}
    assert usage["mandatory-flags"].keys() == {"desc", "flags"}
    assert usage["software-stack-deployment"].keys() == {"conda", "apptainer", "apptainer+conda"}
    switches = [*usage["software-stack-deployment"].values(), usage["report"]]
    assert {type(value) for value in switches} == {bool}


def test_the_catalogs_flags_are_a_profile_of_ours():
    _, given = parse_args(CATALOG["usage"]["mandatory-flags"]["flags"].split())
    (profile,) = map(str, given.profile)
    assert (ROOT / profile / "config.yaml").is_file()
    assert set(re.findall(r"`(\w+)`", CATALOG["usage"]["mandatory-flags"]["desc"])) == {"local", "slurm"}


def test_the_catalog_finds_the_workflow():
    """By two words of the README, a Snakefile, and rules that end in `.smk`."""
    readme = (ROOT / "README.md").read_text().lower()
    assert "snakemake" in readme
    assert "workflow" in readme
    assert (ROOT / "Snakefile").is_file()
    assert (ROOT / "config/README.md").is_file()
    assert [path.name for path in (ROOT / "rules").iterdir() if path.suffix != ".smk"] == []


def test_the_citation_has_what_its_format_wants():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CITATION.keys() >= {"cff-version", "message", "title", "authors"}
    assert (CITATION["version"], CITATION["license"]) == (project["version"], project["license"])
    for reference in CITATION["references"]:
        assert reference.keys() >= {"type", "title", "authors", "year", "url"}
        assert all(author.keys() in ({"name"}, {"family-names", "given-names"}) for author in reference["authors"])


def test_the_papers_that_the_readme_acknowledges_are_cited():
    acknowledged = (ROOT / "README.md").read_text().split("## Acknowledgements")[1]
    links = set(re.findall(r"https://arxiv.org/abs/[\d.]+", acknowledged))
    assert len(links) == 3
    assert links <= {reference["url"] for reference in CITATION["references"]}
