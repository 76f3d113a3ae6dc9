"""Rewrite what is generated from code and results: `python tests/update.py`.

Always: `config/schema.json`, `config/README.md`, docs/deviations.md, the job counts and hours in the README, the hours
of docs/preflight.md, the numbers of docs/published.md, the tables of docs/targets.md, docs/robustness.md and
SECURITY.md. After `make demo`: its tables in docs/demo.md and, last iterations only, in the README, and its figure.
After `make faults`: faults in docs/robustness.md.
After `make real`: those of docs/real-model.md. After `make findings`: tables, scores and figures of docs/findings.md.
"""

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "workflow" / "scripts"), str(ROOT / "tests")]

import attacks  # noqa: E402
import critique  # noqa: E402
import inputs  # noqa: E402
import targets  # noqa: E402
import workflow  # noqa: E402
from faults import tally  # noqa: E402

from wspin.config import deviations, document  # noqa: E402
from wspin.config.load import read_study  # noqa: E402
from wspin.config.published import read_published  # noqa: E402
from wspin.iteration import Iteration  # noqa: E402

DEMO, REAL = ROOT / "results" / "demo", ROOT / "results" / "smollm2"
FINDINGS = {"findings": ROOT / "results" / "findings", "words": ROOT / "results" / "findings_words"}


def fill(page: str, mark: str, text: str) -> str:
    """The page with a text between the marks `<!-- {mark} -->` and `<!-- {mark} end -->`."""
    marks = rf"(<!-- {mark} -->\n).*?(<!-- {mark} end -->)"
    return re.sub(marks, lambda match: f"{match[1]}{text}{match[2]}", page, count=1, flags=re.DOTALL)


def last_iterations(table: str, notes: bool = False) -> str:
    """The rows of a Markdown table that are no iteration, or their arm's last one; with or without the notes below."""
    body, _, below = table.partition("\n\n")
    head, *rows = body.strip().splitlines()
    rule, *rows = rows
    iterations = [Iteration.parse(row.split("|")[1].split(" - ")[0].strip()) for row in rows]
    last = {iteration.arm: iteration.k for iteration in iterations if iteration}  # rows stand in order
    kept = [row for row, it in zip(rows, iterations, strict=True) if it is None or it.k == last[it.arm]]
    return "\n".join([head, rule, *kept, *(["", below.strip()] if notes else []), ""])


def job_list(counts: dict[str, int]) -> str:
    """Jobs of every rule, and of all, in a line."""
    jobs = [f"{counts[rule]} `{rule}`" for rule in sorted(counts)]
    return f"{', '.join(jobs)}: {sum(counts.values())} jobs.\n"


def planned_jobs() -> str:
    """The jobs of `snakemake --profile local -n all`, from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        return job_list(workflow.checkout(Path(folder)).plan("all").counts)


def deviations_page() -> str:
    """docs/deviations.md."""
    settings = deviations.read_settings(ROOT / deviations.SETTINGS)
    return deviations.deviations(settings, read_study([ROOT / "config/config.yaml"]))


def estimated_hours() -> Iterator[tuple[str, str, str]]:
    """(page, mark, text) of what `preflight` estimates, with assumed lengths, for the study and SWIFT's settings."""
    import estimated

    estimates = estimated.estimator_of(estimated.layout_of(results="results/none")).all()
    jobs, hours = (sum(getattr(estimate, name) for estimate in estimates) for name in ("jobs", "gpu_hours"))
    counts = f"`make preflight` counts {jobs} jobs on GPUs and, at half of an H100's peak, {hours:.0f} GPU hours\n"
    yield "README.md", "study hours", counts
    preset = estimated.estimator_of(estimated.layout_of(**{**estimated.SWIFT, "results": "results/none"})).all()
    # wspin's are the first of a name: wspin.window1 scores the same answers again, without those that wspin replays
    of = {f"{estimate.stage} {estimate.what}": estimate.gpu_hours for estimate in reversed(preset)}
    stages = {
        "generation": [["generate by sft"], ["generate by wspin/ite0"]],
        "weights": [
            ["logprobs reference by sft", "logprobs teacher scores gold", "logprobs teacher scores sft"],
            ["logprobs reference by wspin/ite0", "logprobs teacher scores wspin/ite1"],
        ],
        "training": [["train wspin/ite0"], ["train wspin/ite1"]],
    }
    # SWIFT's table 7: an iteration on 50k prompts, on one H100
    table_7 = [row for row in read_published(ROOT / "config/published/swift_cost.csv") if row.table == "Table 7"]
    published = {row.iteration: row for row in table_7}
    lines = ["| hours on one H100 | SWIFT, iteration 0 | ours | SWIFT, iteration 1 | ours |", "|---|--:|--:|--:|--:|"]
    for stage, rows in stages.items():
        ours = [sum(map(of.get, names)) for names in rows]
        theirs = [float(published[k].cells[stage]) for k in (0, 1)]
        cells = [f"{hours:.2f}" for pair in zip(theirs, ours, strict=True) for hours in pair]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    yield "docs/preflight.md", "swift hours", "\n".join(lines) + "\n"


def generated() -> Iterator[tuple[str, str, str]]:
    """(page, mark, text) of everything between marks, as far as its results are here."""
    yield "README.md", "study jobs", planned_jobs()
    yield from estimated_hours()
    yield "docs/targets.md", "targets", targets.markdown()
    yield "docs/published.md", "published numbers", critique.markdown()
    yield "docs/robustness.md", "inputs", inputs.markdown()
    yield "SECURITY.md", "attacks", attacks.markdown()
    if tally.FILE.exists():
        yield "docs/robustness.md", "faults", tally.markdown(json.loads(tally.FILE.read_text()))
    for name in ("scores", "differences", "weights"):
        for folder, page, study in ((DEMO, "docs/demo.md", "demo"), (REAL, "docs/real-model.md", "real")):
            table = folder / "tables" / f"{name}.md"
            if table.exists():
                yield page, f"{study} {name}", table.read_text()
                if study == "demo" and name != "weights":
                    yield "README.md", f"demo {name}", last_iterations(table.read_text())
    for study, folder in FINDINGS.items():
        if (folder / "figures/pooled.svg").exists():
            yield "docs/findings.md", f"{study} figure", f"![Differences to spin](findings-{study}.svg)\n"
        for name in ("tests", "pooled"):
            if (table := folder / "tables" / f"{name}.md").exists():
                text = last_iterations(table.read_text(), notes=True) if name == "pooled" else table.read_text()
                yield "docs/findings.md", f"{study} {name}", text
    if (REAL / "tables/examples.md").exists():
        yield "docs/real-model.md", "real examples", (REAL / "tables/examples.md").read_text()


if __name__ == "__main__":
    for name, text in document.render_for(ROOT / "config").items():
        (ROOT / "config" / name).write_text(text)
        print(f"config/{name}")
    (ROOT / "docs/deviations.md").write_text(deviations_page())
    print("docs/deviations.md")
    for page, mark, text in generated():
        (ROOT / page).write_text(fill((ROOT / page).read_text(), mark, text))
        print(f"{page}: {mark}")
    copies = {"demo-averages.svg": DEMO / "figures/averages.svg"}
    for study, folder in FINDINGS.items():
        copies |= {f"findings-{study}.svg": folder / "figures/pooled.svg"}
        copies |= {f"findings-{study}-scores.csv": folder / "tables/scores.csv"}
    for name, path in copies.items():
        if path.exists():
            shutil.copyfile(path, ROOT / "docs" / name)
            print(f"docs/{name}")
