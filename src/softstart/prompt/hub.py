"""Download prompts from the Hugging Face hub and upload them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from softstart.errors import SoftstartError
from softstart.prompt.formats import CONFIG_FILE, PICKLED_FILE, WEIGHTS_FILE
from softstart.storage.files import only_a_path


def download(repo_id: str, revision: str | None) -> Path:
    """A local folder with the prompt of a repository; only its adapter files are downloaded.

    Raises:
        SoftstartError: no such repository or revision, or the hub cannot be reached.
    """
    if "/" not in repo_id or only_a_path(repo_id):
        raise SoftstartError(
            "no such file or folder with a prompt", where=repo_id,
            fix="Give a prompt file, a folder, or a hub id (owner/name).",
        )  # fmt: skip
    from huggingface_hub import snapshot_download

    with _explained(repo_id, "is no file or folder here and cannot be loaded from the hub"):
        patterns = [WEIGHTS_FILE, PICKLED_FILE, CONFIG_FILE]
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=patterns))


def upload(save: Callable[[Path], None], repo_id: str, *, private: bool, message: str) -> str:
    """Upload the folder that ``save`` writes, to a new repository if there is none; the commit's address."""
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        with _explained(repo_id, "cannot be written on the hub"):
            api = HfApi()
            api.create_repo(repo_id, private=private, exist_ok=True)
            done = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
            return str(done.commit_url)


@contextmanager
def _explained(repo_id: str, what: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as problem:
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise SoftstartError(
            f"prompt '{repo_id}' {what} ({reason})",
            fix="Give a file, a folder or a hub id (owner/name); a private one needs `hf auth login`.",
        ) from problem
