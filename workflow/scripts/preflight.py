"""Tell what a study will take, and what would stop it: sizes, time, memory, price, disk, access. No weights are read.

python workflow/scripts/preflight.py --config results/config.yaml
"""

import sys

from wspin import cli
from wspin.config.load import read_study
from wspin.models.offline import import_transformers
from wspin.study import paths


def main(argv=None):
    parser = cli.program_parser("preflight", __doc__)
    parser.add_argument("--config", required=True, help="a whole configuration, as the workflow keeps it")
    arguments = parser.parse_args(argv)
    layout = paths.StudyPaths(read_study([arguments.config]))
    import_transformers()
    from wspin.preflight.complaints import check_access, find_complaints
    from wspin.preflight.estimates import Estimates, mean_lengths
    from wspin.preflight.sizes import known_sizes
    from wspin.preflight.table import estimate_table

    made = Estimates(layout, known_sizes(layout), mean_lengths(layout))
    estimates = made.all()
    print(estimate_table(estimates, made))
    told, wrong = check_access(layout.study)
    print("\n".join(told))
    wrong = [*find_complaints(made, estimates), *wrong]
    for line in wrong:
        print(f"preflight.py: error: {line}", file=sys.stderr)
    known = "" if made.sizes.keys() >= set(layout.fetched_models) else ", of what is known so far"
    print(f"preflight: {len(wrong) or 'nothing'} to mend{known}", flush=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    cli.run(main)
