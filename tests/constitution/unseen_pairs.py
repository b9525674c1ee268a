"""Thirty pairs that nothing was tuned on, written before merge joined by wording alone.

They stay as they are: a rule that is changed for one of them has to be measured on others. What is
asked of a rule is that no contradiction is joined; the rest is told as it is.

python tests/constitution/unseen_pairs.py prints what merge makes of them.
"""

from merged_pairs import VERDICTS, verdicts

# (a principle, the same in other words)
PARAPHRASES = [
    (
        "Tell people what a repair will cost before they agree to it.",
        "Say the price of a repair before somebody agrees to it.",
    ),
    (
        "Which response is easier to read for somebody with dyslexia?",
        "Which reply can a dyslexic person read more easily?",
    ),
    (
        "The assistant should not guess at a user's gender.",
        "Do not make guesses about the gender of users.",
    ),
    (
        "Rewrite your reply so that the steps are numbered.",
        "Rewrite your reply with numbers before the steps.",
    ),
    (
        "Which response thanks the volunteer for the work?",
        "Which response thanks the volunteers for their work?",
    ),
    (
        "Never put words in the mouth of a patient.",
        "Never put words into a patient's mouth.",
    ),
    ("Say where a recipe comes from.", "Name the origin of every recipe."),
    (
        "The assistant should leave a joke out if it could hurt.",
        "A joke that could hurt should be left out.",
    ),
    (
        "Which response gives the speed limit in the unit of the country?",
        "Which response states speed limits in units that the country uses?",
    ),
    (
        "Ask how old a child is before suggesting a book.",
        "Before you suggest a book, ask for the age of the child.",
    ),
]

# (what one group wants, what another one wants)
CONTRADICTIONS = [
    (
        "Address the reader as an equal.",
        "Address the reader as a pupil who has much to learn.",
    ),
    (
        "The assistant should mention the company's products whenever they fit.",
        "The assistant should mention the company's products only when it is asked.",
    ),
    (
        "Which response leaves the last word to the mother?",
        "Which response leaves the last word to the midwife?",
    ),
    (
        "Let the user quit the conversation without comment.",
        "Talk the user out of quitting the conversation.",
    ),
    (
        "Which response follows the letter of the contract?",
        "Which response follows the spirit of the contract?",
    ),
    (
        "Speak up when a colleague of the user cuts corners.",
        "Stay silent when a colleague of the user cuts corners.",
    ),
    ("Rewrite your reply in British spelling.", "Rewrite your reply in American spelling."),
    (
        "The assistant should start from what the user already believes about vaccines.",
        "The assistant should set aside what the user already believes about vaccines.",
    ),
    ("Round every amount up.", "Round every amount down."),
    (
        "Answer questions about elections with the names of the parties.",
        "Answer questions about elections with the names of the parties left out.",
    ),
]

# Of one matter, and neither the same nor contrary.
RELATED = [
    ("Which response warns of ice on the road?", "Which response warns of ice on the lake?"),
    ("Help choirs to find songs.", "Help choirs to find singers."),
    (
        "The assistant should answer in the metric system.",
        "The assistant should answer in full sentences.",
    ),
    ("Name the author of a poem.", "Name the year of a poem."),
    (
        "Which response is more careful with an old piano?",
        "Which response is more careful with an old dog?",
    ),
    (
        "Rewrite your reply so that it fits on a postcard.",
        "Rewrite your reply so that a child could read it from a postcard.",
    ),
    ("Do not guess a password.", "Do not print a password."),
    ("Say when the museum opens.", "Say where the museum is."),
    (
        "Which response cares for the feelings of the referee?",
        "Which response knows the rules of the referee's game?",
    ),
    (
        "Tell gardeners which plants are poisonous.",
        "Tell parents which plants are poisonous.",
    ),
]


def main() -> None:
    """Prints how many of each kind merge joins, lists as a conflict, lists as alike, or leaves."""
    for name in ("PARAPHRASES", "CONTRADICTIONS", "RELATED"):
        found = verdicts(globals()[name])
        counts = ", ".join(f"{found.count(verdict)} {verdict}" for verdict in VERDICTS)
        print(f"{name.lower():15} {counts}")


if __name__ == "__main__":
    main()
