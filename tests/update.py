"""Rewrite the files that are generated from the code: `python tests/update.py`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
    from wspin import configdoc

    for name, text in configdoc.render_for(ROOT / "config").items():
        (ROOT / "config" / name).write_text(text)
        print(f"config/{name}")
