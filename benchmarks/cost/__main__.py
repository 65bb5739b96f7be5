"""Plan the studies of the paper, whole and with the preset ``fast``: ``python -m benchmarks.cost``.

Writes ``results.json``: what each study would compute (meta-trainings, adaptations, fine-tunings), the rows
that go forward and backward, and their model FLOPs. Nothing is trained, and no data or weights are needed:
tasks have the size that the catalog says (``nominal_task`` in ``softstart.study.cost.estimate``), backbones
their published shape.
``docs/cost.md`` turns this and the rates of ``benchmarks/gpu`` into hours.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from transformers import BartConfig, GPT2Config

from softstart.backbone import TINY, load_backbone
from softstart.storage.files import atomic
from softstart.study import load_study
from softstart.study.cost.estimate import estimate
from softstart.study.cost.gpu_hours import row_flops
from softstart.study.declare.study_file import variants_of

HERE = Path(__file__).parent
STUDIES = HERE.parents[1] / "studies"
WHOLE = ("paper-main", "paper-ablations", "paper-base", "paper-bart", "paper-gpt2", "paper-xl")
FAST = {
    "paper-main": ["backbone=google/t5-large-lm-adapt"],
    "paper-ablations": ["backbone=google/t5-large-lm-adapt"],
    "paper-base": [],
}
"""Studies that are also planned with the preset ``fast``, which declares no backbone of its own."""
CONFIGS = {
    "paper-bart": lambda: BartConfig(),  # its defaults are bart-large
    "paper-gpt2": lambda: GPT2Config(n_embd=1280, n_layer=36, n_head=20),
}
"""The published shapes of backbones that the package has no table of."""


def planned(name: str, overrides: list[str]) -> dict[str, float]:
    """What a study would compute."""
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        if name in CONFIGS:
            CONFIGS[name]().save_pretrained(folder)
            load_backbone(TINY, device="cpu").tokenizer.save_pretrained(folder)
            overrides = [*overrides, f"backbone={folder}"]
        study = load_study(STUDIES / f"{name}.yaml", overrides)
        plan = estimate(study, folder / "nowhere", "cpu")
        studies = variants_of(study)
        flops = sum(
            rows.count * row_flops(studies[variant], rows.text, rows.output)
            for variant, rows in plan.work.items()
        )
    counts = {what: count for what, (count, _) in plan.counts.items()}
    return {**counts, "rows": round(sum(rows.count for rows in plan.work.values())), "flops": flops}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("--studies", nargs="+", default=list(WHOLE), choices=WHOLE)
    given = parser.parse_args()
    file = HERE / "results.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name in given.studies:
        results[name] = planned(name, [])
        if name in FAST:
            results[f"{name}, fast"] = planned(name, ["preset=fast", *FAST[name]])
        print(name, results[name], flush=True)
        with atomic(file) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
