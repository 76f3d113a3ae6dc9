"""Scores and differences pooled over replicate seeds: a table, and a figure of the differences.

    python workflow/scripts/report_pooled.py --results results --models spin/ite0 spin.s43/ite0 wspin/ite0 \
        wspin.s43/ite0 --suites arc --metrics arc_challenge=acc_norm,none --replicates spin=spin.s43 wspin=wspin.s43 \
        --against wspin/ite0=spin/ite0 wspin.s43/ite0=spin.s43/ite0 --confidence 0.95 --note "Seeds vary all." \
        --output results/tables/pooled.csv results/tables/pooled.md results/figures/pooled.pdf
"""

from wspin import cli
from wspin.report import commands
from wspin.report.scores import read_scores


def main(argv=None):
    flags = parse(argv)
    files = read_scores(flags.results, flags.models, flags.suites)
    replicates = commands.Replicates(flags.replicates, flags.against, flags.note)
    chosen = (flags.metrics, flags.groups, replicates, flags.confidence)
    report = commands.pooled(files, *chosen, flags.output)
    cli.write_outputs(flags, report.outputs, report.inputs)


def parse(argv):
    parser = cli.program_parser("report_pooled", __doc__)
    cli.add_shown_scores(parser)
    cli.add_groups(parser)
    cli.add_replicates(parser)
    parser.add_argument("--against", nargs="*", default=[], metavar="MODEL=BASELINE", help="pairs of equal seed")
    parser.add_argument("--confidence", required=True, type=float, help="level of the intervals")
    parser.add_argument("--note", default="", help="sentences below the table: what the replicates have in common")
    parser.add_argument("--output", required=True, nargs="+", metavar="FILE", help="table or figure, by the suffix")
    return parser.parse_args(argv)


if __name__ == "__main__":
    cli.run(main)
