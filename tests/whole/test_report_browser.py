"""Snakemake's report of a finished study in a browser: every table, figure and page is there, explained, and opens."""

import shutil

import pytest
import workflow
from browser import browser

from wspin.config.load import read_study
from wspin.study.paths import StudyPaths

pytestmark = pytest.mark.browser
OVERLAYS = ("config/overlays/demo.yaml", "tests/configs/small.yaml", "tests/configs/cluster.yaml")
STUDY = StudyPaths(read_study([workflow.ROOT / name for name in ("config/config.yaml", *OVERLAYS)]))
SHOWN = [path for path in (*STUDY.tables(), *STUDY.figures(), *STUDY.pages()) if path.endswith((".html", ".svg"))]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of the report, unpacked, of a study that was really made."""
    study, folder = workflow.checkout(tmp_path_factory.mktemp("study"), *OVERLAYS), tmp_path_factory.mktemp("report")
    study.make("all", "--cores", "2")
    style = ("--report-stylesheet", "workflow/report/style.css")
    done = study.run("all", "--report", str(folder / "report.zip"), *style)
    assert done.returncode == 0, done.stdout
    shutil.unpack_archive(folder / "report.zip", folder)
    return folder / "report/report.html"


@pytest.fixture(scope="module")
def window(report):
    with browser() as opened:
        opened.open(report)
        yield opened


def test_the_start_page_shows_without_an_error_or_a_request_to_anywhere(report, window):
    assert window.errors() == []
    assert {address.split(":")[0] for address in window.requests(report)} <= {"file", "data", "blob"}
    text = window.text("body")
    assert "SPIN versus WSPIN" in text and STUDY.results in text
    assert all(name in text for name in (*STUDY.study.arms, *STUDY.study.models))


def test_every_table_figure_and_page_is_in_the_report_with_a_caption(report, window):
    window.open(report)
    results = window.script("return results")
    assert sorted(results) == sorted(SHOWN)
    for path, entry in results.items():
        window.script("app.showResultInfo(arguments[0])", path)
        shown = " ".join(window.text("body").split())
        caption = window.script(
            "return new DOMParser().parseFromString(arguments[0], 'text/html').body.innerText", entry["caption"]
        )
        assert len(caption) > 60 and " ".join(caption.split()) in shown, path
    assert window.errors() == []


@pytest.mark.parametrize("path", SHOWN)
def test_it_opens(report, window, path):
    window.open(report)
    file = report.parent / window.script("return results[arguments[0]].data_uri", path)
    window.open(file)
    assert window.errors() == []
    assert window.requests(file) == [file.as_uri()]
    height, width = window.script(
        "const box = document.documentElement.getBoundingClientRect(); return [box.height, box.width]"
    )
    assert min(height, width) > 100
    assert len(window.script("return document.documentElement.textContent")) > 200
