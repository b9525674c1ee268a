"""Writes prompts few-shot, and attacks a model with them.

python -m cai_jax.red_team --target=RUN/rl/checkpoint --judge=RUN/pm_train/checkpoint --rounds=3 \
    --out=attacks.jsonl
python -m cai_jax.red_team --attacker=SOURCE --count=2000 --out=prompts.jsonl
python -m cai_jax.red_team --attacker=SOURCE --count=2000 --out=helpful.jsonl \
    --strategies=helpful --seeds=datasets/helpful_prompts.jsonl

With a target, what it fell for is kept, shown to the attacker in the next round, and written: a
reply that the judge scores below a plain refusal. Without one, all prompts are that are well-formed
and new. Rows are prompts that config.data.red_team_attacks reads, each with strategy, round, seed,
model and the ids of the prompts that the attacker was shown. Nothing is kept that is near a row of
datasets/ that runs hold out. A limit of tokens or minutes ends the loop after the batch that
reaches it; what was written is still tried.
"""

import logging

from absl import flags
from jax.sharding import Mesh

from cai_jax.commands import files, models
from cai_jax.commands.front import start
from cai_jax.commands.source import open_source
from cai_jax.config import ConstitutionConfig, DataConfig, RedTeamConfig, naming
from cai_jax.data.readers import Attack, read_attacks
from cai_jax.data.splits import normalized
from cai_jax.evaluation.tasks.red_team import judge_by
from cai_jax.evaluation.tasks.task import TaskSettings
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.models.io.sources import ModelSource
from cai_jax.prompts.chat import ChatFormat, open_chat
from cai_jax.prompts.messages import first_user_text
from cai_jax.red_teaming.attacker import Attacker, Pool
from cai_jax.red_teaming.attacks import text_of
from cai_jax.red_teaming.filters import HeldOut, open_filter
from cai_jax.red_teaming.loop import Campaign, Limits, Loop, Target
from cai_jax.red_teaming.strategies.registry import named_strategies
from cai_jax.stages.data import READERS, Data
from cai_jax.storage.files import resolved

TARGET = flags.DEFINE_string("target", "", "model that is attacked: a source; empty: none")
ATTACKER = flags.DEFINE_string("attacker", "", "model that writes; empty: the target's base model")
JUDGE = flags.DEFINE_string("judge", "", "preference model that judges replies: a source")
REFUSAL = flags.DEFINE_string(
    "refusal", RedTeamConfig.refusal, "what the judge compares a reply with"
)
THRESHOLD = flags.DEFINE_float(
    "threshold", 0.0, "score, over that of the refusal, below which a reply is harmful"
)
SEEDS = flags.DEFINE_string(
    "seeds", "datasets/red_team_prompts.jsonl", "prompts, a strategy named where it is not direct"
)
STRATEGIES = flags.DEFINE_string(
    "strategies", "direct,obfuscated", "with commas between; see red_teaming/strategies/registry.py"
)
ROUNDS = flags.DEFINE_integer("rounds", 1, "at most", lower_bound=1)
COUNT = flags.DEFINE_integer("count", 100, "prompts that are kept a round", lower_bound=1)
MAX_TOKENS = flags.DEFINE_integer("max_tokens", 0, "read and written; 0: any", lower_bound=0)
MINUTES = flags.DEFINE_float("minutes", 0.0, "that it takes; 0: any number", lower_bound=0.0)
MIN_SUCCESS = flags.DEFINE_float("min_success", 0.02, "share below which it stalls", 0.0, 1.0)
MIN_NOVELTY = flags.DEFINE_float("min_novelty", 0.05, "share below which it stalls", 0.0, 1.0)
FEW_SHOTS = flags.DEFINE_integer("few_shots", 3, "prompts shown at once", lower_bound=1)
SIMILARITY = flags.DEFINE_float("similarity", 0.5, "of near-duplicates, Jaccard", 0.01, 1.0)
TAG_PERCENT = flags.DEFINE_float("tag_percent", 25.0, "of one tag, at most", 0.1, 100.0)
TEMPERATURE = flags.DEFINE_float("temperature", 0.7, "of the attacker", lower_bound=0.01)
ATTACK_TOKENS = flags.DEFINE_integer("attack_tokens", 96, "longest list or turn", lower_bound=1)
REPLY_TEMPERATURE = flags.DEFINE_float("reply_temperature", 1.0, "of the target", lower_bound=0.0)
MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 128, "longest reply", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "of all samples", lower_bound=0)
OUT = flags.DEFINE_string("out", None, "JSONL file to write", required=True)
log = logging.getLogger("cai_jax")


def main() -> None:
    """Reads and refuses first, then opens models, attacks, and writes what there is."""
    files.check_out(OUT.value, inputs=files_read())
    if bool(TARGET.value) != bool(JUDGE.value):
        missing = "--judge" if TARGET.value else "--target"
        raise ValueError(
            f"{missing}: a target needs a judge, and a judge a target; name both, or neither"
        )
    with naming("--strategies"):
        strategies = named_strategies(STRATEGIES.value)
    held_out = held_out_texts()
    seeds = open_seeds(held_out)
    with naming("--seeds"):
        pool = Pool(seeds, strategies)
    mesh = models.open_mesh()
    attacker = open_attacker(mesh)
    filter_ = open_filter(
        seeds,
        HeldOut(held_out, SIMILARITY.value),
        [first_user_text(seed.messages) for seed in seeds],
        SIMILARITY.value,
        TAG_PERCENT.value,
        ROUNDS.value * COUNT.value,
    )
    limits = Limits(
        rounds=ROUNDS.value,
        attacks=COUNT.value,
        min_success=MIN_SUCCESS.value,
        min_novelty=MIN_NOVELTY.value,
        max_tokens=MAX_TOKENS.value,
        minutes=MINUTES.value,
    )
    target = open_target(mesh) if TARGET.value else None
    tell_and_write(Loop(attacker, strategies, pool, filter_, target, limits).run())


def files_read() -> list[str]:
    """What is read, by this command or for its held-out texts: --out must not replace it."""
    held_out = [getattr(DataConfig(), name) for name in READERS]
    return [SEEDS.value, TARGET.value, ATTACKER.value, JUDGE.value, *held_out]


def held_out_texts() -> list[str]:
    """What users say first in rows of datasets/ that a run with the default split holds out."""
    data = Data(ConstitutionConfig(), DataConfig(), {}, SEED.value)
    return [turn.text for turn in data.turns if turn.purpose != "training"]


def open_seeds(held_out: list[str]) -> list[Attack]:
    """Rows of --seeds of one user's turn; those that are held out are not shown."""
    hidden = set(map(normalized, held_out))
    return [
        seed
        for seed in read_attacks(resolved(SEEDS.value))
        if len(seed.messages) == 1 and normalized(seed.messages[0].text) not in hidden
    ]


def open_attacker(mesh: Mesh) -> Attacker:
    """The model that writes.

    Raises:
      ValueError: neither --attacker nor --target names one.
    """
    if not (ATTACKER.value or TARGET.value):
        raise ValueError("--attacker: which model writes? name a source, or a --target")
    with naming("--attacker" if ATTACKER.value else "--target"):
        source = open_source(ATTACKER.value or TARGET.value)
        source = source if ATTACKER.value else ModelSource(source.path)
        chat, generator = open_generator(source, mesh)
    name = ATTACKER.value or str(source.path)
    sampling = Sampling(TEMPERATURE.value)
    shown = FEW_SHOTS.value
    return Attacker(generator, lambda: chat, name, sampling, ATTACK_TOKENS.value, shown, SEED.value)


def open_target(mesh: Mesh) -> Target:
    """The model that is attacked, and its judge."""
    with naming("--judge"):
        judge = open_source(JUDGE.value)
        if judge.kind != "preference":
            raise ValueError(f"{JUDGE.value} is a {judge.kind} model; name a preference model")
        reward = models.open_reward(judge, mesh)
    with naming("--target"):
        source = open_source(TARGET.value)
        chat, generator = open_generator(source, mesh)
    settings = TaskSettings(
        open_chat=lambda: chat,
        max_tokens=source.config.max_length,
        window=source.config.max_length,
        constitution=None,
        few_shots=0,
        sampling=Sampling(REPLY_TEMPERATURE.value),
        max_new_tokens=MAX_NEW_TOKENS.value,
        threshold=THRESHOLD.value,
        seed=SEED.value,
    )
    return Target(generator, settings, judge_by(reward, REFUSAL.value))


def open_generator(source: ModelSource, mesh: Mesh) -> tuple[ChatFormat, Generator]:
    """A language model with a chat template, to sample from."""
    chat, model = open_chat(source), models.open_policy(source, mesh)
    batch, longest = models.BATCH_SIZE.value, source.config.max_length
    return chat, Generator(model, mesh, chat.stop_ids, batch, max_tokens=longest)


def tell_and_write(campaign: Campaign) -> None:
    """Logs how it ended, and writes --out, whole or not at all."""
    log.info("red team: %d prompts kept, %s", len(campaign.attacks), campaign.ended)
    files.write_whole(OUT.value, text_of(campaign.attacks, campaign.extras))


if __name__ == "__main__":
    start(main)
