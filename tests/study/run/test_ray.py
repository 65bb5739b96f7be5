"""The study on a real Ray cluster of two nodes, while a worker and then a node are killed."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from helpers.toy_study import contents, toy
from softstart.progress import Quiet
from softstart.study import run_study

ray = pytest.importorskip("ray")


class Saboteur(Quiet):
    """Kills a worker when the first work has begun, and a whole node when later work of a kind begins."""

    def __init__(self, cluster, node, later: str) -> None:
        self.cluster, self.node, self.later = cluster, node, later
        self.killed: list[str] = []

    def stage(self, name: str) -> None:
        workers = subprocess.run(
            ["pgrep", "-f", "^ray::_Worker"], capture_output=True, text=True
        ).stdout.split()
        if not self.killed and workers:
            os.kill(int(workers[0]), signal.SIGKILL)
            self.killed.append("worker")
        elif self.killed == ["worker"] and name.startswith(self.later):
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.killed.append("node")


@pytest.mark.slow
@pytest.mark.parametrize("later", ["", "adaptation"], ids=["while a worker restarts", "after results"])
def test_a_cluster_that_loses_a_worker_and_a_node_gives_the_same_numbers(world, finished, tmp_path, later):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=2)
        saboteur = Saboteur(cluster, node, later)
        outcome = run_study(toy(world), tmp_path / "o", display=saboteur, ray=cluster.address, device="cpu")
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert saboteur.killed == ["worker", "node"]
    assert not outcome.failures
    assert contents(tmp_path / "o") == contents(finished[0])
