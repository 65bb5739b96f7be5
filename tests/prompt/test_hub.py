"""Push to and load from a hub: a local stand-in of its HTTP interface, never the network."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from softstart import Backbone
from softstart.errors import SoftstartError
from softstart.prompt import SoftPrompt

COMMIT = hashlib.sha1(b"softstart").hexdigest()


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of the hub to create a repository, commit small files and fetch them."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    asked: list[str] = []  # noqa: RUF012

    def log_message(self, *args):
        pass

    def reply(self, body, status=200, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self):
        self.asked.append(self.path)
        data = self.body()
        if self.path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != "Bearer right":
            return self.reply({"error": "Invalid username or password."}, 401, X_Error_Message="no")
        root = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            assert json.loads(data)["name"] == "start"
            return self.reply({"url": f"{root}/me/start", "name": "me/start", "id": "me/start"})
        if "/preupload/" in self.path:
            listed = json.loads(data)["files"]
            return self.reply(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in listed
                    ]
                }
            )
        if "/commit/" in self.path:
            for line in data.splitlines():
                value = json.loads(line)
                if value["key"] == "file":
                    self.files[value["value"]["path"]] = base64.b64decode(value["value"]["content"])
            return self.reply({
                "commitUrl": f"{root}/me/start/commit/{COMMIT}", "commitOid": COMMIT, "success": True,
                "pullRequestUrl": None,
            })  # fmt: skip
        return self.reply({}, 404)

    def do_GET(self):
        self.asked.append(self.path)
        if self.path.startswith("/api/models/me/start"):
            if "/revision/" in self.path and COMMIT not in self.path and "/main" not in self.path:
                return self.reply({"error": "Revision Not Found"}, 404, X_Error_Code="RevisionNotFound")
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.files.items()
            ]
            if "/tree/" in self.path:
                return self.reply(tree)
            siblings = [{"rfilename": name} for name in self.files]
            return self.reply({"id": "me/start", "sha": COMMIT, "siblings": siblings})
        name = self.path.rsplit("/", 1)[-1]
        if "/resolve/" in self.path and name in self.files:
            tag = hashlib.sha1(self.files[name]).hexdigest()
            return self.reply(self.files[name], ETag=f'"{tag}"', X_Repo_Commit=COMMIT)
        return self.reply({"error": "not here"}, 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET


@pytest.fixture(scope="module")
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def python(code, hub, home, token="right"):
    """Run code in a process whose hub is the stand-in: huggingface_hub reads its address when imported."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
        env={
            **os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_TOKEN": token, "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*", "no_proxy": "*", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        },
    )  # fmt: skip


PUSH = """
import torch
from softstart import SoftPrompt
info = {"method": "maml", "algorithm": "maml", "setting": "cls2cls", "source": ["anli", "glue-rte"],
        "inner_lr": 3.0, "license": "apache-2.0",
        "scores": [{"task": "tab_fact", "metric": "ACC", "score": 61.25, "low": 55.0, "high": 66.1}]}
tensor, backbone = torch.arange(6.0).view(2, 3), "google/t5-large-lm-adapt"
prompt = SoftPrompt(tensor, backbone, "abc", "prefix", info, "f00d", "tok")
print(prompt.push_to_hub("me/start"))
"""

FETCH = """
import sys, torch
from softstart import SoftPrompt
from softstart.errors import SoftstartError
for revision in (None, "{commit}"):
    prompt = SoftPrompt.from_pretrained("me/start", revision=revision)
    assert torch.equal(prompt.tensor, torch.arange(6.0).view(2, 3)), prompt
    assert (prompt.backbone, prompt.revision, prompt.info["setting"]) == (
        "google/t5-large-lm-adapt", "f00d", "cls2cls")
for name, revision in (("me/start", "missing"), ("me/other", None), ("no name/it", None)):
    try:
        SoftPrompt.from_pretrained(name, revision=revision)
    except SoftstartError as problem:
        assert "cannot be loaded from the hub" in str(problem) and "\\n" not in str(problem), problem
    else:
        raise AssertionError(name)
"""


def test_a_start_goes_to_the_hub_and_comes_back(hub, tmp_path):
    done = python(PUSH, hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub}/me/start/commit/{COMMIT}"
    assert set(Hub.files) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    card = Hub.files["README.md"].decode()
    for fact in (
        'base_model: "google/t5-large-lm-adapt"', 'license: "apache-2.0"', "| Setting | cls2cls |",
        "| Source tasks | anli, glue-rte |", "| Backbone revision | f00d |", "| `inner_lr` | 3.0 |",
        "| tab_fact | ACC | 61.2 | 55.0 to 66.1 |", "| Algorithm | maml |", "2 vectors of width 3",
    ):  # fmt: skip
        assert fact in card, card
    assert json.loads(Hub.files["adapter_config.json"])["revision"] == "f00d"
    back = python(FETCH.replace("{commit}", COMMIT), hub, tmp_path)
    assert back.returncode == 0, back.stderr


def test_a_wrong_token_is_told_in_one_line(hub, tmp_path):
    code = PUSH.replace("print(prompt.push_to_hub(\"me/start\"))", (
        "from softstart.errors import SoftstartError\n"
        "try:\n    prompt.push_to_hub('me/start')\n"
        "except SoftstartError as problem:\n    print(problem)"
    ))  # fmt: skip
    done = python(code, hub, tmp_path, token="wrong")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.strip().splitlines()
    assert line.startswith("prompt 'me/start' cannot be written on the hub (")


def test_a_card_without_scores_says_so():
    card = SoftPrompt(torch.ones(2, 3), peft_task="CAUSAL_LM").model_card()
    assert "No scores were recorded" in card
    assert "AutoModelForCausalLM" in card
    assert 'license: "other"' in card


@pytest.mark.parametrize("name", ["./start", "a/b/c", "start", "here/start"])
def test_a_path_is_not_looked_for_on_the_hub(name, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    with pytest.raises(SoftstartError, match=f"{name}: no such file or folder with a prompt"):
        SoftPrompt.from_pretrained(name)
    if "/" in name:
        with pytest.raises(SoftstartError, match=f"{name}: no such folder for a backbone"):
            Backbone.from_pretrained(name)
