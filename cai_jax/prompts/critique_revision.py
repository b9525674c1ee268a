"""The critique-revision dialogue (Bai et al. 2022, section 3.1) as chat turns."""

import re
from collections.abc import Sequence

from cai_jax.constitution.schema import CritiqueExample, CritiquePrinciple
from cai_jax.prompts.chat import Message, assistant, conversation, user, whole_sentences

CRITIQUE_MARK = "Critique:"
REVISION_MARK = "Revision:"
# A reply that opens another turn of the format has run past its own.
_RUN_ON = re.compile(r"\b(critique|revision)( request)?:|^(human|user|assistant):", re.I | re.M)


def critique_messages(
    examples: Sequence[CritiqueExample], prompt: str, response: str, principle: CritiquePrinciple
) -> list[Message]:
    """Few-shots, the dialogue, and the critique request; the reply goes on after CRITIQUE_MARK."""
    shots = [turn for example in examples for turn in _example(example)]
    return [*shots, *conversation(prompt), assistant(response), user(principle.critique_request)]


def revision_messages(
    examples: Sequence[CritiqueExample],
    prompt: str,
    response: str,
    principle: CritiquePrinciple,
    critique: str | None,
) -> list[Message]:
    """As above, up to the revision request; without a critique it asks for the revision at once."""
    if critique is None:
        shots = [turn for e in examples for turn in _direct_example(e)]
        answered = [*conversation(prompt), assistant(response)]
        return [*shots, *answered, user(principle.revision_request)]
    return [
        *critique_messages(examples, prompt, response, principle),
        assistant(f"{CRITIQUE_MARK} {critique}"),
        user(principle.revision_request),
    ]


def parse_reply(text: str, finished: bool, forbidden: Sequence[str]) -> str | None:
    """The usable text of a sampled critique, revision or response, or None.

    A reply that ran into its token limit is cut after its last whole sentence: a preference model
    reads its score where the reply ends, and a word cut there outweighs all that was said. Replies
    without a sentence, that open another turn of the format, or that repeat one of the
    ``forbidden`` texts (the few-shots, the request) do not count.
    """
    text = text.strip()
    if not finished:
        text = whole_sentences(text)
    if not re.search(r"\w", text) or _RUN_ON.search(text):
        return None
    if any(text == other.strip() for other in forbidden):
        return None
    return text


def example_texts(examples: Sequence[CritiqueExample]) -> list[str]:
    """Texts of the few-shots that a reply must not repeat."""
    return [text for e in examples for text in (e.response, e.critique, e.revision)]


def _example(e: CritiqueExample) -> list[Message]:
    return [
        user(e.prompt),
        assistant(e.response),
        user(e.critique_request),
        assistant(f"{CRITIQUE_MARK} {e.critique}"),
        user(e.revision_request),
        assistant(f"{REVISION_MARK} {e.revision}"),
    ]


def _direct_example(e: CritiqueExample) -> list[Message]:
    return [
        user(e.prompt),
        assistant(e.response),
        user(e.revision_request),
        assistant(f"{REVISION_MARK} {e.revision}"),
    ]
