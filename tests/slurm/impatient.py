"""snakemake that asks SLURM every second; its plugin waits 10 s longer each time that no job has ended.

python tests/slurm/impatient.py --profile slurm ...
"""

import sys

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

sys.path.append("workflow/scripts")
from wspin.manage import slurm_watch

RemoteExecutor.next_seconds_between_status_checks = property(lambda executor: 1, lambda executor, value: None)
slurm_watch.PAUSE = 1.0

if __name__ == "__main__":
    main()
