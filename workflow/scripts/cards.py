"""Write the card of every model that is there, `README.md` in its folder: what it is, how it scored, how to use it.

python workflow/scripts/cards.py --results results
"""

from wspin import cli
from wspin.manage import model_card


def main(argv=None):
    parser = cli.parser("cards", __doc__)
    parser.add_argument("--results", required=True, help="folder of the results")
    results = parser.parse_args(argv).results
    written = model_card.renew(results)
    for name in written:
        print(f"{results}/{name}/model/README.md")
    print(f"cards written: {len(written)}; the others say what they should")


if __name__ == "__main__":
    cli.run(main)
