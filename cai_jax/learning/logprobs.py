"""The one function that turns a decoder's hidden states into token log-probabilities."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cai_jax.models.decoder import Decoder
from cai_jax.parallel.mesh import batch_multiple

CHUNK = 64  # positions whose [b, chunk, v] float32 logits exist at once, at least
# Tokens of one of several devices whose logits exist at once: every chunk sums the gradient of the
# whole table over the devices, which fewer tokens do not pay for.
DEVICE_TOKENS = 2048


class TokenLogprobs(NamedTuple):
    """Float32 [b, t]; 0 where nothing is predicted: padding, and the first token of a segment."""

    logprobs_bt: jax.Array  # log p(token t | earlier tokens of its segment)
    entropy_bt: jax.Array  # nats, of the distribution token t was drawn from


def token_logprobs(
    decoder: Decoder,
    tokens_bt: jax.Array,
    segments_bt: jax.Array,
    remat: bool = False,
) -> TokenLogprobs:
    """Log-probabilities of whole sequences; serves SFT, DPO and IPO."""
    hidden_btd = decoder.hidden(tokens_bt, segments_bt, remat)
    return logprobs_of_hidden(decoder, hidden_btd, tokens_bt, segments_bt)


def logprobs_of_hidden(
    decoder: Decoder,
    hidden_btd: jax.Array,
    tokens_bt: jax.Array,
    segments_bt: jax.Array,
    temperature: float = 1.0,
    start: int = 1,
) -> TokenLogprobs:
    """As ``token_logprobs``, from hidden states at hand (the value head reads them too).

    Columns before ``start`` are not computed and get 0, as for the prompts of rollouts.
    Softmax is float32, over chunks of positions that are recomputed in the backward pass, so no
    [b, t, v] float32 array exists. Logits are divided by the temperature.
    """
    b, t = tokens_bt.shape
    count = t - start
    steps = -(-max(count, 1) // _chunk(b, count))
    width = -(-max(count, 1) // steps)
    room = steps * width - count

    table_vd = decoder.output_table()

    @jax.checkpoint
    def chunk(operand: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        hidden, targets = operand
        logits = decoder.logits(hidden, table_vd) / temperature
        log_z = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        entropy = log_z - jnp.sum(jnp.exp(logits - log_z[..., None]) * logits, axis=-1)
        return chosen - log_z, entropy

    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, room)) + ((0, 0),) * (x.ndim - 2))
        return x.reshape(b, steps, width, *x.shape[2:]).swapaxes(0, 1)

    logprobs, entropy = jax.lax.map(
        chunk, (split(hidden_btd[:, start - 1 : -1]), split(tokens_bt[:, start:]))
    )
    here, before = segments_bt[:, start:], segments_bt[:, start - 1 : -1]
    predicted = (here > 0) & (here == before)

    def join(x: jax.Array) -> jax.Array:
        x = x.swapaxes(0, 1).reshape(b, steps * width)[:, :count]
        return jnp.pad(jnp.where(predicted, x, 0.0), ((0, 0), (start, 0)))

    return TokenLogprobs(join(logprobs), join(entropy))


def _chunk(b: int, count: int) -> int:
    """Positions in a chunk; over several devices, two chunks at least where there are enough."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return CHUNK
    rows = max(b // batch_multiple(mesh), 1)
    return max(CHUNK, min(DEVICE_TOKENS // rows, -(-count // 2)))
