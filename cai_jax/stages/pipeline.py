"""The stages in the order in which they run."""

from cai_jax.config import Config
from cai_jax.stages import evaluate, feedback, pm_train, pretrain, report, rl, sl_data, sl_train
from cai_jax.stages.stage import Stage

STAGES: tuple[Stage, ...] = tuple(
    module.STAGE
    for module in (pretrain, sl_data, sl_train, feedback, pm_train, rl, evaluate, report)
)


def stages_of(config: Config) -> list[Stage]:
    """The stages of a run; it pretrains a model only where the config asks for one."""
    return [stage for stage in STAGES if stage.name != "pretrain" or config.pretrain]
