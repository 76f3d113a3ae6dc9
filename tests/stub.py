"""In place of every program: makes the outputs that its flags name. Equal flags make equal bytes."""

import sys
from pathlib import Path

FILES = ["--output", "--output-digest", "--output-manifest", "--metrics", "--scores", "--samples"]
if sys.argv[1] == "differences":
    FILES.append("--averages")  # an input of another program

flag = ""
for word in sys.argv[1:]:
    if word.startswith("--"):
        flag = word
    elif flag in FILES:
        output = Path(word) if Path(word).suffix else Path(word) / "file"
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(" ".join(sys.argv))
