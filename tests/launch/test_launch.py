"""Launch scripts: what they ask of clouds, by stand-ins for the clouds' commands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from cai_jax.parallel.exit_codes import HOST_LOST, PREEMPTED

LAUNCH = ROOT / "launch"
SCRIPTS = sorted(LAUNCH.rglob("*.sh"))
ENGINES = ("tpu_vm", "gke_xpk", "skypilot")
STEPS = ("create", "setup", "run", "logs", "status", "stop", "resume", "teardown")
SETTINGS = {
    "NAME": "demo",
    "PROJECT": "lab",
    "ZONE": "us-west4-a",
    "ACCELERATOR": "v5litepod-16",
    "RUNTIME": "v2-alpha-tpuv5-lite",
    "BUCKET": "shared",
    "IMAGE": "docker.pkg.dev/lab/r/cai:v1",
    "CONFIG": "configs/rlaif.py:smoke",
    "COMMIT": "HEAD",
}
OVERRIDE = "--config.model.system_prompt=be kind"
MAIN = (
    "python -m cai_jax.main --multihost --config=configs/rlaif.py:smoke "
    "--config.workdir=/mnt/cai_jax/runs/demo '--config.model.system_prompt=be kind'"
)
COMMIT = subprocess.run(
    ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
).stdout.strip()

# Stands where a cloud's command stands: notes what it was asked and the secret that it was handed,
# answers and fails as planned, and copies to hosts, which are all one folder.
STAND_IN = f"""#!{sys.executable} -IS
import json, os, pathlib, shutil, sys
folder = pathlib.Path(__file__).parent.parent
call = [pathlib.Path(__file__).name, *sys.argv[1:]]
calls = folder / "calls.jsonl"
with calls.open("a") as file:
    file.write(json.dumps(call) + "\\n")
(folder / "secrets.txt").open("a").write(os.environ.get("HF_TOKEN", "") + "\\n")
plan = json.loads((folder / "plan.json").read_text())
if len(calls.read_text().splitlines()) in plan["fail_at"]:
    sys.exit("the cloud says no")
if any(word.startswith(("--filter=", "--output=json")) for word in call):
    answers = plan["answers"]
    print(answers.pop(0) if len(answers) > 1 else answers[0])
    (folder / "plan.json").write_text(json.dumps(plan))
if "scp" in call:
    shutil.copy2(call[5], folder / "home" / call[6].split(":")[1])
sys.exit(plan["codes"].get(call[0], 0))
"""
STAND_INS = ("gcloud", "xpk", "sky", "docker", "kubectl", "gcsfuse", "mountpoint", "sudo", "curl")


class Cloud:
    """A place with stand-ins, and what they were asked."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "home" / ".local" / "bin").mkdir(parents=True)
        for path in (folder / "bin" / name for name in STAND_INS):
            path.write_text(STAND_IN)
            path.chmod(0o755)

    def run(self, script, *arguments, answers=("",), fail_at=(), codes=None, **settings):
        (self.folder / "calls.jsonl").write_text("")
        (self.folder / "secrets.txt").write_text("")
        plan = {"answers": list(answers), "fail_at": list(fail_at), "codes": codes or {}}
        (self.folder / "plan.json").write_text(json.dumps(plan))
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder),
            "POLL_SECONDS": "0",
        }
        return subprocess.run(
            [LAUNCH / script, *arguments],
            env=environment | settings,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    @property
    def calls(self):
        return [json.loads(c) for c in (self.folder / "calls.jsonl").read_text().splitlines()]


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)


def launch(cloud, engine, step, *arguments, **more):
    return cloud.run(f"{engine}/launch.sh", step, *arguments, **(SETTINGS | more))


# What a step finds of queued resources, clusters or buckets where all goes as a dry run assumes.
FOUND = {
    ("tpu_vm", "create"): ["", "WAITING_FOR_RESOURCES", "ACTIVE"],
    ("tpu_vm", "resume"): ["SUSPENDED", "ACTIVE"],
    ("gke_xpk", "setup"): ["shared"],
    ("gke_xpk", "resume"): ["shared"],
    ("gke_xpk", "teardown"): ["demo"],
    ("skypilot", "resume"): ["[]"],
}


def found(engine, step):
    return FOUND.get((engine, step), ["ACTIVE"])


def test_there_are_scripts():
    assert {path.relative_to(LAUNCH).parts[0] for path in SCRIPTS} == {*ENGINES, "common.sh"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(LAUNCH)))
def test_shellcheck_finds_nothing(script):
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.defpath}")
    done = subprocess.run(
        [shellcheck, "--external-sources", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


TPU_LIST = (
    "gcloud compute tpus queued-resources list --project=lab --zone=us-west4-a "
    "'--filter=name~/demo$' '--format=value(state.state)'"
)
TPU_CREATE = (
    "gcloud compute tpus queued-resources create demo --project=lab --zone=us-west4-a "
    "--node-id=demo --accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --spot"
)
TPU_DELETE = (
    "gcloud compute tpus queued-resources delete demo --project=lab --zone=us-west4-a "
    "--force --quiet"
)
WORKER = "bash cai_jax/launch/tpu_vm/worker.sh"


def tpu_ssh(command, worker="all"):
    ssh = "gcloud compute tpus tpu-vm ssh demo --project=lab --zone=us-west4-a"
    return f"{ssh} --worker={worker} {shlex.quote(f'--command={command}')}"


TPU_SETUP = [
    f"git -C {ROOT} archive --format=tar.gz --output=TMP/cai_jax-{COMMIT}.tar.gz {COMMIT}",
    f"gcloud compute tpus tpu-vm scp TMP/cai_jax-{COMMIT}.tar.gz demo:cai_jax.tar.gz "
    "--project=lab --zone=us-west4-a --worker=all",
    tpu_ssh(
        f"{{ [ ! -f cai_jax/launch/tpu_vm/worker.sh ] || {WORKER} check_idle; }} && "
        "rm -rf cai_jax && mkdir cai_jax && tar -xzf cai_jax.tar.gz -C cai_jax && "
        f"{WORKER} setup shared"
    ),
]
TPU_RUN = tpu_ssh(f"{WORKER} run {MAIN}")
XPK = "--cluster=demo --project=lab --zone=us-west4-a"
XPK_CREATE = (
    f"xpk cluster create {XPK} --tpu-type=v5litepod-16 --num-slices=1 --spot "
    "--enable-gcsfuse-csi-driver"
)
GKE_LOGIN = "gcloud container clusters get-credentials demo --project=lab --location=us-west4"
XPK_SETUP = [
    f"docker build --file={LAUNCH}/Dockerfile --tag=docker.pkg.dev/lab/r/cai:v1 "
    f"--build-arg=USER_ID=0 {ROOT}",
    "docker push docker.pkg.dev/lab/r/cai:v1",
    f"xpk storage attach demo {XPK} --type=gcsfuse --bucket=shared --size=1 "
    "--mount-point=/mnt/cai_jax --readonly=false --auto-mount=false --no-prefetch-metadata "
    "--mount-options=implicit-dirs,rename-dir-limit=100000,metadata-cache:ttl-secs:0",
    GKE_LOGIN,
    "kubectl get pv demo-pv '--output=jsonpath={.spec.csi.volumeHandle}'",
]
XPK_RUN = (
    f"xpk workload create --workload=demo {XPK} --tpu-type=v5litepod-16 --num-slices=1 "
    "--docker-image=docker.pkg.dev/lab/r/cai:v1 --docker-name=cai-jax --storage=demo "
    f"--max-restarts=20 --restart-on-exit-codes=75,85 {shlex.quote(f'--command={MAIN}')}"
)
GKE_STOP = [GKE_LOGIN, "kubectl delete jobset demo --ignore-not-found --cascade=foreground --wait"]
TASK = f"{LAUNCH}/skypilot/task.yaml"
SKY_LAUNCH = [
    "sed -n -e 's/^resources: {}/resources: {accelerator_args: {runtime_version: "
    f"v2-alpha-tpuv5-lite}}}}/' -e 'w TMP/cai_jax-demo.yaml' {TASK}",
    f"sky launch --yes --cluster=demo --workdir={ROOT} '--infra=gcp/*/us-west4-a' "
    "--gpus=tpu-v5litepod-16 --use-spot --env=BUCKET=shared TMP/cai_jax-demo.yaml",
]
SKY_RUN = (
    f"sky exec --detach-run --workdir={ROOT} --env=BUCKET=shared "
    f"{shlex.quote(f'--env=COMMAND={MAIN}')} demo {TASK}"
)
COMMANDS = {
    ("tpu_vm", "create"): [TPU_LIST, TPU_CREATE, TPU_LIST],
    ("tpu_vm", "setup"): TPU_SETUP,
    ("tpu_vm", "run"): [TPU_RUN],
    ("tpu_vm", "logs"): [tpu_ssh(f"{WORKER} logs", worker=0)],
    ("tpu_vm", "status"): [TPU_LIST, tpu_ssh(f"{WORKER} status")],
    ("tpu_vm", "stop"): [
        tpu_ssh(f"[ ! -f cai_jax/launch/tpu_vm/worker.sh ] || {WORKER} stop"),
    ],
    ("tpu_vm", "resume"): [TPU_LIST, TPU_DELETE, TPU_CREATE, TPU_LIST, *TPU_SETUP, TPU_RUN],
    ("tpu_vm", "teardown"): [TPU_LIST, TPU_DELETE],
    ("gke_xpk", "create"): [XPK_CREATE],
    ("gke_xpk", "setup"): XPK_SETUP,
    ("gke_xpk", "run"): [XPK_RUN],
    ("gke_xpk", "logs"): [
        GKE_LOGIN,
        "kubectl logs --follow --tail=-1 --container=cai-jax "
        "--selector=xpk.google.com/workload=demo,batch.kubernetes.io/job-completion-index=0",
        f"xpk workload list {XPK} --wait-for-job-completion=demo",
    ],
    ("gke_xpk", "status"): [f"xpk workload list {XPK} --filter-by-job=demo"],
    ("gke_xpk", "stop"): GKE_STOP,
    ("gke_xpk", "resume"): [XPK_CREATE, *XPK_SETUP, *GKE_STOP, XPK_RUN],
    ("gke_xpk", "teardown"): [
        "gcloud container clusters list --project=lab --filter=name=demo '--format=value(name)'",
        f"xpk cluster delete {XPK} --force",
    ],
    ("skypilot", "create"): SKY_LAUNCH,
    ("skypilot", "setup"): SKY_LAUNCH,
    ("skypilot", "run"): [SKY_RUN],
    ("skypilot", "logs"): ["sky logs demo"],
    ("skypilot", "status"): ["sky status --refresh demo", "sky queue demo"],
    ("skypilot", "stop"): ["sky cancel --yes --all demo"],
    ("skypilot", "resume"): ["sky status --refresh --output=json demo", *SKY_LAUNCH, SKY_RUN],
    ("skypilot", "teardown"): ["sky down --yes demo"],
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("step", STEPS)
def test_a_dry_run_prints_the_commands_and_runs_nothing(cloud, engine, step):
    done = launch(cloud, engine, step, "--dry_run", "--spot=true", "--", OVERRIDE)
    assert done.returncode == 0, done.stderr
    said = [shlex.split(line) for line in done.stdout.splitlines()]
    expected = [line.replace("TMP", str(cloud.folder)) for line in COMMANDS[engine, step]]
    assert said == [shlex.split(line) for line in expected]
    assert cloud.calls == []
    assert not list(cloud.folder.glob("cai_jax*"))


HERE = {"git", "sed"}  # commands that have no stand-in


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("step", STEPS)
def test_a_step_asks_what_its_dry_run_prints(cloud, engine, step):
    arguments = ("--spot=true", "--", OVERRIDE)
    printed = launch(cloud, engine, step, "--dry_run", *arguments).stdout.splitlines()
    expected = [shlex.split(line) for line in printed if line.split()[0] not in HERE]
    done = launch(cloud, engine, step, *arguments, answers=found(engine, step))
    assert done.returncode == 0, done.stderr
    once = [c for i, c in enumerate(cloud.calls) if i == 0 or c != cloud.calls[i - 1]]
    assert once == expected  # waiting asks the same again


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("step", STEPS)
def test_a_failure_stops_the_script_and_says_what_to_do(cloud, engine, step):
    answers = found(engine, step)
    assert launch(cloud, engine, step, answers=answers).returncode == 0
    whole = cloud.calls
    assert whole
    for number in range(1, len(whole) + 1):
        if number > 1 and whole[number - 1][4:5] == ["list"]:
            continue  # waiting for a slice outlasts it, as a test below shows
        done = launch(cloud, engine, step, answers=answers, fail_at=[number])
        assert done.returncode == 1
        assert cloud.calls == whole[:number]
        said = done.stderr.strip().splitlines()
        assert "the cloud says no" in said
        tool = whole[number - 1][0]
        assert said[-1].startswith(f"error: {tool} failed with exit code 1, its message is above; ")
        assert len(said[-1].split("; ", 1)[1]) > 10


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("step", STEPS)
def test_missing_settings_are_named_before_any_call(cloud, engine, step):
    done = cloud.run(f"{engine}/launch.sh", step)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: step '{step}' needs NAME")
    assert len(done.stderr.splitlines()) == 1
    if step == "resume":
        assert "ACCELERATOR" in done.stderr
        assert "--bucket" in done.stderr
    assert cloud.calls == []


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--zoen=a"), "unknown argument '--zoen=a'; settings are --name"),
        (("run", "--config.seed=1"), "what follows -- goes to cai_jax"),
        (("create", "--spot=perhaps"), "SPOT is 'perhaps'"),
        (("run", "--workdir=gs://shared/run"), "WORKDIR is 'gs://shared/run'"),
        (("resume", "--workdir=/runs"), "WORKDIR is '/runs'"),
        (("run", "--hf_token=hf_abc"), "HF_TOKEN is a secret; set it in the environment"),
        (("start",), "unknown step 'start'; steps are create"),
    ],
)
def test_odd_arguments_are_refused_before_any_call(cloud, engine, arguments, words):
    done = launch(cloud, engine, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert "hf_abc" not in done.stderr
    assert cloud.calls == []


@pytest.mark.parametrize("engine", ENGINES)
def test_help_is_the_comment_at_the_top(cloud, engine):
    done = cloud.run(f"{engine}/launch.sh", "--help")
    assert done.returncode == 0
    assert all(f"\n{step} " in done.stdout for step in STEPS)
    assert "set -e" not in done.stdout


def test_flags_go_before_the_environment(cloud):
    launch(cloud, "skypilot", "teardown", "--name=other")
    assert cloud.calls == [["sky", "down", "--yes", "other"]]


SECRET = "hf_qwertzuiop"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("step", STEPS)
def test_the_token_of_gated_models_stands_in_no_command(cloud, engine, step):
    for more in (["--dry_run"], []):
        done = launch(cloud, engine, step, *more, answers=found(engine, step), HF_TOKEN=SECRET)
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr + json.dumps(cloud.calls)
        assert [path.name for path in cloud.folder.glob("*token*")] == []


@pytest.mark.parametrize(("engine", "handed"), [("gke_xpk", "env-file="), ("skypilot", "secret=")])
@pytest.mark.parametrize("step", ["run", "resume"])
def test_a_cluster_is_handed_the_token_by_name(cloud, engine, step, handed):
    launch(cloud, engine, step, answers=found(engine, step), HF_TOKEN=SECRET)
    (flag,) = [word for word in cloud.calls[-1] if word.startswith(f"--{handed}")]
    name = flag.removeprefix(f"--{handed}")
    if engine == "gke_xpk":  # which reads the names from a file, lines with # aside
        (name,) = re.findall("^[a-zA-Z_].*", Path(name).read_text(), re.M)
    assert name == "HF_TOKEN"
    assert (cloud.folder / "secrets.txt").read_text().splitlines()[-1] == SECRET
    launch(cloud, engine, step, answers=found(engine, step))
    assert not [word for word in cloud.calls[-1] if word.startswith(f"--{handed}")]


def test_a_host_takes_the_token_from_a_file_of_its_own(host):
    program = "import os; print('token', os.environ.get('HF_TOKEN'))"
    sent = host.folder / "home" / "cai_jax_token"
    for token in (SECRET, ""):
        launch(host, "tpu_vm", "run", HF_TOKEN=token)
        assert sent.exists() == bool(token)
        if token:
            assert sent.read_text() == SECRET
            assert sent.stat().st_mode & 0o777 == 0o600
        assert worker(host, "run", "python", "-c", program).returncode == 0
        assert not sent.exists()
        said = worker(host, "logs").stdout.splitlines()[-1]
        assert said == f"token {token or None}"


def test_gke_restarts_what_the_same_command_goes_on_after_and_no_error(cloud):
    launch(cloud, "gke_xpk", "run")
    (flag,) = [word for word in cloud.calls[0] if word.startswith("--restart-on-exit-codes=")]
    assert flag == f"--restart-on-exit-codes={HOST_LOST},{PREEMPTED}"
    assert len({HOST_LOST, PREEMPTED, 0, 1}) == 4
    told = (LAUNCH / "README.md").read_text()
    assert f"| {HOST_LOST} |" in told
    assert f"| {PREEMPTED} |" in told


def test_another_bucket_behind_the_storage_is_refused(cloud):
    for step in ("setup", "resume"):
        done = launch(cloud, "gke_xpk", step, answers=["other"])
        assert done.returncode == 1
        assert "is bucket 'other', not 'shared': take another NAME" in done.stderr
        assert cloud.calls[-1][:3] == ["kubectl", "get", "pv"]


@pytest.mark.parametrize(
    ("state", "verbs"),
    [
        ("UP", ["cancel", "launch", "exec"]),
        ("INIT", ["launch", "exec"]),
        (None, ["launch", "exec"]),
    ],
)
def test_skypilot_resumes_after_the_run_of_a_slice_that_is_still_there(cloud, state, verbs):
    clusters = json.dumps([{"name": "demo", "status": state}] if state else [], indent=2)
    done = launch(cloud, "skypilot", "resume", answers=[clusters])
    assert done.returncode == 0, done.stderr
    assert [call[1] for call in cloud.calls] == ["status", *verbs]


def test_skypilot_gets_the_runtime_in_its_task(cloud):
    given = yaml.safe_load((LAUNCH / "skypilot" / "task.yaml").read_text())
    launch(cloud, "skypilot", "create")
    task = yaml.safe_load(Path(cloud.calls[0][-1]).read_text())
    args = {"accelerator_args": {"runtime_version": SETTINGS["RUNTIME"]}}
    assert task == given | {"resources": args}
    launch(cloud, "skypilot", "create", RUNTIME="")
    assert cloud.calls[0][-1] == TASK


def tpu_verbs(cloud):
    """What of a slice was asked for, states aside."""
    verbs = [call[4] for call in cloud.calls]
    return [verb for verb in verbs if verb != "list"]


def test_create_says_that_the_slice_exists(cloud):
    done = launch(cloud, "tpu_vm", "create", answers=["SUSPENDED"])
    assert done.returncode == 1
    assert "queued resource demo exists and is SUSPENDED; run 'setup'" in done.stderr
    assert tpu_verbs(cloud) == []


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED", "DELETING", ""])
def test_create_does_not_wait_for_what_will_not_come(cloud, state):
    done = launch(cloud, "tpu_vm", "create", answers=["", "PROVISIONING", state])
    assert done.returncode == 1
    assert f"is {state or 'gone'} and will not become active" in done.stderr
    assert tpu_verbs(cloud) == ["create"]


@pytest.mark.parametrize("step", ["create", "resume"])
def test_waiting_for_a_slice_outlasts_failed_polls(cloud, step):
    states = ["", "PROVISIONING", "PROVISIONING", "ACTIVE"]  # calls 1, 3, 13 and 23 besides failed
    failed = [*range(4, 13), *range(14, 23)]
    done = launch(cloud, "tpu_vm", step, answers=states, fail_at=failed)
    assert done.returncode == 0, done.stderr
    assert tpu_verbs(cloud) == ["create", *(["scp", "ssh", "ssh"] if step == "resume" else [])]

    done = launch(cloud, "tpu_vm", step, answers=states, fail_at=range(4, 99))
    assert done.returncode == 1
    assert tpu_verbs(cloud) == ["create"]
    assert len(cloud.calls) == 3 + 10
    error = done.stderr.strip().splitlines()[-1]
    assert "gcloud failed 10 times in a row" in error
    assert "stays queued, and costs money" in error
    assert error.index("'resume'") < error.index("'teardown'")


def test_resume_does_not_advise_itself_where_hosts_stay_out_of_reach(cloud):
    for number in (2, 3, 4, 5):  # stop, copy, setup, run
        done = launch(cloud, "tpu_vm", "resume", answers=["ACTIVE"], fail_at=[number])
        error = done.stderr.strip().splitlines()[-1]
        assert "stay out of reach, 'teardown', then 'create' another" in error
        assert "if the slice was preempted, run 'resume'" not in error
    done = launch(cloud, "tpu_vm", "run", fail_at=[1])
    assert "if the slice was preempted, run 'resume'" in done.stderr


@pytest.mark.parametrize(
    ("states", "verbs"),
    [
        (["SUSPENDED", "WAITING_FOR_RESOURCES", "ACTIVE"], ["delete", "create"]),
        (["FAILED", "ACTIVE"], ["delete", "create"]),
        (["SUSPENDING", "SUSPENDING", "SUSPENDED", "ACTIVE"], ["delete", "create"]),
        (["DELETING", "", "ACTIVE"], ["create"]),
        (["", "ACTIVE"], ["create"]),
        (["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"], []),
        (["ACTIVE"], ["ssh"]),  # ends what is left of the run
    ],
)
def test_resume_makes_a_slice_where_there_is_none_and_runs_again(cloud, states, verbs):
    done = launch(cloud, "tpu_vm", "resume", answers=states)
    assert done.returncode == 0, done.stderr
    assert tpu_verbs(cloud) == [*verbs, "scp", "ssh", "ssh"]
    launch(cloud, "tpu_vm", "run")
    (run,) = cloud.calls
    launch(cloud, "tpu_vm", "resume", answers=states)
    assert cloud.calls[-1] == run


def test_teardown_of_nothing_is_no_error(cloud):
    for engine, answer in (("tpu_vm", ""), ("tpu_vm", "DELETING"), ("gke_xpk", "")):
        done = launch(cloud, engine, "teardown", answers=[answer])
        assert done.returncode == 0, done.stderr
        assert len(cloud.calls) == 1
        assert "nothing to tear down" in done.stderr or "already" in done.stderr


def test_what_is_shipped_holds_what_the_hosts_run(cloud):
    launch(cloud, "tpu_vm", "setup")
    (archive,) = cloud.folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = file.getnames()
    needed = {"launch/common.sh", "launch/tpu_vm/worker.sh", "setup.py", "configs/rlaif.py"}
    assert needed <= set(names)
    done = launch(cloud, "tpu_vm", "setup", "--commit=nosuch")
    assert done.returncode == 1
    assert "COMMIT 'nosuch' is no commit" in done.stderr


@pytest.fixture
def host(cloud):
    """A host that is set up: a mounted bucket, and a virtual environment."""
    python = cloud.folder / "home" / "cai_jax_venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    return cloud


def worker(host, *arguments, **more):
    return host.run("tpu_vm/worker.sh", *arguments, **more)


def test_a_host_is_set_up(cloud):
    uv = cloud.folder / "home" / ".local" / "bin" / "uv"
    uv.write_text(STAND_IN.replace("parent.parent", "parents[3]"))
    uv.chmod(0o755)
    done = worker(cloud, "setup", "shared", codes={"mountpoint": 1})
    assert done.returncode == 0, done.stderr
    asked = [" ".join(call) for call in cloud.calls]
    mount = "--implicit-dirs --rename-dir-limit=100000 --metadata-cache-ttl-secs=0"
    assert f"gcsfuse {mount} shared /mnt/cai_jax" in asked
    assert asked[-1].startswith("uv pip install")
    assert asked[-1].endswith(f"{ROOT}[tpu]")
    done = worker(cloud, "setup", "shared")
    assert not [call for call in cloud.calls if call[0] == "gcsfuse"]  # mounted already
    done = worker(cloud, "setup", "shared", codes={"mountpoint": 1, "gcsfuse": 1})
    assert done.returncode != 0
    assert cloud.calls[-1][0] == "gcsfuse"


def test_a_host_that_is_not_set_up_runs_nothing(cloud):
    done = worker(cloud, "run", "true")
    assert done.returncode == 1
    assert "not set up; run 'setup' first" in done.stderr
    done = worker(cloud, "logs")
    assert done.returncode == 1
    assert "run 'run' first" in done.stderr


@pytest.mark.parametrize("code", [0, 7])
def test_a_run_outlives_the_connection_and_its_exit_code_is_kept(host, code):
    program = f"import time; print('one', flush=True); time.sleep(1); print('two'); exit({code})"
    assert worker(host, "run", "python", "-c", program).returncode == 0
    again = worker(host, "run", "python", "-c", program)
    assert again.returncode == 1
    assert "a run is going on here" in again.stderr
    assert "running" in worker(host, "status").stdout
    followed = worker(host, "logs")
    assert followed.returncode == (1 if code else 0)
    assert followed.stdout.splitlines()[1:] == ["one", "two"]
    assert f"ended with exit code {code}" in followed.stderr
    assert f"ended with exit code {code}" in worker(host, "status").stdout


def test_setup_does_not_touch_a_host_on_which_a_run_is_alive(host):
    home = host.folder / "home"
    shutil.copytree(LAUNCH, home / "cai_jax" / "launch")
    (home / "cai_jax" / "old.txt").touch()
    uv = home / ".local" / "bin" / "uv"
    uv.write_text(STAND_IN.replace("parent.parent", "parents[3]"))
    uv.chmod(0o755)
    launch(host, "tpu_vm", "setup")
    (command,) = [w.removeprefix("--command=") for w in host.calls[-1] if w.startswith("--command")]

    def on_host():
        environment = {"PATH": f"{host.folder / 'bin'}:{os.environ['PATH']}", "HOME": str(home)}
        return subprocess.run(
            ["bash", "-c", command],
            env=environment,
            cwd=home,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    worker(host, "run", "python", "-c", "import time; time.sleep(30)")
    before = host.calls
    refused = on_host()
    assert refused.returncode == 1
    assert "a run is going on here; follow it with 'logs', or 'stop' it first" in refused.stderr
    assert (home / "cai_jax" / "old.txt").exists()
    assert (home / "cai_jax_venv" / "bin" / "python").exists()
    assert host.calls == before
    worker(host, "stop")
    done = on_host()
    assert done.returncode == 0, done.stderr
    assert not (home / "cai_jax" / "old.txt").exists()
    assert (home / "cai_jax" / "setup.py").exists()
    assert host.calls[-1][:3] == ["uv", "pip", "install"]


def test_stop_ends_the_run_and_all_that_it_started(host):
    started, ended = host.folder / "started", host.folder / "ended"
    child = f"open({str(started)!r}, 'w'); import time; time.sleep(2); open({str(ended)!r}, 'w')"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    worker(host, "run", "python", "-c", program)
    while not started.exists():
        time.sleep(0.01)
    done = worker(host, "stop")
    assert done.returncode == 0
    assert "ended without an exit code" in done.stderr
    assert worker(host, "logs").returncode == 1
    assert worker(host, "stop").returncode == 0  # nothing left, no error
    time.sleep(2.5)
    assert not ended.exists()


def test_the_skypilot_task_mounts_the_bucket_where_the_run_writes():
    task = yaml.safe_load((LAUNCH / "skypilot" / "task.yaml").read_text())
    assert task["file_mounts"] == {
        "/mnt/cai_jax": {"source": "gs://${BUCKET}", "mode": "MOUNT"},
    }
    assert task["envs"] == {"BUCKET": None, "COMMAND": "true"}
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=task[part], text=True, check=True)


def test_results_of_the_image_outlive_its_container():
    """The command in its comment: the workdir lies in a volume."""
    text = (LAUNCH / "Dockerfile").read_text().replace("\\\n#", "")
    (command,) = re.findall("^# +(docker run .*)$", text, re.M)
    volume, workdir = (
        re.search(f"--{flag}(\\S+)", command)[1] for flag in ("volume=", "config.workdir=")
    )
    assert workdir.startswith(volume.split(":")[1] + "/")


def test_the_image_copies_what_is_there_and_does_not_run_as_root():
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    sources = [s for line in lines if line.startswith("COPY ") for s in line.split()[1:-1]]
    assert {"cai_jax", "configs", "constitutions", "datasets"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)
    assert "ARG USER_ID=1000" in lines
    assert lines[-1] == 'ENTRYPOINT ["python", "-m", "cai_jax.main"]'
    assert "USER ${USER_ID}" in lines
