"""How often a drawn principle concerns the harm of its prompt, by tags.

    python benchmarks/principle_relevance.py       # seconds

For every red-team prompt, the draw of each round of critique and revision as ``sl_data`` makes
it, under several seeds, without regard to tags and by tag (``sl_data.draw_by_tag``). A general
principle is relevant to every prompt; a specific one where it has a tag of the prompt. Those on
tone alone count as irrelevant, though they fit some replies.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cai_jax.constitution.draw import draw_principles
from cai_jax.constitution.schema import CritiquePrinciple, load_constitution
from cai_jax.data.readers import Prompt, read_prompts

HOME = Path(__file__).parents[1]
GENERAL = "general"
SEEDS = 20


def main() -> None:
    """Prints a line for every way to draw."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--constitution", type=Path, default=HOME / "constitutions/harmless.yaml")
    flags.add_argument("--prompts", type=Path, default=HOME / "datasets/red_team_prompts.jsonl")
    flags.add_argument("--rounds", type=int, default=2, help="as config.sl_data.rounds")
    flags.add_argument("--draw_by_tag", type=float, nargs="*", default=[1, 4, 16])
    given = flags.parse_args()
    principles = load_constitution(given.constitution).critique_revision
    prompts = read_prompts(given.prompts)
    for factor in given.draw_by_tag:
        print(told(principles, prompts, given.rounds, factor))


def told(
    principles: Sequence[CritiquePrinciple], prompts: Sequence[Prompt], rounds: int, factor: float
) -> str:
    """Shares of draws, and of prompts that get a relevant principle in some round."""
    kinds = [
        [drawn(principles, prompt, number, seed, factor) for number in range(1, rounds + 1)]
        for prompt in prompts
        for seed in range(SEEDS)
    ]
    draws = Counter(kind for dialogue in kinds for kind in dialogue)
    relevant = 1 - draws["neither"] / draws.total()
    some = sum(set(dialogue) != {"neither"} for dialogue in kinds) / len(kinds)
    return (
        f"draw_by_tag {factor:g}: {relevant:.1%} of draws are relevant "
        f"({draws['general'] / draws.total():.1%} general, {draws['by tag'] / draws.total():.1%} "
        f"by tag); in {rounds} rounds {some:.1%} of dialogues get one; {len(prompts)} prompts"
    )


def drawn(
    principles: Sequence[CritiquePrinciple], prompt: Prompt, number: int, seed: int, factor: float
) -> str:
    """What the principle of a round is to its prompt."""
    draw = (seed, "sl_data", "principle", prompt.id, number)
    (principle,) = draw_principles(principles, 1, *draw, tags=prompt.tags, tag_factor=factor)
    if GENERAL in principle.tags:
        return "general"
    return "by tag" if set(principle.tags) & set(prompt.tags) else "neither"


if __name__ == "__main__":
    main()
