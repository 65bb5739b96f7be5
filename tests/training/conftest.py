"""A small backbone and three toy tasks for everything that trains."""

import pytest
import torch

from helpers.models import random_t5, toy_encoded


@pytest.fixture(scope="module")
def backbone():
    return random_t5(torch.float32, dropout=0.1)


@pytest.fixture(scope="module")
def tasks(backbone):
    return [toy_encoded(backbone, f"toy{i}", seed=i) for i in range(3)]
