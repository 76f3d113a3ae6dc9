"""List the results that were made by other code than the present one, and how to make them again. Nothing is re-run.

An edit of the code re-runs nothing by itself: a changed comment must not cost GPU-days. Every result's record keeps a
hash of the code that made it, comments and docstrings left out.

    python workflow/scripts/stale.py --results results
"""

from pathlib import Path

from wspin import cli
from wspin.errors import StudyError
from wspin.manage import stale


def main(argv=None):
    parser = cli.parser("stale", __doc__)
    parser.add_argument("--results", required=True, help="folder of the results")
    results = Path(parser.parse_args(argv).results)
    if not results.is_dir():
        raise StudyError(f"{results}: expected a folder of results, found none; give the config's `results`")
    found = [(output, name) for output, name in stale.stale(results) if output.exists()]
    for output, name in found:
        print(f"{output}: made by other code of {name}.py; to make it again, add -R {output} to your command")
    if found:
        programs = ", ".join(sorted({name for _, name in found}))
        print(
            f"{len(found)} stale; -R takes rules too: named like the program, or beginning with its name ({programs})"
        )
    else:
        print("every result was made by the present code")


if __name__ == "__main__":
    cli.run(main)
