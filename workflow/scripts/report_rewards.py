"""The figure of reward margins by step, from the training curves of every iteration.

    python workflow/scripts/report_rewards.py --iterations spin/ite0 wspin/ite0 \
        --curves results/spin/ite0/metrics.jsonl results/wspin/ite0/metrics.jsonl --output results/figures/rewards.pdf
"""

from wspin import cli
from wspin.errors import StudyError
from wspin.report import curves
from wspin.report.replicates import methods
from wspin.report.scores import split_pairs
from wspin.report.style import rendered


def main(argv=None):
    flags = parse(argv)
    if len(flags.iterations) != len(flags.curves):
        expected = f"expected {len(flags.iterations)} files, one per iteration, found {len(flags.curves)}"
        raise StudyError(f"--curves: {expected}")
    arms = methods(flags.iterations, split_pairs("ARM=REPLICATE", flags.replicates))
    rows = curves.read_margins(dict(zip(flags.iterations, flags.curves, strict=True)), arms)
    cli.write_outputs(flags, rendered(curves.reward_margins(rows), flags.output), flags.curves)


def parse(argv):
    parser = cli.program_parser("report_rewards", __doc__)
    parser.add_argument("--iterations", required=True, nargs="+", metavar="ITERATION", help="names of the iterations")
    parser.add_argument("--curves", required=True, nargs="+", metavar="FILE", help="training curve of each of them")
    cli.add_replicates(parser)
    parser.add_argument("--output", required=True, nargs="+", metavar="FILE", help="the figure, by suffix")
    return parser.parse_args(argv)


if __name__ == "__main__":
    cli.run(main)
