"""The page of an iteration's token weights: the first pairs of the study, every token coloured by its weight.

    python workflow/scripts/report_tokens.py --iteration wspin/ite0 --rows results/data/prompts.parquet \
        --weights results/wspin/ite0/weights/00.parquet --generations results/sft/generations/00.parquet \
        --reference results/sft/reference/00.parquet --positive teacher --positive-logprobs \
        results/logprobs/teacher/gold/00.parquet results/logprobs/teacher/sft/00.parquet \
        --output results/wspin/ite0/tokens.html

The files are the first shards. Weights without a teacher need no log-probabilities.
"""

from wspin import cli
from wspin.report.token_page import token_page
from wspin.report.token_rows import ROLES, PairFiles


def main(argv=None):
    flags = parse(argv)
    logprobs = {role: getattr(flags, f"{role}_logprobs") for role in ROLES}
    scorers = {role: name for role in ROLES if (name := getattr(flags, role))}
    files = PairFiles(flags.rows, flags.generations, flags.reference, flags.weights, logprobs, scorers, flags.sums)
    page = token_page(flags.iteration, files)
    cli.write_outputs(flags, {flags.output: page.encode()}, files.inputs)


def parse(argv):
    parser = cli.program_parser("report_tokens", __doc__)
    parser.add_argument("--iteration", required=True, help="name of the iteration")
    parser.add_argument("--rows", required=True, help="prompts.parquet")
    parser.add_argument("--weights", required=True, help="the token weights")
    parser.add_argument("--generations", required=True, help="this iteration's generated answers")
    parser.add_argument("--reference", required=True, help="the student's log-probabilities of the answers")
    for role in ROLES:
        parser.add_argument(f"--{role}", metavar="NAME", help=f"name of the {role} scorer, if it has files")
        message = f"the {role} scorer's log-probabilities of the chosen and the rejected answers"
        parser.add_argument(f"--{role}-logprobs", nargs="*", default=[], metavar="FILE", help=message)
    parser.add_argument("--sums", nargs="*", default=[], help="with normalise_over: the sums of all shards")
    cli.add_required(parser, "--output")
    return parser.parse_args(argv)


if __name__ == "__main__":
    cli.run(main)
