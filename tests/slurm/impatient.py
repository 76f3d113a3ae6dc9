"""snakemake that asks SLURM every second; its plugin waits 10 s longer each time that no job has ended.

python tests/slurm/impatient.py --profile slurm ...
"""

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

RemoteExecutor.next_seconds_between_status_checks = property(lambda executor: 1, lambda executor, value: None)

if __name__ == "__main__":
    main()
