"""The strategies by the names that users know them by; a new one is a file and an entry."""

from cai_jax.red_teaming.strategies.direct import DIRECT
from cai_jax.red_teaming.strategies.escalation import ESCALATION
from cai_jax.red_teaming.strategies.false_premise import FALSE_PREMISE
from cai_jax.red_teaming.strategies.helpful import HELPFUL
from cai_jax.red_teaming.strategies.hypothetical import HYPOTHETICAL
from cai_jax.red_teaming.strategies.obfuscated import OBFUSCATED
from cai_jax.red_teaming.strategies.role_play import ROLE_PLAY
from cai_jax.red_teaming.strategies.strategy import Strategy

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        DIRECT,
        ROLE_PLAY,
        ESCALATION,
        HYPOTHETICAL,
        FALSE_PREMISE,
        OBFUSCATED,
        HELPFUL,
    )
}


def named_strategies(names: str) -> tuple[Strategy, ...]:
    """Strategies by their names, with commas between.

    Raises:
      ValueError: there is none of a name.
    """
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in STRATEGIES:
            raise ValueError(f"no strategy {name!r}; known: {', '.join(STRATEGIES)}")
    return tuple(STRATEGIES[name] for name in dict.fromkeys(wanted))
