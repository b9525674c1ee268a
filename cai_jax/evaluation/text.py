"""Measures of texts that reveal over-optimisation: repetition and refusals."""

from collections.abc import Iterator, Sequence

from cai_jax.evaluation.evaluator import Evaluator, Evidence, policies
from cai_jax.evaluation.measure import PROMPT_SETS, Measure, Measurement
from cai_jax.evaluation.reply_class import REFUSAL

MEANS = (
    Measure("response_tokens", "tokens", "", "sampled, a response", PROMPT_SETS, low=0.0),
    Measure("finished", "share", "higher", "ended within the limit of tokens", PROMPT_SETS),
    Measure("unusable", "share", "lower", "did not parse: no whole sentence", PROMPT_SETS),
    Measure("refusal_rate", "share", "", "replies with a phrase of refusal", PROMPT_SETS),
)
DISTINCT = (
    Measure("distinct_1", "share", "higher", "distinct words, of all words", PROMPT_SETS),
    Measure("distinct_2", "share", "higher", "distinct pairs of words, of all pairs", PROMPT_SETS),
)


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct word n-grams as a share of all (Li et al. 2016); 0 if there are none."""
    grams = [
        tuple(words[i : i + n])
        for words in (text.lower().split() for text in texts)
        for i in range(len(words) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else 0.0


def refuses(text: str) -> bool:
    """Whether a text has a phrase of refusal."""
    return bool(REFUSAL.search(text.replace("\u2019", "'")))


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """Means of replies; shares of distinct words are of all texts at once, without intervals."""
    for policy, group, replies in evidence.by_set():
        texts = [reply.row.response for reply in replies]
        prompts = [reply.row.prompt for reply in replies]
        values: tuple[Sequence[float], ...] = (
            [len(reply.completion.ids) for reply in replies],
            [reply.row.finished for reply in replies],
            [not reply.usable for reply in replies],
            [refuses(text) for text in texts],
        )
        for measure, value in zip(MEANS, values, strict=True):
            yield evidence.mean(measure, policy, group, value, prompts)
        for n, measure in enumerate(DISTINCT, 1):
            yield Measurement(measure.name, policy, group, len(texts), distinct_n(texts, n))


TEXT = Evaluator("Texts, by their surface", policies, lambda plan: (*MEANS, *DISTINCT), evaluate)
