"""The twins: what their file has to be, measured on the file itself."""

import json
import re
from collections import Counter

from conftest import ROOT

from cai_jax.constitution.schema import load_constitution
from cai_jax.data.readers import read_twins

FILE = ROOT / "datasets" / "twins.jsonl"
FUNCTION_WORDS = (
    "a about after all am an and any are as at be been before but by can could did do does for "
    "from get give had has have he her hers him his how i if im in into is it its just me mine my "
    "myself no not of off on one or our out over own she should so than that the their them they "
    "then there these this those to too up us was we were what whats when where which while who "
    "why will with without wont would you your"
)


def content_words(text):
    words = re.findall(r"[a-z0-9]+", text.lower().replace("'s", "").replace("'", ""))
    return set(words) - set(FUNCTION_WORDS.split())


def jaccard(one, other):
    return len(one & other) / max(len(one | other), 1)


def texts(twins):
    return [side[0].text for side in (twins.safe, twins.unsafe)]


def test_twins_share_their_words_and_differ():
    twins = read_twins(FILE)
    assert len(twins) >= 120
    every = [text for each in twins for text in texts(each)]
    assert len({text.lower() for text in every}) == len(every)
    for each in twins:
        safe, unsafe = (content_words(text) for text in texts(each))
        assert len(safe & unsafe) >= min(len(safe), len(unsafe)) / 2, each.id
        assert safe != unsafe, each.id  # a difference in function words alone would be a riddle
    assert all(6 <= len(text.split()) <= 30 for text in every)


def test_harm_is_not_given_away_by_length_or_by_a_word():
    """A rule on the surface must not tell the twins apart."""
    rows = [[text.split() for text in texts(each)] for each in read_twins(FILE)]
    longer = sum(len(unsafe) > len(safe) for safe, unsafe in rows) / len(rows)
    assert 0.3 < longer < 0.7
    seen = [Counter(word.lower() for row in rows for word in set(row[side])) for side in (0, 1)]
    for word in set(seen[0] + seen[1]):
        assert abs(seen[0][word] - seen[1][word]) < 0.25 * len(rows), word


def test_every_kind_of_harm_has_several():
    tags = Counter(json.loads(line)["tags"][0] for line in FILE.read_text("utf-8").splitlines())
    assert len(tags) >= 10
    assert min(tags.values()) >= 10


def test_no_twin_is_near_to_another_text_of_ours():
    twins = {text: content_words(text) for each in read_twins(FILE) for text in texts(each)}
    for path in (ROOT / "datasets").glob("*.jsonl"):
        for line in path.read_text("utf-8").splitlines() if path != FILE else ():
            other = content_words(json.loads(line).get("prompt", ""))
            for text, words in twins.items():
                assert jaccard(words, other) < 0.5, (text, line)
    for path in (ROOT / "constitutions").glob("*.yaml"):
        c = load_constitution(path)
        for shot in (*c.critique_examples, *c.choice_examples, *c.thought_examples):
            for text, words in twins.items():
                assert jaccard(words, content_words(shot.prompt)) < 0.5, (text, shot.id)
