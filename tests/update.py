"""Rewrite what is generated from code and results: `python tests/update.py`.

Always `config/schema.json` and `config/README.md`; the README's tables if the demo has been run here.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLES = {"table": "scores.md", "differences": "differences.md"}  # mark in the README: the demo's table


def with_table(readme: str, mark: str, table: str) -> str:
    """The README with a table of the demo between its two marks."""
    marks = rf"(<!-- demo {mark} -->\n).*?(<!-- demo {mark} end -->)"
    return re.sub(marks, lambda found: f"{found[1]}{table}{found[2]}", readme, count=1, flags=re.DOTALL)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
    from wspin import configdoc

    for name, text in configdoc.render_for(ROOT / "config").items():
        (ROOT / "config" / name).write_text(text)
        print(f"config/{name}")
    for mark, name in TABLES.items():
        readme, table = ROOT / "README.md", ROOT / "results" / "demo" / "tables" / name
        if table.exists():
            readme.write_text(with_table(readme.read_text(), mark, table.read_text()))
            print(f"README.md: the demo's {name}")
