"""Which few-shots an item gets: drawn by seed, none of its own topic, answers in balance."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import regex

from cai_jax.constitution.schema import ChoiceExample, CritiqueExample
from cai_jax.keys import named_rng
from cai_jax.letters import UNSPACED
from cai_jax.prompts.messages import Dialogue

Example = TypeVar("Example", CritiqueExample, ChoiceExample)
# Words of three letters and more that say nothing of what a text is about.
_COMMON = """
all and any are aren't ask but can can't did don't for get got had has her hers him his how i'm its
isn't it's let lot man may new nor not now off old one our out own per put saw say see set she ten
the too try two use was way who why won't yes yet you
about after again also another anybody anyone anything because been before being best better could
does doing done each even ever every everyone explain find from gave getting give given goes going
good have having help here into just keep kind know less like long look made make many maybe mean
might more most much must need never only other over please really right said same show some
somebody someone something still such sure take tell than thank that their them then there these
they thing things think this those through under until very want way well were what when where
which while whom whose will with without work works would write your yours
"""
COMMON = frozenset(_COMMON.split())
# The same of Chinese, by two characters, as its texts are compared.
_PAIRS = """
一个 一個 什么 什麼 么样 人的 他们 他的 你们 你的 个人 可以 告诉 告訴 她的 如何 應該 应该
怎么 怎样 怎麼 怎樣 我们 我的 我该 教我 样才 樣才 知道 能不 自己 訴我 诉我 請問 请问 这个
這個 那个 那個 还是 麼樣 为什 為什 才能 不能
"""
_ASKED = frozenset(_PAIRS.split())
_WORD = regex.compile(
    rf"[[\p{{L}}\p{{M}}']--[{UNSPACED}\p{{Hangul}}]]{{3,}}|\p{{Hangul}}{{2,}}", regex.V1
)
_ARTICLE = regex.compile(r"^(?:وال|بال|كال|فال|ال)(?=\p{Arabic}{2})")
_HAN = regex.compile(r"[\p{Han}\p{Kana}]{2,}")
_LETTERS = regex.compile(rf"[[{UNSPACED}]--[\p{{Han}}\p{{Hira}}\p{{Kana}}]]{{3,}}", regex.V1)


@dataclass(frozen=True)
class FewShots(Generic[Example]):
    """Few-shots that items draw from.

    Attributes:
      examples: of a constitution.
      count: the most that an item gets.
      seed: of the draws.
    """

    examples: tuple[Example, ...]
    count: int
    seed: int

    def draw(self, item: str, prompt: Dialogue) -> list[Example]:
        """The few-shots of an item, fewer than ``count`` where too many are near its topic.

        A model that is shown its very topic copies what is said there.
        """
        words = topic_words(" ".join(message.text for message in prompt))
        apart = [e for e in self.examples if not words & topic_words(e.prompt)]
        order = named_rng(self.seed, "few_shots", item).permutation(len(apart))
        return [apart[i] for i in order[: self.count]]


def balanced(examples: Sequence[ChoiceExample], rng: np.random.Generator) -> list[ChoiceExample]:
    """The same comparisons, as many answered A as B, in random order; an odd one is either."""
    first = int(rng.integers(2))
    answers = rng.permutation(["AB"[(first + i) % 2] for i in range(len(examples))])
    return [e if e.answer == a else swapped(e) for e, a in zip(examples, answers, strict=True)]


def swapped(example: ChoiceExample) -> ChoiceExample:
    """The comparison with its options, and what is said of them, in the other order."""
    other = {"A": "B", "B": "A"}
    return replace(
        example,
        option_a=example.option_b,
        option_b=example.option_a,
        answer=other[example.answer],
        reasoning=re.sub(r"\(([AB])\)", lambda m: f"({other[m[1]]})", example.reasoning),
    )


def topic_words(text: str) -> set[str]:
    """The words that a text is about, by how they begin: theft is near "thefts".

    Of a word these are five letters, or two syllables of Hangul, without an article or a plural's
    s. Where there are no spaces between words, they are any two characters in a row of Chinese and
    katakana, and any three of the others; hiragana is grammar.
    """
    words = (w for w in _WORD.findall(text.lower()) if w.strip("'") not in COMMON)
    han = {run[i : i + 2] for run in _HAN.findall(text) for i in range(len(run) - 1)}
    letters = {run[i : i + 3] for run in _LETTERS.findall(text) for i in range(len(run) - 2)}
    return {_beginning(word) for word in words} | (han - _ASKED) | letters


def _beginning(word: str) -> str:
    if "\uac00" <= word[0] <= "\ud7a3":
        return word[:2]
    bare = _ARTICLE.sub("", word)
    return (bare[:-1] if len(bare) > 3 and bare.endswith("s") else bare)[:5]
