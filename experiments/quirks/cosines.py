"""Angles between the meta-gradients of MAML, first-order MAML and multi-task learning by inner rate."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from softstart.algorithms import MAML, FoMAML, Reptile
from softstart.prompt import SoftPrompt
from softstart.study import load_study
from softstart.study.declare.spec import MAIN
from softstart.study.declare.study_file import variants_of
from softstart.study.declare.task_lists import resolve_setting
from softstart.study.run.resources import Resources
from softstart.training.configs import MetaConfig
from softstart.training.episodes import EpisodeSampler, Item
from softstart.training.objective import PromptObjective
from softstart.training.starts import draw_start

STUDY = Path(__file__).parents[2] / "studies" / "quirk-inner-rate.yaml"
RATES = (1e-6, 1e-4, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
BATCHES = 8
PUBLISHED = 3e-5


def report(folder: Path, file: Path) -> str:
    """Compute the cosines at a start and at learned prompts of the study's folder; write CSV, return text."""
    study = load_study(STUDY)
    resources = Resources(variants_of(study))
    backbone = resources.backbone(MAIN)
    assert isinstance(study.setting, str)
    setting = resolve_setting(study, study.setting, resources.gym(MAIN))
    tasks = [resources.encoded(MAIN, name, source=True) for name in setting.source]
    items = [Item(task.name, task.train[s], task.dev[s]) for task in tasks for s in sorted(task.train)]
    start = draw_start(backbone, study.prompt, tasks, study.meta_seeds[0])
    places = {"start": start, **_learned(folder)}
    unit = float(start.square().mean().sqrt())
    loss = PromptObjective(backbone)

    def sampler(algorithm: MAML | FoMAML | Reptile) -> EpisodeSampler:
        config = MetaConfig(meta_batch=study.meta.meta_batch)
        return EpisodeSampler(items, algorithm, config, backbone.tokenizer.pad_token_id, backbone.device)

    rows, bent = [], []
    for name, theta in places.items():
        theta = theta.to(backbone.device, backbone.prompt_dtype)
        for rate in RATES:
            lr = rate * unit
            maml = MAML(lr, 2, 4, 8)
            episodes = [sampler(maml).draw(step) for step in range(BATCHES)]
            exact, first, mixed = [], [], []
            for batch in episodes:
                exact.append(maml.meta_gradient(loss, theta, batch)[0])
                first.append(FoMAML(lr, 2, 4, 8).meta_gradient(loss, theta, batch)[0])
                mixed.append(FoMAML(0.0, 2, 4, 8).meta_gradient(loss, theta, batch)[0])
            rows.append(
                {
                    "at": name,
                    "rate in units of the prompt": rate,
                    "maml ~ fomaml": _cosine(exact, first),
                    "maml ~ multi-task": _cosine(exact, mixed),
                    "fomaml ~ multi-task": _cosine(first, mixed),
                    "length maml : fomaml": _ratio(exact, first),
                }
            )
        for lr in (1e-8, 1e-7, 1e-6, PUBLISHED, 1e-3, 1.0):
            episodes = [sampler(Reptile(lr)).draw(step) for step in range(BATCHES)]
            plain = [Reptile(lr).meta_gradient(loss, theta, batch)[0] for batch in episodes]
            taken = [Reptile(lr, difference=True).meta_gradient(loss, theta, batch)[0] for batch in episodes]
            zero = sum(float((t == 0).float().mean()) for t in taken) / len(taken)
            bent.append(
                {
                    "at": name,
                    "inner rate": lr,
                    "cosine": _cosine(taken, plain),
                    "length": _ratio(taken, plain),
                    "zero entries %": round(100 * zero, 1),
                }
            )
    pd.DataFrame(rows).to_csv(file, index=False)
    pd.DataFrame(bent).to_csv(file.with_stem(f"{file.stem}-reptile"), index=False)
    return f"{pd.DataFrame(rows).to_string(index=False)}\n\n{pd.DataFrame(bent).to_string(index=False)}"


def _learned(folder: Path) -> dict[str, Tensor]:
    """The prompts that multi-task learning and MAML ended with under the first seed, if there are any."""
    if not (folder / "study.db").exists():
        return {}
    from softstart.study.plan.inputs import Inputs
    from softstart.study.plan.plan import make_plan
    from softstart.study.results.folder import prompt_path
    from softstart.study.results.stores import open_store

    with open_store(folder, readonly=True) as store:
        plan = make_plan(load_study(folder / "study.yaml"), Inputs.from_json(store.inputs()))
        done = store.metas()
    wanted = [n for n in plan.metas if n.method.name in ("multitask", "maml 1") and n.key in done]
    return {
        f"learned by {n.method.name}": SoftPrompt.load(prompt_path(folder, n.key)).tensor
        for n in wanted
        if n.seed == plan.studies[MAIN].meta_seeds[0]
    }


def _cosine(a: list[Tensor], b: list[Tensor]) -> float:
    values = [cosine_similarity(x.flatten(), y.flatten(), dim=0) for x, y in zip(a, b, strict=True)]
    return round(float(torch.stack(values).mean()), 5)


def _ratio(a: list[Tensor], b: list[Tensor]) -> float:
    values = [x.norm() / y.norm() for x, y in zip(a, b, strict=True)]
    return round(float(torch.stack(values).mean()), 4)
