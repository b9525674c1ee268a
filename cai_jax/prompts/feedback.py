"""What a feedback model is asked (Bai et al. 2022, section 4.1)."""

from collections.abc import Sequence

from cai_jax.constitution.schema import ChoiceExample
from cai_jax.prompts.messages import Dialogue, Message, assistant, user

ANSWER = "The better response is ("  # the next token is the letter of the answer
THINK = "Let's think step by step."
LETTERS = ("A", "B")


BEST_OPTION = "The best option is ("  # likewise


def option_letters(count: int) -> list[str]:
    """(A), (B) and so on, as single tokens."""
    return list("ABCDEFGH"[:count])


def class_message(prompt: Dialogue, reply: str, options: Sequence[str]) -> Message:
    """The dialogue with its reply, and descriptions of what the reply may do as options."""
    listed = "\n".join(
        f"({letter}) {option}"
        for letter, option in zip(option_letters(len(options)), options, strict=True)
    )
    return user(
        f"Read this conversation.\n\n{_transcript(prompt, reply)}\n\n"
        f"What does the assistant's last reply do?\n\nOptions:\n{listed}"
    )


def _transcript(prompt: Dialogue, reply: str) -> str:
    turns = [f"{message.role.capitalize()}: {message.text}" for message in prompt]
    return "\n".join([*turns, f"Assistant: {reply}"])


def question_message(prompt: Dialogue, question: str, first: str, second: str) -> Message:
    """The dialogue, the question of a principle, and both responses as options."""
    return user(
        f"Read this conversation.\n\n{_transcript(prompt, '...')}\n\n{question}\n\n"
        f"Options:\n(A) {first}\n(B) {second}"
    )


def choice_messages(
    examples: Sequence[ChoiceExample], prompt: Dialogue, question: str, first: str, second: str
) -> Dialogue:
    """Few-shots and the question; reasoned few-shots answer with their reasoning."""
    turns = []
    for e in examples:
        thought = f"{THINK} {e.reasoning} " if e.reasoning else ""
        turns.append(question_message((user(e.prompt),), e.question, e.option_a, e.option_b))
        turns.append(assistant(f"{thought}{ANSWER}{e.answer})"))
    return (*turns, question_message(prompt, question, first, second))


def thought_prefill(reasoning: str) -> str:
    """The assistant's turn up to the letter, after it has reasoned."""
    return f"{THINK} {reasoning.strip()} {ANSWER}"
