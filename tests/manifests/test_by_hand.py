"""The doctor by hand, as the README has it: its commands, run with the real kubectl against a server with one job."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from .conftest import MANIFESTS

pytestmark = pytest.mark.slow

BLOCK = re.search(r"^for _ in \$\(seq .*?(?=^```)", (MANIFESTS / "README.md").read_text(), re.MULTILINE | re.DOTALL)[0]
JOB = "oatflow-doctor"
LOGS = {"Complete": "ok    S3: one wins\n", "Failed": "FAIL  S3: 3 of 8 racing writers won\n"}
VERBS = ["create", "delete", "get", "list", "watch"]


def resources(group, name, kind):
    resource = {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": VERBS}
    return {"kind": "APIResourceList", "groupVersion": group, "resources": [resource]}


DISCOVERY = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": resources("v1", "pods", "Pod"),
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
        {"name": "batch", "versions": [{"groupVersion": "batch/v1", "version": "v1"}],
         "preferredVersion": {"groupVersion": "batch/v1", "version": "v1"}},
    ]},
    "/apis/batch/v1": resources("batch/v1", "jobs", "Job"),
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """`server.ends`: how the job ends, so many seconds after the server began to run."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def do_GET(self):
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        if url.path in DISCOVERY:
            self.reply(DISCOVERY[url.path])
        elif "watch" in query:
            self.watch(from_the_beginning="sendInitialEvents" in query)
        elif url.path.endswith(f"/jobs/{JOB}"):
            self.reply(self.job())
        elif url.path.endswith("/jobs"):
            listed = {"kind": "JobList", "apiVersion": "batch/v1", "metadata": {"resourceVersion": "5"}}
            self.reply({**listed, "items": [self.job()]})
        elif url.path.endswith("/log"):
            self.reply(LOGS[self.server.ends], "text/plain")
        elif url.path.endswith(f"/pods/{JOB}-x7k2p"):
            self.reply(self.pod())
        elif url.path.endswith("/pods"):
            listed = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}}
            self.reply({**listed, "items": [self.pod()]})
        else:
            self.send_error(404)

    def job(self):
        has_ended = time.monotonic() >= self.server.at
        return {
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": JOB, "namespace": "kubeflow", "uid": "u", "resourceVersion": "5"},
            "spec": {"selector": {"matchLabels": {"controller-uid": "u"}}, "template": {"spec": {"containers": []}}},
            "status": {"conditions": [{"type": self.server.ends, "status": "True"}] if has_ended else []},
        }  # fmt: skip

    def pod(self):
        metadata = {"name": f"{JOB}-x7k2p", "namespace": "kubeflow", "creationTimestamp": "2026-01-01T00:00:00Z"}
        spec = {"containers": [{"name": "doctor", "image": "oatflow-control:1"}]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def reply(self, body, kind="application/json"):
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def watch(self, from_the_beginning):
        """Send each change; before that, where it is asked for, the job as it is and the mark that this was all."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        sent = None
        if from_the_beginning:
            sent = self.job()
            end = {"resourceVersion": "5", "annotations": {"k8s.io/initial-events-end": "true"}}
            self.event("ADDED", sent)
            self.event("BOOKMARK", {"apiVersion": "batch/v1", "kind": "Job", "metadata": end})
        try:
            while not self.server.closing.wait(0.05):
                if self.job() != sent:
                    sent = self.job()
                    self.event("MODIFIED", sent)
        except OSError:
            pass
        self.close_connection = True

    def event(self, kind, found):
        self.wfile.write(json.dumps({"type": kind, "object": found}).encode() + b"\n")
        self.wfile.flush()


@pytest.fixture
def by_hand(tmp_path):
    """Run the README's commands while the job ends so, after so many seconds."""
    kubectl = Path(sys.executable).parent / "kubectl"
    found = str(kubectl) if kubectl.exists() else shutil.which("kubectl")
    assert found, "images/cpu/kustomize.sh installs kubectl"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.closing = True, threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    config = tmp_path / "kubeconfig"
    config.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "a", "user": {"token": "t"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    }))  # fmt: skip

    def run(ends, seconds):
        server.ends, server.at = ends, time.monotonic() + seconds
        path = f"{Path(found).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, "KUBECONFIG": str(config), "NS": "kubeflow", "HOME": str(tmp_path)}
        return subprocess.run(["bash", "-c", BLOCK], env=environment, capture_output=True, text=True, timeout=60)

    yield run
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("seconds", [0, 7])
@pytest.mark.parametrize("ends", LOGS)
def test_the_verdict_is_shown_however_and_whenever_the_job_ends(by_hand, ends, seconds):
    done = by_hand(ends, seconds)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"job.batch/{JOB} condition met\n{LOGS[ends]}"
