"""What the Kubernetes API has of a run: its workflow, its pods, and what these left behind."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from oatflow.components.errors import ClusterError
from oatflow.components.jobs import run_in_cluster
from oatflow.components.jobs.run_in_cluster import find_last_line, find_run, has_schedule, read_last_words

from .recorded_runs import LOG_OF_TRAIN, recorded

RUN, WORKFLOW = "094c9697-ae5e-4f2c-8ef2-f2b8f1e0840b", "oatflow-alignment-jm52l"
PATH = re.compile(r"/(?:api/v1|apis/[^/]+/[^/]+)/namespaces/([^/]+)/([a-z]+)(?:/([^/]+)/log)?")


def recorded_pod(**status):
    """Return the pod of the step `train` of the run that was terminated, as Kubernetes had it."""
    pod = next(each for each in recorded("states-seen")
               if each["metadata"].get("labels", {}).get("pipeline/runid") == RUN)  # fmt: skip
    pod["metadata"]["uid"] = "1"
    pod["status"].update(status)
    return pod


class ApiServer(ThreadingHTTPServer):
    """Lists objects of some namespaces by label and name. Namespaces in `closed` are forbidden."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects, self.logs, self.closed, self.asked = {}, {}, set(), []
        self.kinds = {"pods", "workflows", "scheduledworkflows"}

    def put(self, namespace, kind, found):
        self.objects.setdefault((namespace, kind), []).append(found)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlsplit(self.path)
        namespace, kind, pod = PATH.fullmatch(url.path).groups()
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.server.asked.append((namespace, kind))
        if (namespace, kind) in self.server.closed:
            return self._answer(403, {"message": f"{kind} is forbidden"})
        if kind not in self.server.kinds:
            return self._answer(404, {"message": "the server could not find the requested resource"})
        if pod is not None:
            assert query["container"] == "main"
            return self._answer(200, self.server.logs.get(pod, ""))
        items = [each for each in self.server.objects.get((namespace, kind), []) if fits(each, query)]
        return self._answer(200, {"kind": "List", "items": items, "metadata": {"resourceVersion": "1"}})

    def _answer(self, status, body):
        text = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


def fits(found, query):
    name, value = query.get("labelSelector", "=").split("=", 1)
    wanted = query.get("fieldSelector", "").removeprefix("metadata.name=")
    labels = found["metadata"].get("labels", {})
    return (not name or labels.get(name) == value) and wanted in ("", found["metadata"]["name"])


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve an API that KUBECONFIG names, with `mine` as the namespace of its context."""
    served = ApiServer()
    threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
    file = tmp_path / "kubeconfig"
    address = f"http://127.0.0.1:{served.server_port}"
    context = {"cluster": "a", "user": "b", "namespace": "mine"}
    file.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "b", "user": {}}],
        "clusters": [{"name": "a", "cluster": {"server": address}}], "contexts": [{"name": "c", "context": context}],
    }))  # fmt: skip
    for name in ("KUBERNETES_SERVICE_HOST", "POD_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.setattr(run_in_cluster, "PATIENCE_SECONDS", 0.0)
    yield served
    served.shutdown()
    served.server_close()


def test_a_run_is_found_in_the_namespace_that_is_given(server):
    server.put("team-a", "pods", recorded_pod())
    server.put("team-a", "workflows", {"metadata": {"name": WORKFLOW}})
    found = find_run("team-a", RUN, WORKFLOW)
    assert (found.namespace, found.workflow, len(found.pods)) == ("team-a", True, 1)
    assert {namespace for namespace, _ in server.asked} == {"team-a"}


def test_without_a_namespace_that_of_the_context_is_searched_and_then_kubeflow(server):
    server.put("kubeflow", "workflows", {"metadata": {"name": WORKFLOW}})
    assert find_run("", RUN, WORKFLOW).namespace == "kubeflow"
    server.put("mine", "workflows", {"metadata": {"name": WORKFLOW}})
    assert find_run("", RUN, WORKFLOW).namespace == "mine"


def test_a_run_that_is_nowhere_has_no_workflow(server):
    assert find_run("team-a", RUN, WORKFLOW).workflow is False
    assert find_run("", RUN, WORKFLOW).workflow is False


@pytest.mark.parametrize("forbidden", [True, False])
def test_whether_there_is_a_workflow_is_unknown_where_it_may_not_be_read(server, forbidden):
    if forbidden:
        server.closed.add(("team-a", "workflows"))
    else:
        server.kinds.remove("workflows")
    server.put("team-a", "pods", recorded_pod())
    found = find_run("team-a", RUN, WORKFLOW)
    assert found.workflow is None and found.is_here


def test_a_run_without_a_workflow_yet_is_not_looked_for_by_name(server):
    assert find_run("team-a", RUN, "").workflow is None


def test_pods_that_may_not_be_listed_are_said(server):
    server.closed.add(("team-a", "pods"))
    with pytest.raises(ClusterError, match="pods is forbidden"):
        find_run("team-a", RUN, WORKFLOW)


def test_the_usual_namespace_may_be_closed(server):
    server.closed.add(("kubeflow", "pods"))
    assert find_run("", RUN, WORKFLOW).namespace == "mine"


def test_the_job_of_a_run_may_belong_to_its_pod_or_to_its_workflow(server):
    server.kinds.add("pytorchjobs")
    server.put("team-a", "pods", recorded_pod())
    suspended = {"conditions": [{"type": "Suspended", "status": "True", "reason": "Queued", "message": "no quota"}]}
    for name, owner in (("by-pod", "1"), ("by-workflow", "2"), ("of-another", "3")):
        labels = {"app.kubernetes.io/name": "oatflow,app.kubernetes.io/component=trainer"}
        metadata = {"name": name, "labels": labels, "ownerReferences": [{"uid": owner}]}
        server.put("team-a", "pytorchjobs", {"metadata": metadata, "spec": {}, "status": suspended})
    server.objects["team-a", "pods"][0]["metadata"]["ownerReferences"] = [{"kind": "Workflow", "uid": "2"}]
    said = " ".join(find_run("team-a", RUN, WORKFLOW).troubles)
    assert "by-pod" in said and "by-workflow" in said and "of-another" not in said


def test_a_schedule_is_known_by_its_uid(server):
    server.put("kubeflow", "scheduledworkflows", recorded("scheduled-workflows")["items"][0])
    assert has_schedule("kubeflow", "c06ac7db-dec5-416f-af6d-c61d95c731f4") and not has_schedule("kubeflow", "other")


def ended(**how):
    return [{"name": "wait", "state": {"terminated": {"message": "no", "exitCode": 0}}},
            {"name": "main", "state": {"terminated": {"exitCode": 1, "reason": "Error", **how}}}]  # fmt: skip


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"message": "raise train_pod_memory\n"}, "raise train_pod_memory"),
        ({"reason": "OOMKilled", "exitCode": 137}, "OOMKilled (exit code 137)"),
        ({}, "the training ran out of memory on worker 0 (OOMKilled); raise train_pod_memory, which is 3Gi"),
    ],
)
def test_the_last_words_of_a_pod(server, how, said):
    pod = recorded_pod(containerStatuses=ended(**how))
    server.put("team-a", "pods", pod)
    server.logs[pod["metadata"]["name"]] = LOG_OF_TRAIN
    assert read_last_words(find_run("team-a", RUN, WORKFLOW), pod["metadata"]["name"]) == said


def test_a_pod_that_is_gone_has_no_last_words(server):
    assert read_last_words(find_run("team-a", RUN, WORKFLOW), "pod") is None


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("oatflow: first\noatflow: second\nI1130 19:07:09.9 2 x.go:1] y", "second"),
        ("KeyError: 'x'\nF1130 19:07:09.9 22 main.go:58] failed\nError: exit status 1\n", "KeyError: 'x'"),
        ('{"at": 1.0, "event": "failed"}\nI1130 19:07:09.9 2 x.go:1] y', None),
        ("", None),
    ],
)
def test_the_last_line_of_a_log_is_ours_where_there_is_one(log, line):
    assert find_last_line(log.splitlines()) == line
