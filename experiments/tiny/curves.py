"""Curves behind the choice of size and data of the embedded model: one short, whole schedule per recipe.

    python -m experiments.tiny.curves --out curves --tokens 3000000     # resumable, about an hour on one core
    python -m experiments.tiny.curves --out curves --table experiments/tiny/curves.md

Only development losses and probes are looked at, never a task of the gym.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, T5ForConditionalGeneration

from softstart.tiny.pretrain import Recipe, pretrain

RECIPES: dict[str, Recipe] = {
    "as shipped": Recipe(),
    "narrower (96)": Recipe(shape={"d_model": 96, "d_ff": 288, "num_heads": 4, "d_kv": 24, "num_layers": 3}),
    "no matching start": Recipe(match_content=False),
    "wider (192)": Recipe(shape={"d_model": 192, "d_ff": 576, "num_heads": 6, "d_kv": 32, "num_layers": 3}),
    "exercises 25 %": Recipe(exercise_share=0.25),
    "exercises 75 %": Recipe(exercise_share=0.75),
}
FAMILIES = ("claims", "answers", "seen facts", "held-back claims", "held-back answers", "held-back facts")


def main() -> None:
    """Train what is missing, or print the table of what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder with one run per recipe")
    parser.add_argument("--tokens", type=int, default=3_000_000)
    parser.add_argument("--table", type=Path, help="write the table of finished runs to this file")
    arguments = parser.parse_args()
    if arguments.table:
        arguments.table.write_text(table(arguments.out), encoding="utf-8")
        return
    for name, recipe in RECIPES.items():
        print(f"== {name}", flush=True)
        out = arguments.out / folder(name)
        pretrain(out, tokens=arguments.tokens, recipe=recipe, probe_every=0.2, log=print_now)


def print_now(line: object) -> None:
    """Print at once."""
    print(line, flush=True)


def folder(name: str) -> str:
    """The folder of a recipe."""
    return "".join(c if c.isalnum() else "-" for c in name)


def table(out: Path) -> str:
    """Final numbers of every finished run, then their curves, in Markdown."""
    runs = {}
    for name in RECIPES:
        path = out / folder(name) / "manifest.json"
        if path.is_file() and (manifest := json.loads(path.read_text(encoding="utf-8")))["finished"]:
            runs[name] = manifest
    speed = step_times({name: out / folder(name) for name in runs})
    columns = ["recipe", "parameters", "PT step (x)", "loss, exercises", "loss, general", *FAMILIES]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for name, manifest in runs.items():
        lines.append(row(name, manifest, speed[name], manifest["curve"][-1]))
    lines += ["", "Mean claims probe (chance .5) and general loss along the schedule:", ""]
    for name, manifest in runs.items():
        points = (
            f"{p['tokens'] / 1e6:.1f}M {p['probes']['claims']:.2f} / {p['dev_loss']['general']:.2f}"
            for p in manifest["curve"]
        )
        lines.append(f"- {name}: " + ", ".join(points))
    return "\n".join(lines) + "\n"


def row(name: str, manifest: dict[str, Any], speed: str, last: dict[str, Any]) -> str:
    """One recipe."""
    losses = f"{last['dev_loss']['exercises']:.3f} | {last['dev_loss']['general']:.3f}"
    probes = " | ".join(f"{last['probes'][family]:.2f}" for family in FAMILIES)
    return f"| {name} | {manifest['parameters']:,} | {speed} | {losses} | {probes} |"


def step_times(folders: dict[str, Path], rounds: int = 15) -> dict[str, str]:
    """Time of a gradient of a 20-token prompt (batch 8, 30 tokens) against the first model, interleaved."""
    torch.set_num_threads(1)
    models = {name: AutoModelForSeq2SeqLM.from_pretrained(path).eval() for name, path in folders.items()}
    for model in models.values():
        model.requires_grad_(False)
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            times[name].append(gradient_time(model))
    base = times[next(iter(times))]
    return {
        name: f"{statistics.median(t / b for t, b in zip(values, base, strict=True)):.2f}"
        for name, values in times.items()
    }


def gradient_time(model: T5ForConditionalGeneration) -> float:
    """Seconds of one gradient."""
    prompt = torch.zeros(8, 20, model.config.d_model, requires_grad=True)
    text = model.get_input_embeddings()(torch.full((8, 30), 5))
    began = time.perf_counter()
    loss = model(inputs_embeds=torch.cat([prompt, text], 1), labels=torch.full((8, 3), 7)).loss
    loss.backward()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
