"""What a run can compute on, found without torch: its import would stall the page."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess

import psutil
import streamlit as st

from pgb_core import memory
from ui import units, words


@st.cache_data(ttl=60, show_spinner=False)
def devices() -> dict[str, str]:
    """Values of `PruneSpec.device` that this server offers, each with its name and memory."""
    free, total = memory.available(), psutil.virtual_memory().total
    cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count()
    cpu = f"CPU: {cores} cores, {units.size(free)} of {units.size(total)} memory free"
    gpu = _gpu()
    if gpu is None:
        return {"cpu": cpu}
    return {"cuda": gpu, "cpu": cpu}


def choose_device() -> str:
    """The device that a visitor chooses, the same in all forms of the session."""
    offered = devices()
    device: str = st.selectbox(
        "Device",
        list(offered),
        format_func=offered.__getitem__,
        key="device",
        persist_state="session",
        help=words.DEVICE,
    )
    return device


def _gpu() -> str | None:
    """Name and memory of the first NVIDIA GPU; None without one, or with a torch that cannot use it."""
    tool = shutil.which("nvidia-smi")
    if tool is None or "+cpu" in importlib.metadata.version("torch"):
        return None
    query = ["--query-gpu=name,memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run([tool, *query], capture_output=True, text=True, timeout=5, check=True)
        name, free, total = answer.stdout.splitlines()[0].split(", ")
        return f"GPU: {name}, {units.size(float(free) * 2**20)} of {units.size(float(total) * 2**20)} free"
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
