"""Benchmarks: this library and the published ways of the same work, side by side on one thread (`make bench`)."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "workflow/scripts"))  # where the library is

os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other on shared cores measure the machine's guests
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1", TQDM_DISABLE="1")
