"""From what a user calls a backbone to files that transformers can load."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from softstart.backbone.sources.converted import convert, is_whole, stored_dtype, to_stderr
from softstart.backbone.sources.gguf_files import SUFFIX, read_header
from softstart.backbone.sources.named import NAMED, fetch, parse, state_of
from softstart.backbone.sources.wheels import digest_of_file
from softstart.errors import SoftstartError, did_you_mean
from softstart.storage.cache import cache_folder, exclusive
from softstart.storage.files import only_a_path

_HUB_GGUF = re.compile(r"([\w.-]+/[\w.-]+)[:/](.+\.gguf)")


@dataclass(frozen=True)
class Located:
    """A backbone's files.

    Args:
        name: what the backbone is called from here on; loads the same weights again.
        path: what transformers takes: a folder or a hub id.
        revision: of the hub, where ``path`` is a hub id.
        commit: the hub's commit that the files are of, where it is known.
        weights: which weights these are, in words; "" for the files as they are.
        gguf: a GGUF file to be read as it is, for want of a cache.
    """

    name: str
    path: str
    revision: str | None = None
    commit: str | None = None
    weights: str = ""
    gguf: Path | None = None


def locate(
    name: str, *, revision: str | None = None, dtype: str = "float32", weights: bool = True
) -> Located:
    """Find a backbone's files; named ones and GGUF files are fetched and converted when first asked for.

    Args:
        name: a name of ``NAMED``, also as ``NAME:VARIANT``; the path of a GGUF file; ``OWNER/NAME:FILE.gguf``
            or ``OWNER/NAME/FILE.gguf`` on the hub; anything else is left to transformers. A name goes before
            a folder that is called the same: write ``./NAME`` for the folder.
        revision: of the hub.
        dtype: what it will be loaded in.
        weights: False: only what is on this machine already.

    Raises:
        SoftstartError: it cannot be had, or it is a GGUF file that cannot be a backbone.
    """
    if known := parse(name):
        named, variant = known
        there = state_of(named, variant, revision, dtype)
        if not weights and there is None:
            raise SoftstartError(
                f"backbone '{name}' is not on this machine", fix=f"Run softstart backbone fetch {name}"
            )
        if weights:
            there = fetch(named, variant, revision=revision, dtype=dtype)
        assert there is not None
        return Located(there.name, str(there.folder), None, there.revision, there.weights)
    if name.endswith(SUFFIX):
        if Path(name).exists():
            return _gguf(name, Path(name), dtype)
        if on_hub := _HUB_GGUF.fullmatch(name):
            file, commit = _from_hub(name, on_hub[1], on_hub[2], revision)
            return _gguf(name, file, dtype, commit)
        raise SoftstartError("no such GGUF file", where=name, fix="Check the path.")
    if only_a_path(name) and not Path(name).exists():
        raise SoftstartError("no such folder for a backbone", where=name, fix="Check the path.")
    return Located(name, name, revision)


def names_near(name: str) -> str:
    """A sentence with the known names nearest to one that nothing was found for; "" if none is near."""
    return did_you_mean(name, NAMED) if "/" not in name else ""


def _gguf(name: str, file: Path, dtype: str, commit: str | None = None) -> Located:
    """A GGUF file, converted once into the cache if there is one."""
    header = read_header(file)
    digest = digest_of_file(file)
    weights = f"{file.name} ({header.precision or 'a'} GGUF, sha256 {digest[:12]})"
    cache = cache_folder()
    if cache is None:
        return Located(name, str(file.parent), None, commit, weights, file)
    folder, stored = cache / "backbones" / f"gguf-{digest[:16]}", stored_dtype(dtype)
    if not is_whole(folder / stored):
        with exclusive(folder, lambda: to_stderr(f"{name}: waiting for another process that reads it")):
            if not is_whole(folder / stored):
                convert(file, folder / stored, stored, to_stderr, name)
    return Located(name, str(folder / stored), None, commit, weights)


def _from_hub(name: str, repository: str, file: str, revision: str | None) -> tuple[Path, str]:
    """A GGUF file of the hub and the commit it is of."""
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(repository, file, revision=revision)
    except Exception as problem:  # its HTTP client's errors have no common base that is public
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise SoftstartError(
            f"backbone '{name}' cannot be loaded ({reason})",
            fix="Give OWNER/NAME:FILE.gguf as the hub shows it (needs a network once).",
        ) from problem
    commit = re.search(r"snapshots[/\\]([0-9a-f]{40})", path)
    return Path(path), commit[1] if commit else ""
