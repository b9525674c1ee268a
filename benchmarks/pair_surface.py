"""What labelled pairs give away by their surface: classifiers that understand nothing.

    python benchmarks/pair_surface.py                  # the shipped files, seconds
    python benchmarks/pair_surface.py PAIRS.jsonl ...  # files of your own, hh-rlhf's among them

Prints a table of shares of pairs that are ranked right; those that open alike stay on one side
of the cross-validation, and 0.5 is chance. A labeler that does no better on pairs may have seen no
more than their style.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from cai_jax.data.readers import LabelledPair, read_pairs
from cai_jax.feedback.baselines import baselines, right, words_right
from cai_jax.feedback.labeler import ResponsePair
from cai_jax.prompts.messages import first_user_text

DATASETS = Path(__file__).resolve().parent.parent / "datasets"
KINDS = ("harmlessness", "helpfulness", "evasiveness")
SHIPPED = tuple(DATASETS / f"{kind}_pairs.jsonl" for kind in KINDS)
SIGNS = ".,;:!?'\"()-\u2013\u2014\u2026\n"


def main(files: Sequence[Path]) -> None:
    """Prints a row a file."""
    print("| pairs | number | bag of words | and two in a row | length and punctuation | length |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for file in files:
        pairs = read_pairs(file)
        shares = " | ".join(f"{share:.2f}" for share in surface(pairs).values())
        print(f"| {file.name} | {len(pairs)} | {shares} |")


def surface(pairs: Sequence[LabelledPair]) -> dict[str, float]:
    """Accuracy by kind of surface."""
    sides = [ResponsePair(p.id, p.messages, p.chosen, p.rejected, ()) for p in pairs]
    truth = [True] * len(pairs)  # every classifier sees both orders
    words = baselines(sides, truth)
    shapes = csr_matrix([shape(p.chosen) for p in pairs] + [shape(p.rejected) for p in pairs])
    openings = [first_user_text(p.messages).strip() for p in pairs]
    return {
        "bag_of_words": words.bag_of_words,
        "two_in_a_row": float(words_right(sides, truth, most=2).mean()),
        "length_and_punctuation": float(right(shapes, truth, openings).mean()),
        "length": words.length,
    }


def shape(text: str) -> list[float]:
    """How long a text is, and how often it has each sign, digits and capitals, as logarithms."""
    counts = [len(text), len(text.split()), *map(text.count, SIGNS)]
    counts += [sum(map(str.isdigit, text)), sum(map(str.isupper, text))]
    return np.log1p(counts).tolist()


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or SHIPPED)
