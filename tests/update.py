"""Rewrite what is generated from code and results: `python tests/update.py`.

Always `config/schema.json` and `config/README.md`; the README's tables if the demo has been run here, the tables of
docs/real-model.md after `make real`, and the README's job counts, which a dry run gives.
"""

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLES = {"table": "scores.md", "differences": "differences.md"}  # mark in the README: the demo's table
REAL = {"scores": "scores.md", "weights": "weights.md", "examples": "examples.md"}  # mark in docs/real-model.md


def with_table(page: str, mark: str, table: str, of: str = "demo") -> str:
    """The page with a table between its two marks."""
    marks = rf"(<!-- {of} {mark} -->\n).*?(<!-- {of} {mark} end -->)"
    return re.sub(marks, lambda found: f"{found[1]}{table}{found[2]}", page, count=1, flags=re.DOTALL)


def job_list(counts: dict[str, int]) -> str:
    """Jobs of every rule, and of all, in a line."""
    jobs = [f"{counts[rule]} `{rule}`" for rule in sorted(counts)]
    return f"{', '.join(jobs)}: {sum(counts.values())} jobs.\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
    from wspin.config import document

    for name, text in document.render_for(ROOT / "config").items():
        (ROOT / "config" / name).write_text(text)
        print(f"config/{name}")
    for mark, name in TABLES.items():
        readme, table = ROOT / "README.md", ROOT / "results" / "demo" / "tables" / name
        if table.exists():
            readme.write_text(with_table(readme.read_text(), mark, table.read_text()))
            print(f"README.md: the demo's {name}")
    for mark, name in REAL.items():
        page, table = ROOT / "docs" / "real-model.md", ROOT / "results" / "smollm2" / "tables" / name
        if table.exists():
            page.write_text(with_table(page.read_text(), mark, table.read_text(), "real"))
            print(f"docs/real-model.md: {name}")
    sys.path.insert(0, str(ROOT / "tests"))
    import workflow

    with tempfile.TemporaryDirectory() as folder:
        counts = workflow.checkout(Path(folder)).plan("all").counts
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text(), "jobs", job_list(counts), "study"))
    print("README.md: jobs of the study")
