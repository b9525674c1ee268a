"""Talks to a model, or to two: in the terminal, or on a page where people vote.

python -m cai_jax.chat --model=SOURCE [--against=SOURCE]
python -m cai_jax.chat --model=SOURCE [--against=SOURCE] --serve [--port=8765] \
    [--votes=FILE.jsonl] [--constitution=FILE.yaml]

In the terminal answers appear as they are sampled. Ctrl-C stops an answer, /new begins a new
dialogue, Ctrl-D ends. With --against both models answer.

--serve opens a page that this machine alone can reach. It shows two answers side by side in an
order drawn anew for each: of both models, or two samples of one. Whoever reads them says which is
better, and then sees which model wrote which; the better one goes on in the dialogue. With --votes
each vote is a labelled pair, added to a file that runs train on and evaluate reads
(datasets/README.md). With --constitution an answer can be criticised and revised by --model, under
one of its principles.

Prompts are padded to 256 tokens, or twice that, and so on. The first time that a dialogue grows
past one of these, two programs compile, and the answer waits for them. The cache keeps them.
"""

import logging
from pathlib import Path

from absl import flags

from cai_jax.chat.arena import Arena, Critic
from cai_jax.chat.server import serve
from cai_jax.chat.speaker import Speaker
from cai_jax.chat.terminal import talk
from cai_jax.commands import models
from cai_jax.commands.files import check_out
from cai_jax.commands.front import start
from cai_jax.commands.model_flag import MODEL, named_source
from cai_jax.commands.source import open_source
from cai_jax.config import SLDataConfig
from cai_jax.constitution.schema import Constitution, CritiqueExample, load_constitution
from cai_jax.data.readers import read_pairs
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.models.io.sources import ModelSource
from cai_jax.prompts.chat import open_chat
from cai_jax.prompts.few_shots import FewShots
from cai_jax.prompts.messages import system
from cai_jax.redaction import without_secrets
from cai_jax.storage.files import resolved

AGAINST = flags.DEFINE_string("against", "", "model that answers beside --model: a source")
SYSTEM = flags.DEFINE_string("system_prompt", "", "of every dialogue; empty: the template's own")
TEMPERATURE = flags.DEFINE_float("temperature", 0.7, "0: the likeliest token", lower_bound=0.0)
TOP_K = flags.DEFINE_integer("top_k", 0, "keep the k likeliest tokens; 0: all", lower_bound=0)
TOP_P = flags.DEFINE_float(
    "top_p", 0.95, "keep the fewest tokens of this probability", lower_bound=1e-6, upper_bound=1.0
)
MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 256, "of an answer", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "of the samples", lower_bound=0)
SERVE = flags.DEFINE_bool("serve", False, "open a page in place of the terminal")
PORT = flags.DEFINE_integer("port", 8765, "of the page; 0: any", lower_bound=0, upper_bound=65535)
VOTES = flags.DEFINE_string("votes", "", "with --serve: JSONL file that votes are added to")
CONSTITUTION = flags.DEFINE_string(
    "constitution", "", "with --serve: file under which answers are criticised and revised"
)
FEW_SHOTS = flags.DEFINE_integer(
    "few_shots", SLDataConfig().few_shots, "of the constitution before a critique", lower_bound=0
)
BUCKET_TOKENS = 256  # few widths of prompts to compile, and the first is read in a moment
log = logging.getLogger("cai_jax")


def main() -> None:
    """Refuses first what cannot be done, then opens the models and talks."""
    votes, constitution = open_votes(), open_constitution()
    sources = {str(MODEL.value): named_source()}
    if AGAINST.value:
        sources[AGAINST.value] = open_source(AGAINST.value)
    speakers = [open_speaker(name, source) for name, source in sources.items()]
    for speaker in speakers:
        speaker.warm_up()
    opening = (system(SYSTEM.value),) if SYSTEM.value else ()
    log.info("chat: ready")
    if not SERVE.value:
        talk(speakers, opening)
        return
    critic = Critic(speakers[0], *constitution) if constitution else None
    serve(Arena((speakers[0], speakers[-1]), opening, votes, critic), PORT.value)


def open_votes() -> Path | None:
    """The file that --votes names, which holds pairs already or nothing.

    Raises:
      ValueError: votes cannot be added to it.
    """
    if not VOTES.value:
        return None
    check_served("votes")
    file = resolved(VOTES.value)
    if file.suffix != ".jsonl":
        raise ValueError(f"--votes: {file} is no .jsonl file; name one")
    check_out(file, flag="--votes")
    if file.exists() and file.stat().st_size:
        read_pairs(file)
    return file


def open_constitution() -> tuple[Constitution, FewShots[CritiqueExample]] | None:
    """What --constitution names, and the few-shots of its critiques.

    Raises:
      ValueError: it is none, or has fewer few-shots.
    """
    if not CONSTITUTION.value:
        return None
    check_served("constitution")
    found = load_constitution(resolved(CONSTITUTION.value))
    there = len(found.critique_examples)
    if FEW_SHOTS.value > there:
        raise ValueError(
            f"--few_shots: {FEW_SHOTS.value}, but {found.name} has {there} of critiques; lower it"
        )
    return found, FewShots(found.critique_examples, FEW_SHOTS.value, SEED.value)


def check_served(name: str) -> None:
    """Refuses a flag of the page where there is none.

    Raises:
      ValueError: there is none.
    """
    if not SERVE.value:
        raise ValueError(f"--{name} is for the page; give --serve, or take it out")


def open_speaker(name: str, source: ModelSource) -> Speaker:
    """A language model with a chat template, which answers one dialogue at a time."""
    chat, mesh = open_chat(source), models.open_mesh()
    longest = source.config.max_length
    generator = Generator(
        models.open_policy(source, mesh), mesh, chat.stop_ids, 1, BUCKET_TOKENS, longest
    )
    sampling = Sampling(TEMPERATURE.value, TOP_K.value, TOP_P.value)
    shown = without_secrets(name)
    return Speaker(shown, chat, generator, sampling, MAX_NEW_TOKENS.value, SEED.value)


if __name__ == "__main__":
    start(main)
