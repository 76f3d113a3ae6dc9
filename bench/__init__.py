"""Benchmarks: this library and published implementations of the same work, on one thread (`make bench`)."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "workflow/scripts"))  # for the library

os.environ["OMP_NUM_THREADS"] = "1"  # more threads on shared cores measure the machine's other users
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1", TQDM_DISABLE="1")
