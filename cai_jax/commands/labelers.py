"""Labelers as the workshop opens them: a feedback model, and how it is asked."""

from absl import flags

from cai_jax.commands import models
from cai_jax.commands.model_flag import named_source
from cai_jax.config import FeedbackConfig
from cai_jax.constitution.schema import Constitution
from cai_jax.data.readers import read_pairs
from cai_jax.feedback.labeler import Labeler, LabelerTools, ResponsePair
from cai_jax.feedback.registry import LABELERS
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.prompts.chat import open_chat
from cai_jax.prompts.few_shots import FewShots
from cai_jax.storage.files import resolved

_AS_RUNS = FeedbackConfig()  # what is no flag here is as runs have it
METHOD = flags.DEFINE_enum(
    "method", _AS_RUNS.method, list(LABELERS), "how the feedback model is asked"
)
_FEW_SHOTS = flags.DEFINE_integer(
    "few_shots", 0, "of the constitution, before each question", lower_bound=0
)
PAIRS = flags.DEFINE_string("pairs", "", "labelled pairs that are judged: a .jsonl file")
SEED = flags.DEFINE_integer("seed", 0, "of whatever is drawn", lower_bound=0)
_BUCKET_TOKENS = 64


def read_labelled() -> list[ResponsePair]:
    """The pairs of --pairs, the better response first, to be judged under any principles.

    Raises:
      ValueError: it names none, or --model names no model.
    """
    if not PAIRS.value:
        raise ValueError("--pairs: which pairs is the model to judge? name a file of labelled ones")
    named_source()
    found = read_pairs(resolved(PAIRS.value))
    return [ResponsePair(pair.id, pair.messages, pair.chosen, pair.rejected, ()) for pair in found]


def open_labeler(constitution: Constitution) -> Labeler:
    """The labeler that --method names, with the model that --model names.

    Raises:
      ValueError: the model is none that can be asked, or there are fewer few-shots than wanted.
    """
    kind = LABELERS[METHOD.value]
    examples = kind.few_shots(constitution)
    if examples is not None and _FEW_SHOTS.value > len(examples):
        raise ValueError(
            f"--few_shots: {_FEW_SHOTS.value}, but {constitution.name} has {len(examples)} such "
            "few-shots; ask for fewer"
        )
    source = named_source()
    chat = open_chat(source)
    mesh, batch, longest = models.open_mesh(), models.BATCH_SIZE.value, source.config.max_length
    model = models.open_policy(source, mesh)
    return kind.make(
        LabelerTools(
            scorer=Scorer(model, mesh, batch, max_tokens=longest),
            generator=Generator(model, mesh, chat.stop_ids, batch, _BUCKET_TOKENS, longest),
            open_chat=lambda: chat,
            few_shots=FewShots(examples or (), _FEW_SHOTS.value, SEED.value),
            sampling=Sampling(),
            seed=SEED.value,
            reasoning_tokens=_AS_RUNS.reasoning_tokens,
            chains=_AS_RUNS.chains,
            clamp_low=_AS_RUNS.clamp_low,
            clamp_high=_AS_RUNS.clamp_high,
            contrast_scale=_AS_RUNS.contrast_scale,
        )
    )
