"""Settings and fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("SOFTSTART_CACHE", "off")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from hypothesis import settings
from transformers.models.t5 import modeling_t5

from helpers import toy_study
from helpers.browser import CHROMIUM, DRIVER
from helpers.models import random_t5
from softstart.backbone import T5Backbone

# The models here are so small that a second thread only waits.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread():
    """Commands run in this process and may set the number of threads, which decides last bits."""
    yield
    torch.set_num_threads(1)


settings.register_profile("softstart", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("softstart")


@pytest.fixture
def exact_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A T5 layer norm that keeps its input's dtype: transformers' takes the variance in float32 always."""

    def forward(self: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * hidden * scale

    monkeypatch.setattr(modeling_t5.T5LayerNorm, "forward", forward)


@pytest.fixture
def t5(exact_norm: None) -> T5Backbone:
    """The float64 reference model."""
    return random_t5()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random backbone, a toy gym and a study file."""
    return toy_study.make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One uninterrupted run of the toy study: its folder, and what was printed."""
    out = tmp_path_factory.mktemp("finished") / "study"
    done = toy_study.call(*toy_study.command(world, out))
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()
