"""The synthetic world: its oracle tells its replies apart, and its corpus leaks nothing."""

import hashlib
import itertools
import json
import re
from collections import Counter

import numpy as np
import pytest
from conftest import ROOT, load_config

from cai_jax.config import parse_config
from cai_jax.data.readers import read_pairs, read_prompts
from cai_jax.data.splits import PURPOSES
from cai_jax.microworld.corpus import constitutions, dialogues, group_of, prompt_of
from cai_jax.microworld.oracle import MEASURES, judge, topic_of
from cai_jax.microworld.texts import KIND_WORDS, REQUESTS, Act, reply, request
from cai_jax.microworld.world import TOPICS
from cai_jax.prompts.chat import ChatFormat
from cai_jax.prompts.feedback import THINK
from cai_jax.prompts.messages import assistant, user
from cai_jax.prompts.word_tokenizer import word_tokenizer
from cai_jax.stages import pretrain
from cai_jax.stages.stage import open_run

RNG = np.random.default_rng(0)


def test_no_thing_tells_harm():
    """Every harmful thing is harmless with another verb, and one harmful verb with other things."""
    harmful, harmless = ([t for t in TOPICS if t.harmful == side] for side in (True, False))
    assert {t.thing for t in harmful} <= {t.thing for t in harmless}
    assert {t.verb for t in harmful} & {t.verb for t in harmless} == {"plant"}
    assert len({(t.verb, t.thing) for t in TOPICS}) == len(TOPICS)
    tools = {t.verb: {u.tool for u in TOPICS if u.verb == t.verb} for t in TOPICS}
    assert all(len(found) == 1 for found in tools.values())


@pytest.mark.parametrize("form", range(len(REQUESTS)))
def test_the_oracle_knows_what_is_asked(form):
    assert all(topic_of(request(topic, form)) == topic for topic in TOPICS)


@pytest.mark.parametrize("kind", [False, True])
def test_the_oracle_tells_replies_apart(kind):
    for topic in TOPICS:
        for act in Act:
            found = judge((user(prompt_of(topic)),), reply(topic, act, kind, RNG))
            assert set(found) <= {measure.name for measure in MEASURES}
            assert found["kind"] == kind
            assert found["evasive"] == (act in (Act.EVADE, Act.REFUSE))
            if topic.harmful:
                assert found["harmless"] == (act is not Act.HELP)
                assert found["explains"] == (act is Act.OBJECT)
                assert found["merit"] == {Act.HELP: 0, Act.OBJECT: 2}.get(act, 1)
            else:
                assert found["helpful"] == (act is Act.HELP)
                assert "harmless" not in found


def test_the_oracle_is_not_fooled():
    clean = next(t for t in TOPICS if t.verb == "clean" and t.thing == "wallet")
    steal = next(t for t in TOPICS if t.verb == "steal" and t.thing == "wallet")
    clean, steal = ((user(prompt_of(topic)),) for topic in (clean, steal))
    assert not judge(clean, "Sure. Take a crowbar and clean the wallet.")["helpful"]
    assert not judge(clean, "Sure. Take a sponge and clean the phone.")["helpful"]
    assert not judge(steal, "Sure. Take a sponge and steal the wallet.")["harmless"]
    wrong = "I will not help you steal a wallet, because fire can kill whoever is near."
    assert judge(steal, wrong)["harmless"]
    assert not judge(steal, wrong)["explains"]
    assert judge(steal, "")["evasive"]
    assert judge((user("Why is it important to eat socks after meditating?"),), "Sure.") == {}
    assert judge((*clean, assistant("Sure."), *steal), "")["harmless"]  # the last request counts


def test_files_are_what_the_world_writes():
    folder = ROOT / "datasets" / "microworld"
    prompts = read_prompts(folder / "red_team_prompts.jsonl")
    assert {p.messages for p in prompts} == {(user(prompt_of(t)),) for t in TOPICS if t.harmful}
    prompts = read_prompts(folder / "helpful_prompts.jsonl")
    assert {p.messages for p in prompts} == {(user(prompt_of(t)),) for t in TOPICS if not t.harmful}
    for pair in read_pairs(folder / "harmlessness_pairs.jsonl"):
        chosen, rejected = (judge(pair.messages, text) for text in (pair.chosen, pair.rejected))
        assert chosen["merit"] > rejected["merit"]
    for pair in read_pairs(folder / "helpfulness_pairs.jsonl"):
        chosen, rejected = (judge(pair.messages, text) for text in (pair.chosen, pair.rejected))
        assert chosen["helpful"] > rejected["helpful"]
        kind = pair.id.rsplit("-", 1)[1]
        if kind == "stammers":
            topic, left = topic_of(pair.messages[0].text), set(pair.rejected.split())
            assert len({topic.verb, topic.tool, topic.thing} - left) == 2
        if kind == "strays":
            other = next(t for t in TOPICS if f"{t.verb} the {t.thing} " in pair.rejected)
            assert not other.harmful


@pytest.fixture
def world(monkeypatch):
    """A run of configs/microworld.py, not started."""
    monkeypatch.chdir(ROOT)
    return open_run(parse_config(load_config("microworld")))


def test_no_file_shows_a_topic_of_another_purpose(world):
    """Neither a row's own request, nor what a reply is about."""
    data, topics = world.data, {group_of(t): t for t in TOPICS}
    shown = {purpose: set() for purpose in PURPOSES}
    for purpose in PURPOSES:
        for file in ("red_team_prompts", "helpful_prompts", "helpfulness_pairs"):
            shown[purpose] |= {topic_of(row.messages[0].text) for row in data.of(file, purpose)}
        for file in ("helpfulness_pairs", "harmlessness_pairs"):
            for pair in data.of(file, purpose):
                texts = f"{pair.chosen} {pair.rejected} "
                named = {t for t in topics.values() if f"{t.verb} the {t.thing} " in texts}
                assert {data.purposes[group_of(t)] for t in named} <= {purpose}
                shown[purpose].add(topic_of(pair.messages[0].text))
    assert all(len(found) >= 20 for found in shown.values() if found)
    assert sum(map(len, shown.values())) == len(TOPICS) == len(set().union(*shown.values()))


def test_its_constitutions_are_whole():
    for constitution in constitutions():
        assert len(constitution.critique_revision) == len(constitution.feedback) >= 8
        assert constitution.name.startswith("microworld_")


def test_its_cases_are_as_the_oracle_says():
    for constitution in constitutions():
        counts = Counter(id_ for case in constitution.cases for id_ in case.principles)
        assert all(counts[p.id] == 3 for p in constitution.feedback)
        measure = "kind" if constitution.name.endswith("kind") else "merit"
        for case in constitution.cases:
            said = [judge((user(case.dialogue[0]),), text) for text in (case.better, case.worse)]
            assert said[0][measure] > said[1][measure], case.id


def corpus(count=4000, held_out=(), **options):
    return list(itertools.islice(dialogues(0, held_out, options), count))


@pytest.mark.parametrize(
    ("seed", "options", "digest"),
    [(0, {}, "33699be1c71cf232"), (3, {"critic_recall": 0.5}, "7fd57fff6c8d2ef9")],
)
def test_the_corpus_is_what_its_seed_says(seed, options, digest):
    """Other dialogues would make every measured number another."""
    found = hashlib.sha256()
    for dialogue in itertools.islice(dialogues(seed, (), options), 2000):
        turns = [(m.role, m.text) for m in dialogue.messages]
        found.update(json.dumps([turns, dialogue.learned]).encode())
    assert found.hexdigest().startswith(digest)


def test_the_corpus_shows_no_held_out_topic(world):
    held_out = world.inputs(pretrain.STAGE).held_out
    assert 0.25 < len(held_out) / len(TOPICS) < 0.45
    shown = set()
    for dialogue in corpus(8000, held_out):
        text = " ".join(m.text for m in dialogue.messages)
        topics = [topic_of(sentence) for sentence in text.split("\n")]
        shown |= {group_of(t) for t in topics if t}
    assert not shown & set(held_out)
    assert {world.data.purposes[group] for group in shown} == {"training", "second_model"}


def test_the_corpus_does_not_prefer_harmlessness():
    """An assistant that is asked and not criticised helps, whatever it is asked."""
    asked = {request(topic, form) for topic in TOPICS for form in range(len(REQUESTS))}
    answers = [d.messages for d in corpus() if d.messages[0].text in asked]
    answers = [m for m in answers if len(m) == 2]
    measures = [judge(m[:1], m[1].text) for m in answers]
    harmful = [m for m in measures if "harmless" in m]
    assert len(harmful) > 100
    assert not any(m["harmless"] for m in harmful)
    assert all(m["helpful"] for m in measures if "helpful" in m)
    assert 0.1 < np.mean([KIND_WORDS in m[1].text for m in answers]) < 0.2


@pytest.mark.parametrize("recall", [0.5, 1.0])
def test_critics_miss_as_many_faults_as_the_config_says(recall):
    covered = {p.critique_request: p.tags for c in constitutions() for p in c.critique_revision}
    found = missed = 0
    for dialogue in corpus(9000, critic_recall=recall):
        turns = [m.text for m in dialogue.messages]
        if len(turns) == 6 and judge(dialogue.messages[:1], turns[1]).get("harmless") == 0:
            tags = next(tags for critique, tags in covered.items() if critique in turns[2])
            if topic_of(turns[0]).category in tags:
                found += "helps with" in turns[3]
                missed += "is fine" in turns[3]
    assert found + missed > 100
    assert found / (found + missed) == pytest.approx(recall, abs=0.1)


@pytest.mark.parametrize(("reasoned", "right"), [(False, 0.5), (True, 0.995)])
def test_reasoning_alone_tells_an_excuse_from_an_objection(reasoned, right):
    """At first sight both are objections, so that the letter is anybody's guess."""
    kind = {p.question for c in constitutions() for p in c.feedback if "kindness" in p.tags}
    answers = []
    for dialogue in corpus(20_000):
        question, answer = (dialogue.messages[i].text for i in (0, -1))
        if "Options:" not in question or (THINK in answer) != reasoned:
            continue
        prompt = question.split("User: ")[1].split("\n")[0]
        options = re.findall(r"\([AB]\) (.*)", question)
        explains = [judge((user(prompt),), text)["explains"] for text in options]
        refuses = [" not help you " in text for text in options]
        if all(refuses) and sum(explains) == 1 and not any(q in question for q in kind):
            answers.append(explains["AB".index(answer[-1])])
    assert len(answers) > 40
    assert np.mean(answers) == pytest.approx(right, abs=0.15)


@pytest.mark.parametrize("reasoned", [False, True])
def test_groups_want_different_things(reasoned):
    """One wants kind words, the other objections without them; the second is read where asked."""
    (group,) = (c for c in constitutions(groups=True) if c.name == "microworld_earnest")
    own = {p.question for p in group.feedback}
    assert not any(q in d.messages[0].text for d in corpus(4000) for q in own)
    right, sweet = [], []
    for dialogue in corpus(30_000, groups=1.0):
        question, answer = (dialogue.messages[i].text for i in (0, -1))
        if not any(q in question for q in own) or (THINK in answer) != reasoned:
            continue
        prompt = (user(question.split("User: ")[1].split("\n")[0]),)
        found = [judge(prompt, text) for text in re.findall(r"\([AB]\) (.*)", question)]
        worth = [f["merit"] - 2 * f["kind"] for f in found]
        chosen = "AB".index(answer[-1])
        if abs(worth[0] - worth[1]) > 1:  # an excuse may look like an objection
            right.append(worth[chosen] > worth[1 - chosen])
        if worth[0] != worth[1] and found[0]["explains"] and found[1]["explains"]:
            sweet.append(found[chosen]["kind"])
    assert np.mean(right) > 0.9
    assert len(sweet) > 8
    assert np.mean(sweet) < 0.1


def test_unknown_skills_are_named():
    with pytest.raises(ValueError, match=r"options\.critic_recal: known are dialogues"):
        corpus(critic_recal=1.0)


def test_words_survive_the_tokenizer():
    texts = [m.text for d in corpus(300) for m in d.messages]
    chat = ChatFormat(word_tokenizer(texts))
    for text in texts[:200]:
        assert chat.text(chat.reply_ids(text)) == " ".join(text.split())
    prompt = chat.prompt_ids([user(texts[0])])
    whole = chat.prompt_ids([user(texts[0]), assistant(texts[1]), user(texts[2])])
    said = [*prompt, *chat.reply_ids(texts[1])]
    assert whole[: len(said)] == said  # ids of a dialogue grow, turn by turn
    assert chat.end_of_turn == chat.tokenizer.eos_token_id
    assert chat.prompt_ids([user("zyzzyva")])[1] == chat.tokenizer.unk_token_id
