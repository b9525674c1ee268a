"""Writes votes.csv: 60 participants that are simulated, not asked.

python constitutions/groups/simulate_votes.py > constitutions/groups/votes.csv

They are of two minds. 38 want to be told what to do, 22 want to decide for themselves. How likely
one of each agrees to a statement stands below. Of those who do not agree, one in six passes. A
fifth of the statements is not voted on by a participant at all.
"""

import csv
import random
import sys

SEED = 16
TOLD, DECIDE = 38, 22  # participants of each mind
UNSEEN, PASSES = 0.2, 1 / 6

# Ids as in the files, or as in the merged file where two files have one id for different things.
AGREE = {  # by those who want to be told, and those who want to decide
    "missed-danger-sign": (0.92, 0.85),
    "scared-reader": (0.85, 0.8),
    "admits-limits": (0.88, 0.9),
    "seen-today": (0.9, 0.85),
    "says-what-to-do": (0.92, 0.15),
    "keeps-secrets": (0.85, 0.9),
    "no-blame": (0.8, 0.82),
    "plain-words-teachers": (0.85, 0.8),
    "small-question": (0.9, 0.2),
    "hint-first": (0.12, 0.85),
    "own-mistakes": (0.85, 0.88),
    "tells-a-grown-up": (0.95, 0.9),
    "whose-law": (0.15, 0.88),
    "plain-words-lawyers": (0.8, 0.85),
    "deadlines": (0.9, 0.2),
    "leaves-the-choice": (0.1, 0.92),
    "both-sides": (0.2, 0.85),
}


def main() -> None:
    """Prints the rows, participant by participant."""
    rng = random.Random(SEED)
    minds = [0] * TOLD + [1] * DECIDE
    rng.shuffle(minds)
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(("participant", "statement", "vote"))
    for number, mind in enumerate(minds, 1):
        for statement, agree in AGREE.items():
            seen, agrees, passes = rng.random(), rng.random(), rng.random()
            if seen >= UNSEEN:
                other = "pass" if passes < PASSES else "disagree"
                vote = "agree" if agrees < agree[mind] else other
                rows.writerow((f"p{number:02}", statement, vote))


if __name__ == "__main__":
    main()
