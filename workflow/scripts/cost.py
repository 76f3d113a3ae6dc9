"""Tell what the results took: hours and memory by stage and arm, out of the records beside them.

python workflow/scripts/cost.py --results results
"""

from pathlib import Path

from wspin import cli
from wspin.config.load import read_results
from wspin.manage import costs
from wspin.storage.files import whole_file


def main(argv=None):
    parser = cli.parser("cost", __doc__)
    parser.add_argument("--results", required=True, help="folder of the results")
    results = Path(parser.parse_args(argv).results)
    arms = set(read_results(results).arms)
    rows = costs.table(results, arms)
    tables = {"csv": costs.as_csv(rows), "md": costs.as_markdown(rows, costs.hardware(results, arms))}
    for kind, text in tables.items():
        with whole_file(results / f"tables/cost.{kind}") as temporary:
            temporary.write_text(text)
    print(tables["md"])


if __name__ == "__main__":
    cli.run(main)
