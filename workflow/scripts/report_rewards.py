"""The figure of reward margins by step, from the training curves of every iteration.

    python workflow/scripts/report_rewards.py --iterations spin/ite0 wspin/ite0 \
        --curves results/spin/ite0/metrics.jsonl results/wspin/ite0/metrics.jsonl --output results/figures/rewards.pdf
"""

from wspin import cli
from wspin.report import commands


def main(argv=None):
    flags = parse(argv)
    report = commands.rewards(flags.iterations, flags.curves, flags.replicates, flags.output)
    cli.write_outputs(flags, report.outputs, report.inputs)


def parse(argv):
    parser = cli.program_parser("report_rewards", __doc__)
    parser.add_argument("--iterations", required=True, nargs="+", metavar="ITERATION", help="names of the iterations")
    parser.add_argument("--curves", required=True, nargs="+", metavar="FILE", help="training curve of each of them")
    cli.add_replicates(parser)
    parser.add_argument("--output", required=True, nargs="+", metavar="FILE", help="the figure, by suffix")
    return parser.parse_args(argv)


if __name__ == "__main__":
    cli.run(main)
