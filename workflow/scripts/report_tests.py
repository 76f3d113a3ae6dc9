"""Tests of the differences between arms, by documents and by seeds, adjusted for the preregistered family.

    python workflow/scripts/report_tests.py --results results --models spin/ite0 wspin/ite0 --suites arc \
        --metrics arc_challenge=acc_norm,none --contrasts wspin=spin --seeds spin=42 wspin=42 --draws 10000 --seed 42 \
        --preregistration config/preregistration.yaml --output results/tables/tests.csv results/tables/tests.md
"""

from wspin import cli
from wspin.report.commands import by_suffix
from wspin.report.hypotheses import PermutationDraws, StudySamples, run_tests
from wspin.report.hypothesis_tables import family_lines, hypothesis_tables, read_registered
from wspin.report.samples import input_paths, read_samples
from wspin.report.scores import cut_note, dtype_note, read_scores, split_groups, split_pairs


def main(argv=None):
    flags = parse(argv)
    files = read_scores(flags.results, flags.models, flags.suites)
    metrics = dict(split_pairs("TASK=METRIC", flags.metrics))
    models, groups = read_samples(files, metrics), split_groups(flags.groups, metrics)
    replicates = split_pairs("ARM=REPLICATE", flags.replicates)
    draws = PermutationDraws(flags.draws, flags.seed)
    registered = read_registered(flags.preregistration)
    results = run_tests(
        StudySamples(models, dict(flags.seeds), replicates, groups, draws),
        split_pairs("ARM=BASELINE", flags.contrasts),
        registered and registered.preregistration,
    )
    note = (f" {flags.note}" if flags.note else "") + cut_note(files) + dtype_note(files)
    tables = hypothesis_tables(results, registered, draws, note)
    cli.print_lines(f"report_tests: {line}" for line in family_lines(results, registered))
    given = [flags.preregistration] if registered else []
    cli.write_outputs(flags, by_suffix(flags.output, tables), [*input_paths(files), *given])


def parse(argv):
    parser = cli.program_parser("report_tests", __doc__)
    cli.add_shown_scores(parser)
    cli.add_groups(parser)
    parser.add_argument("--contrasts", nargs="*", default=[], metavar="ARM=BASELINE", help="arms to compare")
    cli.add_replicates(parser)
    cli.add_seeds(parser)
    parser.add_argument("--preregistration", metavar="FILE", help="the family of tests; without, all are exploratory")
    parser.add_argument("--note", default="", help="sentences below the table: what the replicates have in common")
    parser.add_argument("--draws", required=True, type=int, help="most patterns of signs of a permutation")
    parser.add_argument("--seed", required=True, type=int, help="seed of the permutations")
    parser.add_argument("--output", required=True, nargs="+", metavar="FILE", help="the format follows the suffix")
    return parser.parse_args(argv)


if __name__ == "__main__":
    cli.run(main)
