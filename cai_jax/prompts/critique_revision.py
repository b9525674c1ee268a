"""The critique-revision dialogue (Bai et al. 2022, section 3.1) as chat turns."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain

from cai_jax.constitution.schema import CritiqueExample, CritiquePrinciple
from cai_jax.prompts.messages import Dialogue, assistant, split_system, user
from cai_jax.prompts.sentences import whole_sentences

CRITIQUE_MARK = "Critique:"
REVISION_MARK = "Revision:"
NEAR_COPY = 0.8  # Jaccard similarity
# A reply that opens another turn of the format has run past its own.
_RUN_ON = re.compile(r"\b(critique|revision)( request)?:|^(human|user|assistant):", re.I | re.M)


def critique_messages(
    examples: Sequence[CritiqueExample],
    prompt: Dialogue,
    response: str,
    principle: CritiquePrinciple,
) -> Dialogue:
    """Few-shots, the dialogue, the critique request; the reply continues after CRITIQUE_MARK."""
    shots = few_shot_messages(examples, prompt)
    return (*_answered(shots, prompt, response), user(principle.critique_request))


def revision_messages(
    examples: Sequence[CritiqueExample],
    prompt: Dialogue,
    response: str,
    principle: CritiquePrinciple,
    critique: str | None,
) -> Dialogue:
    """As above, up to the revision request; without a critique it asks for the revision at once."""
    if critique is None:
        shots = few_shot_messages(examples, prompt, criticised=False)
        return (*_answered(shots, prompt, response), user(principle.revision_request))
    return (
        *critique_messages(examples, prompt, response, principle),
        assistant(f"{CRITIQUE_MARK} {critique}"),
        user(principle.revision_request),
    )


def parse_reply(text: str, finished: bool) -> str | None:
    """The usable text of a sampled critique, revision or response, or None.

    A reply that ran into its token limit is cut after its last whole sentence, item of a list or
    block of code: a preference model reads its score where the reply ends, and a word cut there
    outweighs all that was said. Replies without any, or that open another turn of the format, do
    not count.
    """
    text = (text if finished else whole_sentences(text)).strip()
    return text if re.search(r"\w", text) and not _RUN_ON.search(text) else None


def is_near_copy(text: str, others: Iterable[str], unless: str | None = None) -> bool:
    """Whether a text is one of the others, but for a word or two in some thirty.

    What it may repeat word for word is ``unless``: a revision that repeats the reply is how nothing
    harmful is answered.

    The Jaccard similarity of their runs of characters, without case and spaces, is 0.8 or more.
    What keeps three sentences of four is no near-copy: a careful revision does that.
    """
    own = _runs(text)
    near = (len(own & runs) >= NEAR_COPY * len(own | runs) for runs in map(_runs, others))
    return text != unless and any(near)


@lru_cache(4096)
def _runs(text: str) -> frozenset[str]:
    """All runs of five characters; a shorter text is one run."""
    bare = "".join(text.casefold().split())
    return frozenset(bare[i : i + 5] for i in range(max(len(bare) - 4, 1)))


def example_texts(examples: Sequence[CritiqueExample]) -> list[str]:
    """What the assistant says in few-shots."""
    return [text for e in examples for text in (e.response, e.critique, e.revision)]


def few_shot_messages(
    examples: Sequence[CritiqueExample], prompt: Dialogue, criticised: bool = True
) -> Dialogue:
    """What such a dialogue begins with: the prompt's system message, and few-shots."""
    opening, _ = split_system(prompt)
    return (
        *opening,
        *chain.from_iterable(map(_example if criticised else _direct_example, examples)),
    )


def _answered(shots: Dialogue, prompt: Dialogue, response: str) -> Dialogue:
    """Few-shots and the answered prompt, whose system message stays at the start."""
    _, turns = split_system(prompt)
    return (*shots, *turns, assistant(response))


def _example(e: CritiqueExample) -> Dialogue:
    return (
        user(e.prompt),
        assistant(e.response),
        user(e.critique_request),
        assistant(f"{CRITIQUE_MARK} {e.critique}"),
        user(e.revision_request),
        assistant(f"{REVISION_MARK} {e.revision}"),
    )


def _direct_example(e: CritiqueExample) -> Dialogue:
    return (
        user(e.prompt),
        assistant(e.response),
        user(e.revision_request),
        assistant(f"{REVISION_MARK} {e.revision}"),
    )
