"""Evidence of a run, small enough to work out by hand: two prompts a set, two policies."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from cai_jax.constitution.schema import FeedbackPrinciple
from cai_jax.data.readers import ClassedReply
from cai_jax.data.rows import Revision, Sample
from cai_jax.evaluation.evaluator import Evidence, Judge, Reply, Tools
from cai_jax.evaluation.measure import Measure, Plan
from cai_jax.evaluation.reply_class import DESCRIPTIONS, ReplyJudge, class_by_rule
from cai_jax.feedback.audit import Audit
from cai_jax.feedback.labeler import Judgement
from cai_jax.generation.engine import Completion
from cai_jax.prompts.messages import user
from cai_jax.rl.reward import Objective
from cai_jax.rl.watch import Look

HARM, HELP = (user("harm"),), (user("help"),)
MEASURES = (  # of the oracle below
    Measure("words", "words", "", "how many", ("red_team", "helpful")),
    Measure("merit", "", "higher", "words, of what asks for harm", ("red_team",)),
)


def oracle(prompt, reply):
    """Counts words; knows merit only where harm is asked for."""
    words = float(len(reply.split()))
    return {"words": words} | ({"merit": words} if "harm" in prompt[0].text else {})


@dataclass
class CountingReward:
    """Scores a reply by its words."""

    chat: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(prompts_ids=lambda asked: [[1] for _ in asked])
    )

    def __call__(self, prompts, replies, name=""):
        return np.array([len(reply.split()) for reply in replies], np.float32)


@dataclass
class FlatScorer:
    """Gives every token the same log-probability."""

    logprob: float

    def completion_logprobs(self, prompts, completions, temperature, name):
        return [np.full(len(ids), self.logprob, np.float32) for ids in completions]

    def logprob_programs(self, name, temperature):
        return []


class LongerIsBetter:
    """A labeler: the longer reply wins, in both orders; of equal lengths, who stands first."""

    @classmethod
    def make(cls, tools):
        return cls()

    @staticmethod
    def programs(tools, name):
        return []

    def judge(self, pairs):
        longer = [np.sign(len(pair.first) - len(pair.second)) for pair in pairs]
        return [
            Judgement(np.array([0.5 + 0.4 * (s or 1)]), np.array([0.5 + 0.4 * (s or -1)]))
            for s in longer
        ]


PRINCIPLES = tuple(
    FeedbackPrinciple(name, "", tags, "", "", "")
    for name, tags in (("p", ("harm",)), ("q", ("helpfulness",)), ("r", ("tone",)))
)


@dataclass
class KnowingScorer:
    """Chooses the right letter, as far as a liking for (A) lets it."""

    liking: float = 0.5

    def choice_logprobs(self, rows, letters):
        return np.array([self._logprobs(text) for text in rows], np.float32)

    def _logprobs(self, text):
        reply = text.split("\nAssistant: ")[1].split("\n\nWhat does")[0]
        options = [line[4:] for line in text.splitlines() if line[:1] == "(" and line[2:3] == ")"]
        right = [option == DESCRIPTIONS[class_by_rule(reply)] for option in options]
        return np.log([0.1 + hit + (at == 0) * self.liking for at, hit in enumerate(right)])

    def choice_programs(self, name, choices):
        return []


def judge(**more):
    """A feedback model that reads texts in place of ids."""
    chat = SimpleNamespace(
        prompts_ids=lambda asked, prefills: [
            f"{messages[0].text}\n{prefill}"
            for messages, prefill in zip(asked, prefills, strict=True)
        ],
        tokenizer=SimpleNamespace(convert_tokens_to_ids=lambda letters: letters),
    )
    return ReplyJudge(KnowingScorer(**more), lambda: chat)


def reply(policy, group, number, text, score, tokens=2, logprob=-1.0):
    harmful = group in ("red_team", "unsafe")
    prompt = user(f"harm {number}" if harmful else f"help {number}")
    name, scores = f"{group}/{number}/{policy}", (score, -score, (score,), (-score,))
    row = Sample(name, policy, group, (prompt,), text, True, *scores)
    logprobs = np.full(tokens, logprob, np.float32)
    return Reply(row, [1], Completion([5] * tokens, logprobs, True), bool(text))


def replies(policy, texts, scores, **more):
    """To two prompts of each set, to one that is shown and not measured, and to two twins."""
    groups = ("red_team", "red_team", "helpful", "helpful", "shown")
    rows = zip(groups, texts, scores, strict=True)
    found = [reply(policy, g, n, text, score, **more) for n, (g, text, score) in enumerate(rows)]
    return [*found, *twin_replies(policy, ["a", "No."], ["No.", "a"], **more)]


def twin_replies(policy, safe, unsafe, **more):
    """To the safe twins, and to the unsafe ones."""
    return [
        reply(policy, group, number, text, 99, **more)
        for group, texts in (("safe", safe), ("unsafe", unsafe))
        for number, text in enumerate(texts)
    ]


def revision(prompt_id, number, response):
    return Revision(
        id=f"{prompt_id}/{number}",
        prompt_id=prompt_id,
        prompt=(user(f"harm {prompt_id}"),),
        round=number,
        principle_id="p" if number else "",
        critique="",
        response=response,
        raw_critique="",
        raw_response=response,
        tokens=(),
        loss_mask=(),
        seed=0,
        model="",
        constitution_sha256="",
    )


PLAN = Plan(
    policies=("base", "rl_cai"),
    rounds=2,
    second_model=True,
    looks=(0, 2, 4),
    oracle=MEASURES,
    labeler="multiple_choice",
    metrics=("score", "kl_k3"),
    twins=2,
    judged_replies=1,
)


JUDGE = Judge(LongerIsBetter, None, PRINCIPLES, per_pair=2, margin=0.02)


def evidence(**changes):
    given = {
        "plan": PLAN,
        "tools": Tools(
            reward=Objective({"": CountingReward()}),
            second=Objective({"": CountingReward()}),
            base=FlatScorer(-3.0),
            judge=JUDGE,
            other_judge=None,
            reply_judge=judge(),
            temperature=1.0,
        ),
        "replies": {
            "base": replies("base", ["a", "a b", "a b c", "a", "shown"], [0, 1, 2, 3, 99]),
            "rl_cai": replies("rl_cai", ["a b", "a b", "a", "a", "shown"], [1, 3, 2, 2, 99]),
        },
        "revisions": [
            revision("x", 0, "a"),
            revision("x", 1, "a b"),
            revision("x", 2, "a b c"),
            revision("y", 0, "a b c"),
            revision("y", 1, "a b c"),
            revision("y", 2, "a b c d e"),
            revision("z", 0, "long gone in round two"),
        ],
        "comparisons": {"": []},
        "pairs": {"harmlessness": [], "helpfulness": []},
        "classed_replies": [
            ClassedReply("x", HARM, "No.", "unexplained"),
            ClassedReply("y", HARM, "No. It would hurt him.", "explained"),
            ClassedReply("z", HARM, "I can't say that I took one.", "engages"),
        ],
        "audits": {"audit": Audit(4, 4, 0.75, 0.3, 0.95, 0.5, 1.0, 0.1, 1.0, 0.5)},
        "history": [{"score": 0.0, "kl_k3": 0.0}, {"score": 1.5, "kl_k3": 0.2}],
        "looks": [Look(0, [0.0, 0.0], [0.0, 0.0], []), Look(2, [1.0, 3.0], [1.0, 0.0], [])],
        "oracle": oracle,
        "bootstrap_samples": 100,
        "seed": 0,
    }
    return Evidence(**(given | changes))


def means(measurements):
    """Mean by measure, subject and group."""
    return {(m.measure, m.subject, m.group): m.mean for m in measurements}
