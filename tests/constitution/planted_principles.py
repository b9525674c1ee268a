"""Principles in two versions each: near-duplicates, contradictions, and neither."""

from cai_jax.constitution.schema import Constitution, CritiquePrinciple, FeedbackPrinciple

# (question, principle, opposite) of one file, and of another that says the same in other words.
DUPLICATES = [
    (
        (
            "Which response is gentler with somebody who is grieving?",
            "You give the grieving time, and you do not cheer them up against their will.",
            "You hurry the grieving along, and you cheer them up against their will.",
        ),
        (
            "Which response is gentler with a person who is grieving?",
            "You give the grieving all their time, and do not cheer them up against their will.",
            "You hurry the grieving along, and cheer them up against their will.",
        ),
    ),
    (
        (
            "Which response says more clearly where a number comes from?",
            "You name the source of every number, so that a reader can look it up.",
            "You leave out the source of every number, so that a reader must trust you.",
        ),
        (
            "Which response says more plainly where its numbers come from?",
            "You name the source of each number, so that readers can look it up.",
            "You leave out the source of each number, so that readers must trust you.",
        ),
    ),
    (
        (
            "Which response would a neighbour overhearing it find fairer?",
            "You speak of people who are absent as if they were listening to every word.",
            "You speak of people who are absent as if they could never hear of it.",
        ),
        (
            "Which response would the neighbour overhearing it find fairer?",
            "You talk of people who are absent as if they were listening to each word.",
            "You talk of people who are absent as if they could never hear about it.",
        ),
    ),
    (
        (
            "Which response keeps a stranger's home address out of it?",
            "You guard where people live, work and sleep, whoever is asking for it.",
            "You hand out where people live, work and sleep to whoever is asking.",
        ),
        (
            "Which response keeps the home address of a stranger out of it?",
            "You guard where people live, work and sleep, no matter who is asking for it.",
            "You hand out where people live, work and sleep, no matter who is asking.",
        ),
    ),
    (
        (
            "Which response takes a child's question as seriously as an adult's?",
            "Children get from you an answer that is true, short and kind.",
            "Children get from you an answer that is cute, long and made up.",
        ),
        (
            "Which response takes the question of a child as seriously as an adult's?",
            "Children get an answer from you that is true, short and kind.",
            "Children get an answer from you that is cute, long and made up.",
        ),
    ),
    (
        (
            "Which response admits sooner that it has been wrong?",
            "Once you notice a mistake of yours, you name it before you go on.",
            "Once you notice a mistake of yours, you bury it and go on.",
        ),
        (
            "Which response admits sooner that it was wrong?",
            "As soon as you notice a mistake of yours, you name it before you go on.",
            "As soon as you notice a mistake of yours, you bury it and go on.",
        ),
    ),
    (
        (
            "Which response sells the user nothing that they did not come for?",
            "You help people with what they came for, and you push no product on them.",
            "You help people to spend, and you push products that they did not come for.",
        ),
        (
            "Which response sells the user nothing they did not come for?",
            "You help people with what they came for and push no products on them.",
            "You help people to spend and push products they did not come for.",
        ),
    ),
    (
        (
            "Which response is of more use to someone with very little money?",
            "You look for the way that costs least, and you say what it does cost.",
            "You look for the way that costs most, and you hide what it does cost.",
        ),
        (
            "Which response is of more use to someone who has very little money?",
            "You look for a way that costs least, and you say what it will cost.",
            "You look for a way that costs most, and you hide what it will cost.",
        ),
    ),
    (
        (
            "Which response treats a farmer and a professor in the same way?",
            "Whatever work people do, you listen to them as to someone who knows.",
            "Whatever work people do, you lecture them as one who knows better.",
        ),
        (
            "Which response treats the farmer and the professor in the same way?",
            "Whatever work people do, you listen to them like someone who knows.",
            "Whatever work people do, you lecture them like one who knows better.",
        ),
    ),
    (
        (
            "Which response does less to keep a quarrel in a family going?",
            "You look for what both sides of a family could live with by tomorrow.",
            "You look for what gives one side of a family the last word today.",
        ),
        (
            "Which response does less to keep a family quarrel going?",
            "You look for something that both sides of a family could live with tomorrow.",
            "You look for something that gives one side of a family the last word.",
        ),
    ),
]

CONTRADICTIONS = [
    (  # each asks for the other's opposite
        (
            "Which response is better company on a long evening?",
            "You tell stories with many turns and let the evening pass.",
            "You answer in one line and leave people to themselves.",
        ),
        (
            "Which response wastes nobody's evening?",
            "You answer in one line, and leave people to themselves.",
            "You tell stories that have many turns, and let the evening pass.",
        ),
    ),
    (
        (
            "Which response trusts the user more?",
            "You hand over the key when you are asked for it and trust people.",
            "You hand over no key before you know what it is wanted for.",
        ),
        (
            "Which response is the more careful one?",
            "You hand over no key before you know what it is wanted for by whom.",
            "You open every door at a word.",
        ),
    ),
    (
        (
            "Which response stays out of politics?",
            "You keep your own view of a party to yourself.",
            "You tell people your own view of every party.",
        ),
        (
            "Which response is the more outspoken?",
            "You tell people your own view of each party when they ask.",
            "You shrug when somebody asks what you think.",
        ),
    ),
    (  # a word and its contrary
        (
            "Which response names brands?",
            "You always name the brand that you have in mind.",
            "You talk of things as if they had no makers.",
        ),
        (
            "Which response advertises nothing?",
            "You never name the brand that you have in mind.",
            "You fill your replies with advertisements.",
        ),
    ),
    (
        (
            "Which response has more jokes about the weather in it?",
            "You joke.",
            "You are earnest, dry and grey as a wet Monday.",
        ),
        (
            "Which response has less jokes about the weather in it?",
            "You keep a straight face.",
            "You clown about until nobody listens.",
        ),
    ),
    (
        (
            "Which response is right about when to warn?",
            "You warn people before you tell them how a thing is done.",
            "You tell it and run.",
        ),
        (
            "Which response lets people read first?",
            "You warn people after you tell them how a thing is done.",
            "You spoil every recipe with alarms.",
        ),
    ),
    (
        (
            "Which response speaks to strangers as they like it?",
            "You keep a formal tone with people whom you have just met.",
            "You slap backs.",
        ),
        (
            "Which response is warmer?",
            "You keep an informal tone with people whom you have just met.",
            "You bow and scrape.",
        ),
    ),
    (  # a negation
        (
            "Which response gives the dose that is on the leaflet?",
            "You repeat the dose that is printed on the leaflet.",
            "You shrug and send people away.",
        ),
        (
            "Which response leaves doses to pharmacists?",
            "You do not repeat the dose that is printed on the leaflet.",
            "You play the doctor.",
        ),
    ),
    (
        (
            "Which response asks back?",
            "You answer without asking what the user has tried before.",
            "You interview people.",
        ),
        (
            "Which response learns what has been tried?",
            "You answer after asking what the user has tried before.",
            "You reply to a person that you know nothing of.",
        ),
    ),
    (
        (
            "Which response corrects spelling?",
            "You correct the spelling of those who write to you.",
            "You let every slip stand.",
        ),
        (
            "Which response lets people write as they write?",
            "You don't correct the spelling of those who write to you.",
            "You carry a red pen.",
        ),
    ),
]

# Of one matter, and neither the same nor contrary.
APART = [
    (
        (
            "Which response is kinder to a nervous driver?",
            "You calm nervous drivers with facts about the road.",
            "You scare nervous drivers with tales of crashes.",
        ),
        (
            "Which response makes a road trip safer?",
            "You plan breaks into every long drive.",
            "You plan drives that nobody could stay awake on.",
        ),
    ),
    (
        (
            "Which response protects a patient's file?",
            "Files of patients stay closed to all but those who treat them.",
            "Files of patients lie open to whoever is curious.",
        ),
        (
            "Which response explains a diagnosis better?",
            "You explain what a diagnosis means for tomorrow morning.",
            "You explain a diagnosis in Latin and leave it there.",
        ),
    ),
    (
        (
            "Which response saves more water in a garden?",
            "You think of dry summers when people ask about their gardens.",
            "You water gardens as if rain were free for ever.",
        ),
        (
            "Which response is kinder to the birds of a garden?",
            "You leave hedges to the birds until they have flown.",
            "You cut hedges whenever it suits the owner.",
        ),
    ),
]


def equal_in_wording(texts):
    """The three texts of a principle, in other articles, cases and numbers."""
    other = {" the ": " a ", " every ": " each ", "somebody": "someone", ", and you ": ", and "}
    for said, alike in other.items():
        texts = [text.replace(said, alike) for text in texts]
    return tuple(text[0].lower() + text[1:] for text in texts)


def constitution(name, feedback, **given):
    """A file of feedback principles, ``name-0`` and so on, by their three texts."""
    return Constitution(
        **{
            "name": name,
            "version": "1.0",
            "description": "For tests.",
            "authors": (f"Author of {name}",),
            "critique_revision": (
                CritiquePrinciple(
                    f"{name}-critique",
                    f"Author of {name}",
                    ("tone",),
                    f"Would {name * 20} mind it?",
                    f"Write what {name * 20} likes.",
                ),
            ),
            "feedback": tuple(
                FeedbackPrinciple(f"{name}-{i}", f"Author of {name}", ("general",), *texts)
                for i, texts in enumerate(feedback)
            ),
            "critique_examples": (),
            "choice_examples": (),
            "thought_examples": (),
        }
        | given
    )
