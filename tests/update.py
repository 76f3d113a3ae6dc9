"""Rewrite what is generated from code and results: `python tests/update.py`.

Always `config/schema.json` and `config/README.md`; the README's table if the demo has been run here.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "results" / "demo" / "tables" / "scores.md"


def with_table(readme: str, table: str) -> str:
    """The README with the demo's table between its two marks."""
    marks = r"(<!-- demo table -->\n).*?(<!-- demo table end -->)"
    return re.sub(marks, lambda found: f"{found[1]}{table}{found[2]}", readme, count=1, flags=re.DOTALL)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
    from wspin import configdoc

    for name, text in configdoc.render_for(ROOT / "config").items():
        (ROOT / "config" / name).write_text(text)
        print(f"config/{name}")
    if TABLE.exists():
        readme = ROOT / "README.md"
        readme.write_text(with_table(readme.read_text(), TABLE.read_text()))
        print("README.md: the demo's table")
