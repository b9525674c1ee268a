"""lint: what is planted is found where it stands, what is shipped is clean."""

import json
import re
import time

import planted_principles
import pytest
from commanded import command
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from planted_pairs import CONTRADICTIONS, DUPLICATES, MAY_STAND

from cai_jax.constitution.imports import import_constitution
from cai_jax.constitution.lint import RULES, lint
from cai_jax.constitution.wording import compare, wording
from cai_jax.constitution.write import to_yaml

SHIPPED = sorted((ROOT / "constitutions").rglob("*.yaml"))
CLEAN = """\
name: clean
version: "1"
description: For tests.
authors: [Ana, Bo]
critique_revision:
  - id: calm
    author: Ana
    tags: [tone]
    critique_request: Does your last reply shout? Quote it, or say that it is calm.
    revision_request: Rewrite your reply calmly, without help for harm.
  - id: sources
    author: Bo
    tags: [facts]
    critique_request: Is a source missing in your last reply? Say which, or that none is.
    revision_request: Rewrite your reply so that its sources are cited.
feedback:
  - id: calmer
    author: Ana
    tags: [tone]
    question: Which response is calmer and does no harm?
    principle: You are a calm assistant that does no harm.
    opposite: You are an angry assistant that does much harm.
  - id: sourced
    author: Bo
    tags: [facts]
    question: Which response cites its sources?
    principle: You are a librarian who cites every source.
    opposite: You are a gossip who cites no source.
few_shots:
  critique_revision:
    - id: shot
      prompt: When was our bridge built?
      response: In 1931.
      critique_request: Is a source missing in your last reply? Say which, or that none is.
      critique: The year has no source.
      revision_request: Rewrite your reply so that its sources are cited.
      revision: In 1931, as the plate on its pillar says.
  multiple_choice:
    - {id: one, prompt: "How high is it?", question: "Which is calmer?", option_a: Ask.,
       option_b: NO!, answer: A}
    - {id: two, prompt: "Who paid for the ferry?", question: "Which is calmer?",
       option_a: WHO CARES!, option_b: We did., answer: B}
cases:
  - id: ferry
    dialogue: ["Is it late?", "Which one?", "The ferry!"]
    better: By ten minutes, as the board says.
    worse: Always is.
    principles: [calmer, sourced]
"""
# What is replaced, by what; line and rule of the finding, and words of its message.
MALFORMED = [
    ("name: clean\n", "", 1, "schema", "lacks 'name'; add it"),
    ("name: clean", "name: [clean]", 1, "schema", "name must be a text"),
    ("name: clean", "nome: clean", 1, "schema", "is not a field here; known: authors"),
    ('version: "1"', "version:", 2, "schema", "version must be a text"),
    ('version: "1"', 'version: "1"\nversion: "2"', 3, "schema", "appears twice; keep one"),
    ("authors: [Ana, Bo]", "authors: Ana", 4, "schema", "authors must be a list"),
    ("authors: [Ana, Bo]", "authors: []", 4, "schema", "at least one text"),
    ("authors: [Ana, Bo]", "authors: [Ana, Bo", 5, "schema", "not valid YAML"),
    ("- id: calm\n", "- id: ''\n", 6, "schema", "id is empty; write a text"),
    ("- id: sources\n", "- id: calm\n", 11, "schema", "taken by line 6; choose another"),
    ("tags: [facts]\n    critique", "tags: facts\n    critique", 13, "schema", "must be a list"),
    ("    question: Which response cites", "    ask: Which", 26, "schema", "ask is not a field"),
    ("    opposite: You are a gossip who cites no source.\n", "", 23, "schema", "lacks 'opposite'"),
    ("tags: [facts]\n    q", "tags: [facts]\n    weight: 0\n    q", 26, "schema", "from 0.001"),
    ("answer: A}", "answer: C}", 40, "schema", "answer must be A or B"),
    ("answer: A}", "answer: A, weight: 2}", 40, "schema", "weight is not a field here"),
    ("few_shots:", "few_shots: none\nshots:", 30, "schema", "shots is not a field here"),
    ("feedback:\n", "feedback:\n  - calmer\n", 17, "schema", "must be a mapping of fields"),
    (
        "    critique_request: Does your last reply shout? Quote it, or say that it is calm.\n",
        "    critique_request: Explain how your last reply shouts.\n",
        *(9, "presupposed-fault", "add a way out, such as 'or say that there is none'"),
    ),
    (
        "calmly, without help for harm.",
        "calmly.",
        *(10, "tone-without-harm", "add a clause such as 'and helps with no harm'"),
    ),
    ("calmer and does no harm?", "calmer?", 20, "tone-without-harm", "or drop the tag"),
    (
        "author: Bo\n    tags: [facts]\n    q",
        "author: Bob\n    tags: [facts]\n    q",
        24,
        "author",
        "spell",
    ),
    (
        "Which response cites its sources?",
        "Which response cites its sources and/or its authors?",
        *(26, "wording", "asks two things at once (and/or); ask one"),
    ),
    ("cites its sources?", "cites its sources? Is it short?", 26, "wording", "asks two things"),
    ("cites its sources?", "is worse at naming sources?", 26, "wording", "ask for the better one"),
    ("Which response cites", "Why does option (A) cite", 26, "wording", "ask which of both"),
    (
        "so that its sources are cited.\nfeed",
        "so that it is not unclear about its sources.\nfeed",
        *(15, "wording", "double negation (not unclear); say what is wanted instead"),
    ),
    (
        "You are a librarian who cites",
        "You are obviously a librarian who cites",
        *(27, "wording", "leads the model (obviously); drop the word"),
    ),
    ("Which response cites its sources?", "Sourced?", 26, "length", "has 1 words; write 3 to 40"),
    ("In 1931.", "In 1931. " * 80, 33, "length", "has 160 words; write 0 to 150"),
    ("a gossip who cites no", "a librarian who cites every", 28, "contrast", "is its principle"),
    ("You are a gossip who cites no source.", "Gossip!", 28, "length", "write 3 to 40"),
    (
        "You are a gossip who cites no source.",
        "Rumors rule whatever this bot blurts out.",
        *(28, "contrast", "keep the frame, and turn the conduct around"),
    ),
    (
        "Which response cites its sources?",
        "Which response cites no source?",
        *(
            26,
            "direction",
            "what its opposite does (cite, sourc), not its principle; turn",
        ),
    ),
    (
        "tags: [facts]\n    critique",
        "tags: [facts]\n    weight: 0.01\n    critique",
        *(14, "weight", "is drawn 0.99% of the time"),
    ),
    ("answer: A}", "answer: B}", 40, "answer-balance", "B 2 times; swap the options of 1"),
    ("Always is.", "By ten minutes, as the board says.", 47, "schema", "write one that is worse"),
    ('"Which one?", "The ferry!"', '"Which one?"', 45, "schema", "end it with what the user says"),
    ("[calmer, sourced]", "[calmer, source]", 48, "schema", "the nearest is 'sourced'"),
    ("[calmer, sourced]", "[calm]", 48, "schema", "'calm', no feedback principle"),
    ("Always is.", "Always is. " * 80, 47, "length", "ferry.worse has 160 words"),
    ("Who paid for the ferry?", "How high is it?", 41, "near-duplicate", "one.prompt, line 39"),
    (
        "    principles: [calmer, sourced]\n",
        "    principles: [calmer, sourced]\n"
        '  - id: again\n    dialogue: ["Is it late?", "Which  one?", "The ferry!"]\n'
        "    better: By ten minutes, as the board says.\n    worse: always is.\n"
        "    principles: [calmer]\n",
        *(49, "near-duplicate", "again is ferry, line 44, word for word; keep one, with the princ"),
    ),
    (
        "    principles: [calmer, sourced]\n",
        "    principles: [calmer, sourced]\n"
        '  - id: turned\n    dialogue: ["Is it late?", "Which one?", "The ferry!"]\n'
        "    better: Always is.\n    worse: By ten minutes, as the board says.\n"
        "    principles: [calmer]\n",
        *(51, "contradiction", "turned prefers under calmer what ferry, line 46, does not; keep"),
    ),
    ("option_b: NO!", "option_b: Ask.", 40, "schema", "multiple_choice[0].option_b is option_a"),
    ("Always is.", "By ten\u200b minutes, as the board says.", 47, "schema", "write one that is w"),
    ("name: clean", "#lint-allow length: so\nname: clean", 1, "allowance", "nothing that is there"),
    (
        "name: clean",
        "name: clean  # lint-allow length: so",
        *(1, "allowance", "write '# lint-allow RULE: REASON' on a line of its own"),
    ),
    ("name: clean", "# lint-allowed: so\nname: clean", 1, "allowance", "allows nothing; write"),
    ("name: clean", "# lint-allow lenth: short\nname: clean", 1, "allowance", "'lenth' is no rule"),
    ("name: clean", "# lint-allow length:\nname: clean", 1, "allowance", "says not why; write"),
    (
        "name: clean",
        "# lint-allow length: so\nname: clean",
        1,
        "allowance",
        "nothing that is there",
    ),
]


def findings(tmp_path, text, name="it.yaml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return lint(path).findings


def test_the_clean_document_is_clean(tmp_path):
    assert findings(tmp_path, CLEAN) == ()


@pytest.mark.parametrize(("old", "new", "line", "rule", "words"), MALFORMED)
def test_malformed_documents_are_found_with_line_and_remedy(tmp_path, old, new, line, rule, words):
    assert CLEAN.count(old) >= 1
    found = findings(tmp_path, CLEAN.replace(old, new, 1))
    hits = [f for f in found if f.rule == rule and words in f.message]
    assert [f.line for f in hits] == [line], [str(f) for f in found]
    assert str(hits[0]).startswith(f"{tmp_path / 'it.yaml'}:{line}: {rule}: ")
    assert len(found) <= 2  # and little else


def test_cases_of_principles_that_disagree_may_prefer_what_the_other_does_not(tmp_path):
    case = CLEAN[CLEAN.index("  - id: ferry") :]
    better, worse = re.findall(r"(?:better|worse): (.*)\n", case)
    turned = case.replace(better, "@").replace(worse, better).replace("@", worse)
    other = turned.replace("id: ferry", "id: other").replace("[calmer, sourced]", "[sourced]")
    (found,) = findings(tmp_path, CLEAN + other)
    assert found.rule == "contradiction"
    assert findings(tmp_path, CLEAN.replace("[calmer, sourced]", "[calmer]") + other) == ()


def test_malformed_documents_are_at_least_25_of_every_rule():
    assert len(MALFORMED) >= 25
    assert {rule for *_, rule, _ in MALFORMED} >= set(RULES) - {"contradiction"}


def test_a_file_that_is_none_is_a_finding(tmp_path):
    (found,) = lint(tmp_path / "none.yaml").findings
    assert found.rule == "schema"
    assert "no such file; check the path" in found.message


def named(pairs):
    """The texts of pairs by number and side."""
    return {f"{n}-{'xy'[i]}": pair[i] for n, pair in enumerate(pairs) for i in (0, 1)}


def imported(tmp_path, texts):
    """lint's findings on a document of named sentences."""
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(texts), encoding="utf-8")
    return findings(tmp_path, to_yaml(import_constitution([path], "pairs", "us")))


def planted(tmp_path, pairs):
    """The rules that lint applies to both texts of a pair, by the number of the pair."""
    rules = {}
    for finding in imported(tmp_path, named(pairs)):
        numbers = re.findall(r"\b(\d+)-[xy]", finding.message)
        if len(numbers) == 2 and numbers[0] == numbers[1]:
            rules.setdefault(int(numbers[0]), set()).add(finding.rule)
    return rules


def test_nine_of_ten_planted_duplicates_are_found(tmp_path):
    rules = planted(tmp_path, DUPLICATES)
    assert sum("near-duplicate" in found for found in rules.values()) >= 0.9 * len(DUPLICATES) >= 9


def test_nine_of_ten_planted_contradictions_are_found(tmp_path):
    rules = planted(tmp_path, CONTRADICTIONS)
    assert sum("contradiction" in found for found in rules.values()) >= 0.9 * len(CONTRADICTIONS)


def test_what_merge_finds_between_files_lint_finds_in_one(tmp_path):
    """Both go by cai_jax.constitution.pairs; the principles are those of test_merge."""
    pairs = planted_principles.DUPLICATES + planted_principles.CONTRADICTIONS
    c = planted_principles.constitution("x", [texts for pair in pairs for texts in pair])
    found = {
        frozenset(re.findall(r"x-\d+", str(f))): f.rule for f in findings(tmp_path, to_yaml(c))
    }
    rules = [found.get(frozenset((f"x-{n}", f"x-{n + 1}"))) for n in range(0, 2 * len(pairs), 2)]
    assert rules[:10].count("near-duplicate") >= 9
    assert rules[10:].count("contradiction") >= 9


def test_principles_that_may_stand_are_not_flagged(tmp_path):
    rules = planted(tmp_path, MAY_STAND)
    assert len(MAY_STAND) - len(rules) >= 0.95 * len(MAY_STAND) >= 20


def test_a_principle_that_is_anothers_opposite_is_a_contradiction(tmp_path):
    text = CLEAN.replace("a librarian who cites every source", "an angry assistant that does harm")
    found = [f for f in findings(tmp_path, text) if f.rule == "contradiction"]
    assert [f.line for f in found] == [27]
    assert "sourced.principle asks for the opposite of calmer" in found[0].message


def test_feedback_that_goes_against_a_revision_is_a_contradiction(tmp_path):
    text = CLEAN.replace("its sources are cited", "its sources are not cited")
    assert any(
        f.rule == "contradiction" and "sources.revision_request" in f.message
        for f in findings(tmp_path, text)
    )


def test_a_comment_allows_a_finding_in_its_place_alone(tmp_path):
    short = CLEAN.replace("Which response cites its sources?", "Sourced?")
    (found,) = findings(tmp_path, short)
    allowed = "    # lint-allow length: it is a word that all of us know.\n"
    assert findings(tmp_path, short.replace("    question: S", f"{allowed}    question: S")) == ()
    for odd in ("#lint-allow", "#  lint-allow", "## Lint-Allow"):
        comment = allowed.replace("# lint-allow", odd)
        assert not findings(tmp_path, short.replace("    question: S", f"{comment}    question: S"))
    gossip = "    opposite: You are a gossip"
    elsewhere = findings(tmp_path, short.replace(gossip, f"{allowed}{gossip}"))
    assert [f.rule for f in elsewhere] == [found.rule, "allowance"]
    assert findings(tmp_path, f"{allowed.strip()}\n{short}") == ()


def test_order_of_the_principles_does_not_matter(tmp_path):
    """Which pairs are found, that is; the one further down is named first."""
    texts = named(DUPLICATES[:20])
    there, back = (
        {
            (f.rule, frozenset(re.findall(r"\b\d+-[xy]", f.message)))
            for f in imported(tmp_path, order)
        }
        for order in (texts, dict(reversed(texts.items())))
    )
    assert there == back


HOSTILE = (
    *("leave ", "very ", "no a ", "leaving a ", "prefer a ", "avoid and ", "no and a ", "repeat "),
    *(", do ", ",  what ", "and what ", "a, ", "less ", "not ", "n't ", "a's ", "which a ", "? "),
    *("a", "a-", "a. ", "字", "e\u0301", "\u200b", "leave a b c d e f g h i ", "discuss the "),
)


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_grows_as_the_text_does(tmp_path, piece):
    """Of the processor, since machines are busy; with backtracking these took minutes."""
    long = json.dumps(f"Make it kind {piece * (10_000 // len(piece))}.", ensure_ascii=False)
    asked = r"(?m)^( +(?:critique_request|revision_request|question|principle|opposite):) .*$"
    text = re.sub(asked, lambda field: f"{field[1]} {long}", CLEAN)
    started = time.process_time()
    assert "schema" not in {f.rule for f in findings(tmp_path, text)}
    assert time.process_time() - started < 1


def test_letters_that_nobody_sees_change_no_meaning():
    text = "Rewrite your reply without harm, and as kindly as a café would."
    seen = wording(text)
    for odd in ("w\u200bithout", "with\u00adout", "\ufeffwithout", "without\u2060"):
        assert wording(text.replace("without", odd)) == seen
    assert wording(text.replace("é", "e\u0301").replace(" ", "\u00a0")) == seen


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_comparison_has_no_order_and_a_text_never_opposes_itself(one, other):
    a, b = wording(one), wording(other)
    assert compare(a, b) == compare(b, a)
    assert not compare(a, a).opposite


def test_what_a_model_finds_is_a_finding_that_a_comment_may_allow(tmp_path):
    path = tmp_path / "it.yaml"
    path.write_text(CLEAN, encoding="utf-8")
    by_labels = lambda located: iter([(located.lines["sourced", "id"], "labels otherwise")])
    (found,) = lint(path, by_labels).findings
    assert str(found) == f"{path}:23: contrary-labels: labels otherwise"
    allowed = "    # lint-allow contrary-labels: it is planted.\n"
    path.write_text(CLEAN.replace("  - id: sourced", f"{allowed}  - id: sourced"), encoding="utf-8")
    assert lint(path, by_labels).findings == ()
    assert lint(path).findings == ()  # it may stand there where no model is asked


def lint_command(*files):
    return command("constitution", "lint", *files)


def test_the_command_finds_the_shipped_files_clean():
    done = lint_command(*SHIPPED)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert re.match(rf"{len(SHIPPED)} files, \d+ principles: nothing to change", line)


def test_what_is_found_is_printed_and_fails(tmp_path):
    path = tmp_path / "it.yaml"
    path.write_text(CLEAN.replace("answer: A}", "answer: C}"), encoding="utf-8")
    done = lint_command(SHIPPED[0], path)
    assert done.returncode == 1
    assert done.stdout == f"{path}:40: schema: multiple_choice[0].answer must be A or B\n"
