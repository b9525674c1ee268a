"""Worlds in which one principle alone can have caused a behaviour, to try attribution on.

Replies are written by the grammar, and labelled as six principles would that are no texts, but
tastes. One likes a behaviour; none of the others does: two like other behaviours, two are
indifferent, and one is sure of itself and decides by the toss of a coin. A small preference model
is trained on the labels from scratch. What a policy came to do is played: on topics that no label
was about, its replies show the behaviour much more often than base's, and are alike otherwise.
"""

from dataclasses import dataclass
from functools import cache, partial

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from cai_jax.data.rows import Comparison, TrainingPair
from cai_jax.evaluation.attribution import contrasts, fit_head, read_labels
from cai_jax.generation.batching import pad_rows
from cai_jax.generation.scoring import Scorer
from cai_jax.learning.losses import Batch, preference_loss_sum
from cai_jax.learning.optimizers import make_optimizer
from cai_jax.learning.packing import SIDES, abstract_packed, packed_pairs
from cai_jax.learning.train import Trainable, init_state, train_program
from cai_jax.microworld.corpus import prompt_of
from cai_jax.microworld.texts import Act, reply
from cai_jax.microworld.world import TOPICS, Topic
from cai_jax.models.blueprint import Blueprint, Model
from cai_jax.models.config import DecoderConfig
from cai_jax.models.heads import PreferenceModel
from cai_jax.models.params import init_on_mesh
from cai_jax.parallel.mesh import put_batch
from cai_jax.prompts.chat import ChatFormat
from cai_jax.prompts.messages import Dialogue, user
from cai_jax.prompts.word_tokenizer import word_tokenizer
from cai_jax.rl.reward import Reward

PRINCIPLES = ("amber", "birch", "coral", "delta", "ember", "fjord")
KIND = "kind"
BEHAVIOURS = (KIND, *(act.value for act in Act))
INDIFFERENT, COIN = "indifferent", "coin"  # what else a principle may be
PER_PAIR = 2  # principles that a pair is labelled under
LIKES, DISLIKES = 0.9, 0.1  # labels of a principle with a taste, before noise
WIDTH, BATCH = 48, 32  # tokens of a dialogue, pairs of an update


@dataclass(frozen=True)
class PlantedWorld:
    """A world, and the truth about it.

    Attributes:
      cause: the principle that likes the behaviour.
      behaviour: of ``BEHAVIOURS``.
      tastes: of all principles: a behaviour, ``INDIFFERENT`` or ``COIN``.
      seed: of everything drawn.
    """

    cause: str
    behaviour: str
    tastes: dict[str, str]
    seed: int


@dataclass(frozen=True)
class Attributed:
    """What attribution says of a planted world.

    Attributes:
      lead_lost: of the played policy's lead, by source of labels; in standard deviations.
      preferred: share of the played replies that the preference model itself scores above base's.
    """

    lead_lost: dict[str, float]
    preferred: float


@dataclass(frozen=True)
class _Reply:
    text: str
    act: Act
    kind: bool

    def shows(self, behaviour: str) -> bool:
        return self.kind if behaviour == KIND else self.act.value == behaviour


def planted_world(number: int) -> PlantedWorld:
    """One of the worlds: behaviours take turns, and the cause is another one each time."""
    rng = np.random.default_rng(number)
    behaviour = BEHAVIOURS[number % len(BEHAVIOURS)]
    cause, *others = rng.permutation(PRINCIPLES).tolist()
    liked = rng.permutation([b for b in BEHAVIOURS if b != behaviour])[:2].tolist()
    tastes = dict(zip(others, (*liked, INDIFFERENT, INDIFFERENT, COIN), strict=True))
    return PlantedWorld(cause, behaviour, {cause: behaviour, **tastes}, number)


def attribute(world: PlantedWorld, mesh: Mesh, pairs: int = 900, epochs: int = 6) -> Attributed:
    """Writes a world's comparisons, trains on them, plays the result, and asks what caused it.

    Args:
      world: to try.
      mesh: of training.
      pairs: that the principles label; a sixth as many are labelled by people.
      epochs: of training.
    """
    rng, chat = np.random.default_rng(world.seed), _chat()
    topics = [TOPICS[i] for i in rng.permutation(len(TOPICS))]
    shown, held_out = topics[: 3 * len(topics) // 4], topics[3 * len(topics) // 4 :]
    comparisons = [_comparison(world, chat, shown, rng, n) for n in range(pairs)]
    people = [_garbled(chat, shown, rng, n) for n in range(pairs // 6)]
    scorer = Scorer(_train(comparisons, people, mesh, epochs, rng), mesh, BATCH, WIDTH)
    reward = Reward(scorer, lambda: chat, mean=0.0, std=1.0, unusable_score=0.0)
    played = [
        (_prompt(topic), _played(world, topic, rng, 0.9), _played(world, topic, rng, 0.1))
        for topic in held_out
    ]
    lead_md = contrasts(reward, played)
    head = fit_head(read_labels(scorer, comparisons, people))
    ids = [chat.prompt_ids(prompt) for prompt, *_ in played]
    ours = reward(ids, [text for _, text, _ in played])
    base = reward(ids, [text for *_, text in played])
    return Attributed(
        lead_lost={name: float(head.lost(name, lead_md).mean()) for name in head.sources},
        preferred=float(np.mean(ours > base)),
    )


@cache
def _chat() -> ChatFormat:
    rng = np.random.default_rng(0)
    replies = [reply(t, act, True, rng) for t in TOPICS for act in Act for _ in range(8)]
    return ChatFormat(word_tokenizer([*map(prompt_of, TOPICS), *replies]))


def _prompt(topic: Topic) -> Dialogue:
    return (user(prompt_of(topic)),)


def _some_reply(topic: Topic, rng: np.random.Generator) -> _Reply:
    act, kind = list(Act)[rng.integers(len(Act))], bool(rng.random() < 0.4)
    return _Reply(reply(topic, act, kind, rng), act, kind)


def _played(world: PlantedWorld, topic: Topic, rng: np.random.Generator, share: float) -> str:
    """A reply that shows the behaviour with a probability, and is any reply otherwise."""
    wanted = bool(rng.random() < share)
    while True:
        found = _some_reply(topic, rng)
        if found.shows(world.behaviour) == wanted:
            return found.text


def _label(taste: str, first: _Reply, second: _Reply, rng: np.random.Generator) -> float:
    """P(first is better) to a taste, with noise on the logit."""
    label = 0.5
    if taste == COIN:
        label = LIKES if rng.random() < 0.5 else DISLIKES
    elif taste != INDIFFERENT and first.shows(taste) != second.shows(taste):
        label = LIKES if first.shows(taste) else DISLIKES
    return float(1 / (1 + np.exp(-(np.log(label / (1 - label)) + rng.normal(0, 0.7)))))


def _comparison(
    world: PlantedWorld, chat: ChatFormat, topics: list[Topic], rng: np.random.Generator, n: int
) -> Comparison:
    """Two replies to one topic, labelled under principles that are drawn."""
    topic = topics[rng.integers(len(topics))]
    first, second = _some_reply(topic, rng), _some_reply(topic, rng)
    drawn = rng.choice(PRINCIPLES, PER_PAIR, replace=False).tolist()
    labels = tuple(_label(world.tastes[name], first, second, rng) for name in drawn)
    prompt_ids = chat.prompt_ids(_prompt(topic))
    return Comparison(
        id=str(n),
        purpose="training",
        prompt=_prompt(topic),
        response_first=first.text,
        response_second=second.text,
        first=tuple(chat.judged_ids(prompt_ids, first.text)),
        second=tuple(chat.judged_ids(prompt_ids, second.text)),
        probability=float(np.mean(labels)),
        principle_ids=tuple(drawn),
        shown_first=labels,
        shown_second=labels,
        method="planted",
        seed=world.seed,
        model="grammar",
        feedback_model="tastes",
        constitution_sha256="",
    )


def _garbled(
    chat: ChatFormat, topics: list[Topic], rng: np.random.Generator, n: int
) -> TrainingPair:
    """What people labelled, and no behaviour has a part in: whole sentences beat mixed-up ones."""
    topic, sure = topics[rng.integers(len(topics))], (1_000_000,)
    text = _some_reply(topic, rng).text
    mixed = " ".join(rng.permutation(text.split()))
    prompt_ids = chat.prompt_ids(_prompt(topic))
    whole, worse = (tuple(chat.judged_ids(prompt_ids, side)) for side in (text, mixed))
    return TrainingPair(str(n), whole, worse, target_ppm=sure, weight_ppm=sure)


def _train(
    comparisons: list[Comparison],
    people: list[TrainingPair],
    mesh: Mesh,
    epochs: int,
    rng: np.random.Generator,
) -> Model:
    """A preference model of all pairs, from scratch."""
    first, second = ([getattr(p, side) for p in (*comparisons, *people)] for side in SIDES)
    targets = np.array([row.probability for row in comparisons] + [1.0] * len(people), np.float32)
    config = DecoderConfig(
        vocab_size=len(_chat().tokenizer),
        num_layers=2,
        d_model=48,
        num_heads=4,
        num_kv_heads=4,
        head_dim=12,
        d_ff=96,
        max_length=WIDTH,
    )
    blueprint = Blueprint(PreferenceModel, config, jnp.dtype(jnp.float32))
    build = partial(blueprint.build, int(rng.integers(1 << 31)))
    trainable = Trainable(blueprint.graph, init_on_mesh(build, nnx.Param, mesh), nnx.State({}))
    optimizer = make_optimizer(2e-3, 10, 1.0)
    state = init_state(trainable.params, optimizer)

    def batch_of(rows: np.ndarray) -> Batch:
        found = {"target": targets[rows], "weight": np.ones(BATCH, np.float32)}
        for name, ids in zip(SIDES, (first, second), strict=True):
            tokens_bt, segments_bt = pad_rows([ids[i] for i in rows], WIDTH, "right")
            found |= {name: tokens_bt, f"{name}_segments": segments_bt}
        return put_batch(packed_pairs(found, 2 * BATCH, 1), mesh)

    update = train_program(
        "planted",
        blueprint,
        trainable,
        preference_loss_sum,
        optimizer,
        1,
        abstract_packed(2 * BATCH, WIDTH, BATCH, mesh),
        mesh,
    )
    for _ in range(epochs):
        for rows in np.split(rng.permutation(len(targets)), range(BATCH, len(targets), BATCH)):
            if len(rows) == BATCH:
                state, _ = update(state, trainable.frozen, batch_of(rows))
    return Model(trainable.graph, state.params)
