"""Tables and pages of what the study measured.

Scores made in different ways (engine, versions, precision, batch size, seeds, template, prompts) are refused.

    python workflow/scripts/report.py scores --results results --models base sft spin/ite0 --suites arc gsm8k \
        --metrics arc_challenge=acc_norm,none gsm8k=exact_match,strict-match \
        --output results/tables/scores.csv results/tables/scores.md results/tables/scores.tex
    python workflow/scripts/report.py token --arm wspin --iteration 1 --prompt ID
"""

from wspin import cli
from wspin.report import commands
from wspin.report.comparison import Draws
from wspin.report.scores import read_scores
from wspin.report.weights import iteration_shards


def main(argv=None):
    flags = parse(argv)
    match flags.command:
        case "scores":
            files = read_scores(flags.results, flags.models, flags.suites)
            chosen = (flags.metrics, flags.groups, flags.replicates, dict(flags.seeds))
            report = commands.scores(files, *chosen, flags.output)
        case "differences":
            files = read_scores(flags.results, flags.models, flags.suites)
            draws = Draws(flags.bootstrap, flags.confidence, flags.seed)
            chosen = (flags.metrics, flags.groups, flags.against, flags.uncompared)
            report = commands.differences(files, *chosen, draws, flags.output, flags.averages)
        case "weights":
            shards = iteration_shards(flags.iterations, flags.shards, flags.weights, flags.reference, flags.generations)
            report = commands.weights(flags.prompts, shards, flags.output)
        case "examples":
            shards = iteration_shards(flags.iterations, flags.shards, flags.weights, flags.reference, flags.generations)
            answers = (flags.opponents, flags.answers)
            report = commands.examples(flags.prompts, flags.count, *answers, shards, flags.output)
        case "token":
            from wspin.manage.tokens import show_tokens  # finds the study itself

            return cli.print_lines(show_tokens(flags.configfile, flags.arm, flags.iteration, flags.prompt))
    return cli.write_outputs(flags, report.outputs, report.inputs)


def parse(argv):
    parser = cli.program_parser("report", __doc__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    scores = subparsers.add_parser("scores", help="every score with its standard error")
    differences = subparsers.add_parser("differences", help="models compared document by document, with intervals")
    weights = subparsers.add_parser("weights", help="the distribution of every iteration's token weights")
    examples = subparsers.add_parser("examples", help="prompts with the opponents' answers and their token weights")
    for command in (scores, differences):
        cli.add_shown_scores(command)
        cli.add_groups(command)
    cli.add_replicates(scores)
    cli.add_seeds(scores)
    differences.add_argument("--against", nargs="*", default=[], metavar="MODEL=BASELINE", help="pairs to compare")
    differences.add_argument("--uncompared", nargs="*", default=[], metavar="ARM=SEED", help="arms without a baseline")
    differences.add_argument("--bootstrap", required=True, type=int, help="bootstrap draws per interval")
    differences.add_argument("--seed", required=True, type=int, help="seed of the bootstrap")
    differences.add_argument("--confidence", required=True, type=float, help="share of the draws inside an interval")
    differences.add_argument("--averages", required=True, metavar="FILE", help="CSV of every model's average")
    for command in (weights, examples):
        cli.add_weighted_iterations(command)
    examples.add_argument("--count", required=True, type=int, help="number of prompts")
    examples.add_argument("--opponents", required=True, nargs="+", help="models that generated the answers")
    examples.add_argument("--answers", required=True, nargs="+", help="the first shard of each opponent's answers")
    for command in subparsers.choices.values():
        command.add_argument("--output", required=True, nargs="+", metavar="FILE", help="the format follows the suffix")
    cli.add_token(subparsers.add_parser("token", help="print the tokens of one pair: weights and log-probabilities"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    cli.run(main)
