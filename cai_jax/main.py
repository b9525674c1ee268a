"""Runs Constitutional AI: flags, config, checks, stages, in that order.

python -m cai_jax.main --config=configs/rlaif.py --config.rl.kl_coef=0.1

On several hosts the same command runs on each, with --multihost where the environment knows the
others (TPU VM, GKE, Slurm), or with --coordinator, --num_hosts and --host_id.
"""

import logging
import os
import sys
from dataclasses import asdict

from absl import flags

from cai_jax.commands.config_flag import read_config
from cai_jax.commands.front import start
from cai_jax.config import Config

log = logging.getLogger("cai_jax")
MULTIHOST = flags.DEFINE_bool("multihost", False, "find the other hosts (TPU VM, GKE, Slurm)")
COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of host 0, where nothing knows it")
NUM_HOSTS = flags.DEFINE_integer("num_hosts", 0, "with --coordinator: how many", lower_bound=0)
HOST_ID = flags.DEFINE_integer(
    "host_id", -1, "with --coordinator: this host's number, from 0", lower_bound=-1
)
START_TIMEOUT = flags.DEFINE_integer(
    "start_timeout", 300, "seconds to wait for a host to come", lower_bound=1
)


def main() -> None:
    """Runs the stages that the config names."""
    config = read_config()
    from cai_jax.parallel import hosts, preemption
    from cai_jax.storage.files import resolved

    settings = asdict(config)
    settings["model"].pop("cache")
    where = MULTIHOST.value, COORDINATOR.value, NUM_HOSTS.value, HOST_ID.value
    with hosts.together(*where, START_TIMEOUT.value, settings, resolved(config.workdir)):
        if not hosts.is_main():
            log.setLevel(logging.ERROR)  # the main host says it
            os.environ["TQDM_DISABLE"] = "1"
        command = ["python", "-m", "cai_jax.main", *sys.argv[1:]]
        with preemption.leaving_when_told(command):
            run_config(config)


def run_config(config: Config) -> None:
    """Runs the stages that the config names, on all devices that JAX sees."""
    log.info("workdir %s", config.workdir)

    from cai_jax.parallel import hosts
    from cai_jax.stages.checks import check_inputs, check_models
    from cai_jax.stages.pipeline import stages_of
    from cai_jax.stages.report import grow
    from cai_jax.stages.runner import run_stages
    from cai_jax.stages.stage import open_run
    from cai_jax.storage.files import explaining_disk

    run, stages = open_run(config), stages_of(config)
    with explaining_disk(run.workdir.path), run.workdir.owned():
        check_inputs(run, stages)
        run.models.pin()
        with hosts.main_first("reading the models"):
            check_models(run)
        run.workdir.claim(config)
        run_stages(run, stages, after=grow)
    page = run.workdir.folder("report") / "index.html"
    if page.exists():
        log.info("report: %s", page)
        log.info("summary: %s", page.with_name("summary.json"))


if __name__ == "__main__":
    start(main)
