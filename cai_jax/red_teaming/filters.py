"""Which written prompts are kept: well-formed, new, near none that is held out, within quotas."""

from collections import Counter
from collections.abc import Iterable, Sequence

from cai_jax.data.overlap import Known
from cai_jax.data.readers import Attack
from cai_jax.prompts.few_shots import topic_words
from cai_jax.prompts.messages import first_user_text
from cai_jax.red_teaming.forms import main_script, problem_of

TOPIC = 2  # words: one alone is not what a prompt is about


class HeldOut:
    """What no prompt for training may say.

    A prompt is near a held-out one if their wording is near, or if it has all words that the
    held-out one is about: a frame around a question hides it from the first measure.
    """

    def __init__(self, texts: Iterable[str], similarity: float):
        said = list(dict.fromkeys(texts))
        self._known = Known(similarity)
        self._known.add(said)
        topics = {frozenset(topic_words(text)) for text in said}
        self._topics = [topic for topic in topics if len(topic) >= TOPIC]

    def near(self, text: str) -> bool:
        """Whether a text is near one of them."""
        words = topic_words(text)
        return self._known.near(text) or any(topic <= words for topic in self._topics)


def open_filter(
    seeds: Sequence[Attack],
    held_out: HeldOut,
    known: Sequence[str],
    similarity: float,
    tag_percent: float,
    attacks: int,
) -> "Filter":
    """A filter of prompts in the script of the seeds, of ``attacks`` so many percent of one tag."""
    script = main_script(first_user_text(seed.messages) for seed in seeds)
    quota = max(round(tag_percent / 100 * attacks), 1)
    return Filter(held_out, known, similarity, script, quota)


class Filter:
    """Keeps prompts one after another, and counts what becomes of each.

    Args:
      held_out: near which none is kept.
      known: texts near which none is kept, such as seeds.
      similarity: Jaccard similarity of runs of five characters from which on texts are near.
      script: of the prompts.
      quota: the most prompts that may be of one tag; prompts without tags have none.
    """

    def __init__(
        self,
        held_out: HeldOut,
        known: Sequence[str],
        similarity: float,
        script: str,
        quota: int,
    ):
        self.held_out, self.script, self.quota = held_out, script, quota
        self.counts: Counter[str] = Counter()
        self._known = Known(similarity)
        self._known.add(known)
        self._of_tag: Counter[str] = Counter()

    def keep(self, written: Sequence[Attack], most: int) -> list[Attack]:
        """Those that are kept, in order, ``most`` at most."""
        kept = list[Attack]()
        for attack in written:
            problem = self._problem(attack) if len(kept) < most else "not needed"
            self.counts.update(["generated", problem or "kept"])
            if not problem:
                self._known.add([first_user_text(attack.messages)])
                self._of_tag.update(attack.tags)
                kept.append(attack)
        return kept

    def take_counts(self) -> dict[str, int]:
        """What became of the prompts since the last time."""
        counts, self.counts = dict(self.counts), Counter()
        return counts

    def full(self, tags: Sequence[str]) -> bool:
        """Whether one of the tags has its quota."""
        return any(self._of_tag[tag] >= self.quota for tag in tags)

    def _problem(self, attack: Attack) -> str:
        """Why an attack is dropped; empty: it is kept."""
        text = first_user_text(attack.messages)
        if form := problem_of(text, self.script):
            return f"malformed: {form}"
        if self.held_out.near(text):
            return "near held-out"
        if self._known.near(text):
            return "duplicate"
        return "over quota" if self.full(attack.tags) else ""
