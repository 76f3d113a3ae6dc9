"""Estimate what a study takes, and list the problems that would stop it: time, memory, price, disk, access.

python workflow/scripts/preflight.py --configfile config/overlays/swift_paper.yaml
"""

import sys

from wspin import cli
from wspin.config.load import read_study
from wspin.models.offline import import_transformers
from wspin.study.paths import StudyPaths


def main(argv=None):
    parser = cli.program_parser("preflight", __doc__)
    parser.add_argument("--configfile", nargs="+", default=[], help="overlays of config/config.yaml, in order")
    parser.add_argument("--profile", nargs="+", default=["slurm"], help="profiles for a SLURM cluster, in order")
    arguments = parser.parse_args(argv)
    paths = StudyPaths(read_study(["config/config.yaml", *arguments.configfile]))
    import_transformers()
    from wspin.preflight.cluster import find_cluster_complaints
    from wspin.preflight.complaints import check_access, find_complaints
    from wspin.preflight.estimates import Estimator, mean_lengths
    from wspin.preflight.requests import counted_requests
    from wspin.preflight.sizes import known_sizes
    from wspin.preflight.table import estimate_table, unknown_models

    on_cluster = list(find_cluster_complaints(paths.study, arguments.profile))
    requests, uncounted = counted_requests(paths)
    estimator = Estimator(paths, known_sizes(paths), mean_lengths(paths), requests)
    estimates = estimator.all()
    print(estimate_table(estimates, estimator))
    summary, refusals = check_access(paths.study)
    print(summary, flush=True)
    problems = [*find_complaints(estimator, estimates), *on_cluster, *uncounted, *refusals]
    cli.print_lines((f"preflight.py: error: {line}" for line in problems), sys.stderr)
    partial = ", of what can be estimated" if unknown_models(estimator) else ""
    print(f"preflight: {len(problems) or 'no'} problem{'s' * (len(problems) != 1)}{partial}", flush=True)
    sys.exit(bool(problems))


if __name__ == "__main__":
    cli.run(main, online=True)
