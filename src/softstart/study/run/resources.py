"""The backbones and the tasks that a declared study needs, loaded on first use."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from softstart.backbone import Backbone, load_backbone
from softstart.backbone.flops import Flops
from softstart.errors import SoftstartError
from softstart.gym.setting import Setting
from softstart.gym.sources import open_gym
from softstart.gym.task import Gym, Task
from softstart.prompt import made_on
from softstart.study.declare.spec import Study, resolve_methods
from softstart.study.declare.task_lists import resolve_setting, test_rows
from softstart.study.plan.inputs import FIRST, BackboneFacts, Inputs, Part, facts_of
from softstart.study.plan.plan import RunNode
from softstart.training.budgets import HVP_COST
from softstart.training.encoding import EncodedTask, TextFormat, encode_task
from softstart.training.starts import prompt_rows


class Resources:
    """The backbones and the tasks of every variant of a study; each is loaded once, on first use.

    Args:
        studies: every variant by name.
        device: where to compute; by default the GPU where there is one.
        expected: the backbones and tasks that the study began with; any others are refused.
        fetch: returns a task by its digest; by default tasks are read from the gym.
        load: loads a backbone.
        processes: how many workers share the memory for texts that are read once.
    """

    def __init__(
        self,
        studies: Mapping[str, Study],
        device: str | None = None,
        expected: Inputs | None = None,
        fetch: Callable[[str], Task] | None = None,
        load: Callable[..., Backbone] = load_backbone,
        processes: int = 1,
    ) -> None:
        self.studies, self.device, self.expected, self.fetch = studies, device, expected, fetch
        self._load_backbone, self.processes = load, processes
        parts = expected.parts if expected else ()
        self._digests = {
            (p.variant, name, False): facts.digest for p in parts for name, facts in p.tasks.items()
        }
        self._digests |= {
            (p.variant, name, True): digest
            for p in parts
            for name, digest in zip(p.source, p.source_digests, strict=True)
        }
        self._backbones: dict[tuple[str, str | None, str], dict[tuple[str, str], Backbone]] = {}
        self._others: dict[tuple[str, str], Backbone] = {}
        self._gyms: dict[tuple[object, ...], Gym] = {}
        self._tasks: dict[tuple[object, ...], Task] = {}
        self._encoded: dict[tuple[str, TextFormat, str, str | None], EncodedTask] = {}

    def backbone(self, variant: str, other: str | None = None) -> Backbone:
        """The backbone with the variant's place and kind of prompts, or the one that fine-tuning begins with.

        Raises:
            SoftstartError: it cannot be loaded.
        """
        study = self.studies[variant]
        if other:
            return self._other(other, variant)
        prompts = (study.prompt.placement, study.prompt.kind)
        placed = self._backbones.setdefault((study.backbone, study.revision, str(study.loading)), {})
        if prompts not in placed:
            if placed:
                twin = copy.copy(next(iter(placed.values())))
                twin.prompt_kind = "embeddings"  # which has any place
                twin.placement, twin.prompt_kind = prompts
                placed[prompts] = twin
            else:
                placed[prompts] = self._load_backbone(
                    study.backbone,
                    device=None if study.device_map else self.device,
                    revision=study.revision,
                    placement=study.prompt.placement,
                    prompt_kind=study.prompt.kind,
                    **study.loading,
                )
                placed[prompts].keep_texts(study.text_cache, self.processes)
                if self.expected and placed[prompts].digest != self.expected.of(variant).digest:
                    raise SoftstartError(
                        f"backbone '{study.backbone}' has other weights here than where the study began",
                        fix="Use the same files on all machines (set revision).",
                    )
        return placed[prompts]

    def _other(self, name: str, variant: str) -> Backbone:
        """Other weights, for fine-tuning; their tokenizer must be the same."""
        study = self.studies[variant]
        key = (name, str(study.loading))
        if key not in self._others:
            main = self.backbone(variant)
            other = self._others[key] = self._load_backbone(name, device=self.device, **study.loading)
            # A backbone of a plan may have no tokenizer.
            known = None not in (main.tokenizer, other.tokenizer)
            if known and other.tokenizer_digest != main.tokenizer_digest:
                raise SoftstartError(
                    f"'{name}' has another tokenizer than '{study.backbone}'",
                    fix="Set finetuning_backbone to weights of the same family.",
                )
            if self.expected and self.expected.tuned.get(name) != other.digest:
                raise SoftstartError(f"backbone '{name}' has other weights here than where the study began")
        return self._others[key]

    def backbones(self) -> list[Backbone]:
        """Every backbone loaded so far."""
        return [*(next(iter(placed.values())) for placed in self._backbones.values()), *self._others.values()]

    def gym(self, variant: str, *, source: bool = False) -> Gym:
        """The gym of the variant's target tasks, or of its source tasks.

        Raises:
            SoftstartError: it cannot be opened.
        """
        study = self.studies[variant]
        shots = study.source_shots or study.shots if source else study.shots
        published = study.gym_reading == "published"
        key = (study.gym, shots, study.gym_version, published)
        if key not in self._gyms:
            self._gyms[key] = open_gym(
                study.gym, shots=shots, version=study.gym_version, as_published=published
            )
        return self._gyms[key]

    def task(self, variant: str, name: str, *, source: bool = False) -> Task:
        """A task as the variant uses it, as a target or as a source.

        Raises:
            SoftstartError: there is no such task, its files are broken, or it is not the expected one.
        """
        study = self.studies[variant]
        rows = test_rows(study, name)
        shots = study.source_shots or study.shots if source else study.shots
        key = (study.gym, shots, study.gym_reading, rows, name)
        if key not in self._tasks:
            self._tasks[key] = self._load(variant, name, source)
        return self._tasks[key]

    def _load(self, variant: str, name: str, source: bool) -> Task:
        digest = self._digests.get((variant, name, source))
        if digest is not None and self.fetch is not None:
            return self.fetch(digest)
        gym = self.gym(variant, source=source)
        task = gym.load(name)
        task = replace(task, test=task.test[: test_rows(self.studies[variant], name)])
        if digest not in (None, task.digest):
            raise SoftstartError(
                f"task '{name}' has changed since the study began",
                where=gym.name,
                fix="Do not change the data while a study runs; run it again to use the new data.",
            )
        return task

    def tasks(self) -> dict[str, Task]:
        """Every task loaded so far, by digest."""
        return {task.digest: task for task in self._tasks.values()}

    def encoded(self, variant: str, name: str, *, source: bool = False) -> EncodedTask:
        """A task as token rows."""
        task, text = self.task(variant, name, source=source), self.studies[variant].text
        study = self.studies[variant]
        key = (task.digest, text, study.backbone, study.revision)
        if key not in self._encoded:
            self._encoded[key] = encode_task(task, self.backbone(variant), text)
        return self._encoded[key]

    def prompt_rows(self, run: RunNode) -> int:
        """P of a run's prompt, demonstrations included."""
        spec = run.method.begins(self.studies[run.variant].prompt)
        if spec.demonstrations != "all":
            return spec.length + (spec.demonstrations or 0)
        return prompt_rows(self.backbone(run.variant), spec, self.encoded(run.variant, run.task), run.sample)

    def inputs(self) -> Inputs:
        """What the numbers of the study depend on besides its declaration.

        Raises:
            SoftstartError: an unknown task or sample, a broken file, a backbone that cannot be loaded.
        """
        facts = {
            variant: BackboneFacts(
                backbone.digest, backbone.kind.width, made_on(backbone), backbone.kind.facts() or None
            )
            for variant in self.studies
            for backbone in [self.backbone(variant)]
        }
        main = facts[next(iter(facts))]
        parts = tuple(
            self._part(variant, resolve_setting(study, spec, self.gym(variant)))
            for variant, study in self.studies.items()
            for spec in study.every_setting
        )
        tuned = {
            other: self.backbone(variant, other).digest
            for variant, study in self.studies.items()
            for method in resolve_methods(study)
            if method.unpacked and (other := method.unpacked.other_weights)
        }
        others = {variant: made for variant, made in facts.items() if made != main}
        return Inputs(
            main.digest, main.width, parts, main.made_on, tuned=tuned, others=others, kind=main.kind
        )

    def _part(self, variant: str, setting: Setting) -> Part:
        study = self.studies[variant]
        source = [
            self._checked(variant, name, study.source_samples or study.samples, source=True)
            for name in setting.source
        ]
        target = [self._checked(variant, name, study.samples) for name in setting.target]
        samples = study.source_samples or study.samples
        rows = [r for task in source for s in samples for r in (*task.samples[s].train, *task.samples[s].dev)]
        return Part(
            variant,
            setting.name,
            setting.source,
            setting.target,
            {
                **{task.name: facts_of(task) for task in source},
                **{task.name: facts_of(task, target=True) for task in target},
            },
            tuple(task.digest for task in source),
            sum(bool(row.outputs) for row in rows),
            self._hvp_cost(variant, setting.source),
            None if self.gym(variant).version == FIRST else self.gym(variant).version,
        )

    def _hvp_cost(self, variant: str, source: Sequence[str]) -> float:
        """A Hessian-vector product in gradients; by the lengths of the source rows if a budget needs it."""
        study = self.studies[variant]
        if all(getattr(method.meta, "gradients", None) is None for method in resolve_methods(study)):
            return HVP_COST
        backbone, length = self.backbone(variant), study.prompt.length
        total = Flops()
        for name in source:
            task = self.encoded(variant, name, source=True)
            for sample in study.source_samples or study.samples:
                for rows in (task.train[sample], task.dev[sample]):
                    for given, answers in zip(rows.inputs, rows.outputs, strict=True):
                        output = len(answers[0]) if answers else 0
                        total += backbone.prompted_flops(length, len(given), output)
        return total.hvp / total.gradient if total.gradient else HVP_COST

    def _checked(self, variant: str, name: str, samples: Sequence[int], *, source: bool = False) -> Task:
        task = self.task(variant, name, source=source)
        if missing := sorted(set(samples) - set(task.samples)):
            raise SoftstartError(
                f"task '{name}' has no sample {missing[0]}",
                where=self.gym(variant, source=source).name,
                fix=f"It has {', '.join(map(str, sorted(task.samples)))}: set samples.",
            )
        return task
