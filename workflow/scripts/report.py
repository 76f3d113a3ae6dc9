"""Gather the scores of models in one table: tidy CSV, and Markdown in points with standard errors.

Scores that were made in different ways (engine, versions, batch size, seeds, template, shots, prompts) are refused.

    python workflow/scripts/report.py --results results --models base sft spin/ite0 spin/ite1 --suites arc gsm8k \
        --metrics arc_challenge=acc_norm,none gsm8k=exact_match,strict-match \
        --csv results/tables/scores.csv --markdown results/tables/scores.md
"""

import argparse

from wspin import program, report
from wspin.files import whole_file


def main(argv=None):
    parser = program.parser("report", __doc__)
    parser.add_argument("--results", required=True, help="folder of the results")
    parser.add_argument(
        "--models", required=True, nargs="+", help="registry models and {arm}/ite{k}, in the table's order"
    )
    parser.add_argument(
        "--suites", required=True, nargs="+", help="suites of tasks, a score file of each model for each"
    )
    parser.add_argument(
        "--metrics",
        required=True,
        nargs="+",
        type=metric,
        metavar="TASK=METRIC",
        help="metric of each task, in the table's order",
    )
    parser.add_argument("--csv", required=True, help="tidy table of every metric, as fractions")
    parser.add_argument("--markdown", required=True, help="table of the chosen metrics, in points")
    arguments = parser.parse_args(argv)

    scored = report.read(arguments.results, arguments.models, arguments.suites)
    tables = {
        arguments.csv: report.to_csv(report.tidy(scored)),
        arguments.markdown: report.to_markdown(scored, dict(arguments.metrics)),
    }
    for path, text in tables.items():
        with whole_file(path) as temporary:
            temporary.write_text(text)
    print(f"report: {len(arguments.models)} models, {len(arguments.metrics)} tasks: {arguments.markdown}", flush=True)
    program.leave_record(arguments, tables, [str(one.path) for one in scored])


def metric(text):
    """`TASK=METRIC` as a pair"""
    task, found, name = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"expected TASK=METRIC, found {text!r}")
    return task, name


if __name__ == "__main__":
    program.run(main)
