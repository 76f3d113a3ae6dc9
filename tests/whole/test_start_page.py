"""The start page of Snakemake's report: for every study it is sound, and its picture shows the rules that there are."""

import re
from xml.etree import ElementTree

import jinja2
import pytest
import workflow
from docutils.core import publish_parts

from wspin.config.load import read_study
from wspin.storage.files import write_yaml

PAGE = "workflow/report/index.rst"
OVERLAYS = sorted(path.stem for path in (workflow.ROOT / "config/overlays").glob("*.yaml"))
SETTINGS = {"report_level": 2, "halt_level": 2}  # of docutils: a warning is an error


class Category(str):
    name = property(str.capitalize)


class Page:
    def __init__(self, target):
        self.target = target


def start_page(study, folder, pages):
    """The page as Snakemake makes it: its text is a template, which gets the config and the results by category."""
    resolved = study.model_copy(update={"results": str(folder)}).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    write_yaml(f"{folder}/config.yaml", resolved)
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string((workflow.ROOT / PAGE).read_text())
    categories = {Category("scores"): {Category("other"): [Page(f"{i}.html") for i in range(pages)]}}
    text = template.render(snakemake={"config": {"resolved": resolved}}, categories=categories)
    links = "".join(f"\n.. _{i}.html: javascript:show('{i}')" for i in range(pages))
    return publish_parts(f"{text}\n{links}\n", writer="html", settings_overrides=SETTINGS)["html_body"]


@pytest.mark.parametrize("overlay", ["", *OVERLAYS])
def test_every_study_has_a_start_page(overlay, tmp_path, monkeypatch):
    monkeypatch.chdir(workflow.ROOT)
    files = ["config/config.yaml"]
    if overlay:
        needed = {"findings": ["demo"], "findings_words": ["demo", "findings"], "everything": ["demo"]}.get(overlay, [])
        files += [f"config/overlays/{name}.yaml" for name in (*needed, overlay)]
    study = read_study(files, {})
    html = start_page(study, tmp_path, 3)
    cells = re.findall(r"<td>(.*?)</td>", html)
    codes = [re.sub("<[^>]*>", "", cell) for cell in cells]
    assert {*study.arms, *study.models} <= set(codes)
    assert html.count("javascript:show") == 3
    assert "<svg" in html
    assert "replicates: generation and training" in html or "replicates: all" in html  # the configuration


def test_a_category_of_many_pages_is_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(workflow.ROOT)
    study = read_study(["config/config.yaml"], {})
    html = start_page(study, tmp_path, 13)
    assert "13 pages" in html
    assert "javascript:show" not in html


def test_the_picture_shows_the_rules_of_the_study(tmp_path):
    repository = workflow.checkout(tmp_path, "config/overlays/demo.yaml")
    planned = set(repository.plan("all").counts) - {"all"}
    picture = ElementTree.parse(workflow.ROOT / "workflow/report/steps.svg")
    shown = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text") if text.get("font-weight") == "600"}
    prefixes = tuple(name.removesuffix("*") for name in shown if name.endswith("*"))
    assert {name for name in shown if not name.endswith("*")} <= planned
    optional = {"data_preferences", "logprobs_preferences", "generate_examples"}  # of baselines, of the page of answers
    assert {rule for rule in planned if rule not in shown and not rule.startswith(prefixes)} <= optional
