"""Pictures of a session's page, for docs/page.md: a simulated night with one slow node.

Three nights without fault come before it. Chromium takes the pictures; without it they stay as they
are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SYSTEM = """\
schema_version = 1
description = "four nodes x 8 GPUs that do not exist"

[cluster]
kind = "simulated"
nodes = 4
gpus_per_node = 8

[model]
path = "deepseek-ai/DeepSeek-V2-Lite"

[sweep]
input_lens = [512, 1024, 2048, 4096]
output_lens = [256, 512]
num_prompts = 256

[simulation]
run_cv = 0.004
"""
SLOW = 'bad_node = "node1"\nbad_node_factor = 1.15\n'
SIZES = {
    "page-phone": (390, 844),
    "page": (1280, 900),
}
"""Width and height in pixels of each picture."""


def draw_page(folder: Path, pictures: Path) -> None:
    """Simulate the nights in *folder*, and write the pictures."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.stderr.write("Chromium is not installed: the pictures of the page stay as they are\n")
        return
    page = simulated_page(folder)
    for name, (width, height) in SIZES.items():
        command = [browser, "--headless", "--disable-gpu", "--hide-scrollbars"]
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium's own sandbox does not run as root
        command += [f"--user-data-dir={folder / 'browser'}", f"--window-size={width},{height}"]
        command += [f"--screenshot={pictures / name}.png", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)


def simulated_page(folder: Path) -> Path:
    """Simulate three nights and a slow one in *folder*; return the page of the last."""
    system = folder / "baselines" / "mine" / "system.toml"
    system.parent.mkdir(parents=True)
    own = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
    suite, root = str(ROOT / "suites" / "sweep"), ("--rootdir", str(folder))
    asked = ("--quiet", "--system", "mine", "--topology", "dp,route4,1p3d")
    command = [sys.executable, "-m", "pytest", suite, *root, *asked]
    for night in range(3):
        system.write_text(f"{SYSTEM}night = {night}\n")
        subprocess.run(command, cwd=folder, env=own, check=True)
    system.write_text(f"{SYSTEM}night = 3\n{SLOW}")
    command += ["--pdserve-report", "page.html"]
    subprocess.run(command, cwd=folder, env=own, check=False)
    return folder / "page.html"
