"""What a step of prompt tuning costs on a backbone: processor seconds of one thread, memory.

    python -m benchmarks.rates.cost smollm2 [--dtype bfloat16]      # seconds; on a GPU also wall time

Eight rows of 40 tokens, a prompt of 20 before or after them, outputs of 2 tokens; the median of some steps
after one to warm up. Processor seconds hardly depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from softstart import Backbone
from softstart.backbone import collate
from softstart.backbone.devices import forget_peak, peak_memory
from softstart.training.gradients import run_gradients


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backbone")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--placement", default="prefix")
    parser.add_argument("--steps", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    started = time.perf_counter()
    backbone = Backbone.from_pretrained(
        given.backbone, dtype=given.dtype, device=given.device, placement=given.placement
    )
    loading = time.perf_counter() - started
    generator = torch.Generator().manual_seed(0)
    size = backbone.embedding.num_embeddings

    def ids(count: int) -> list[int]:
        return torch.randint(100, size, (count,), generator=generator).tolist()

    batch = collate([ids(40) for _ in range(8)], [ids(2) for _ in range(8)], [0] * 8, pad=0)
    batch = batch.to(backbone.device)
    prompts = backbone.vocabulary[100:120].float()[None].clone()
    forget_peak(backbone.device)
    processor, wall = [], []
    for _ in range(given.steps + 1):
        before, clock = time.process_time(), time.perf_counter()
        run_gradients(backbone, prompts, batch)
        if backbone.device.type == "cuda":
            torch.cuda.synchronize()
        processor.append(time.process_time() - before)
        wall.append(time.perf_counter() - clock)
    line = {
        "backbone": backbone.name, "dtype": given.dtype, "placement": given.placement,
        "device": str(backbone.device), "threads": given.threads, "loading_s": round(loading, 2),
        "processor_s": round(statistics.median(processor[1:]), 3),
        "wall_s": round(statistics.median(wall[1:]), 3),
        "peak_gib": round(peak_memory(backbone.device) / 2**30, 2),
    }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
