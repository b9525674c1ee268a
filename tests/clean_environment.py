"""Environments of a stranger: with all packages that ours has but cai_jax."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

# Nothing of this checkout, and one device; servers of tests are reached directly.
VARIABLES = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
VARIABLES["NO_PROXY"] = VARIABLES["no_proxy"] = "127.0.0.1"


def clean_environment(place: Path) -> Path:
    """The interpreter of a new virtual environment, whose packages are links to ours."""
    links = place / "links"
    links.mkdir(parents=True)
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        # .pth files, too, install what is elsewhere.
        if package.suffix != ".pth" and "cai_jax" not in package.name:
            (links / package.name).symlink_to(package)
    command = [sys.executable, "-m", "venv", "--without-pip", str(place / "venv")]
    subprocess.run(command, env=VARIABLES, check=True)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(place / "venv")}))
    (own / "links.pth").write_text(f"{links}\n", encoding="utf-8")
    return place / "venv" / "bin" / "python"
