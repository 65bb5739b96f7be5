"""A real language model for tests marked ``real``: fetched once; without it they skip and say why."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch

from softstart import Backbone
from softstart.backbone.sources import NAMED, fetch
from softstart.errors import SoftstartError
from softstart.training.chat import mention_chat


def keeping_folder() -> str:
    """Where the model is kept: SOFTSTART_REAL_CACHE, else the cache that commands use."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "softstart"
    return os.environ.get("SOFTSTART_REAL_CACHE") or str(cache)


@pytest.fixture(scope="session")
def cache():
    """The real cache for as long as these tests run; all others do without one."""
    before = os.environ.get("SOFTSTART_CACHE", "off")
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    os.environ["SOFTSTART_CACHE"] = keeping_folder()
    yield keeping_folder()
    os.environ["SOFTSTART_CACHE"] = before
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def gguf(cache):
    """The GGUF file of SmolLM2."""
    named = NAMED["smollm2"]
    try:
        fetch(named, named.quantization)
    except SoftstartError as problem:
        pytest.skip(f"SmolLM2 cannot be had: {problem}")
    return named.folder / named.file


@pytest.fixture(scope="session")
def smollm2(gguf):
    """SmolLM2-135M-Instruct, rounded to 4 bits, in float32."""
    backbone = Backbone.from_pretrained("smollm2:q4_1", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these tests use it without its chat format on purpose
        mention_chat(backbone.tokenizer, backbone.name)
    return backbone
