"""`oatflow doctor --host`: every row of its table, each thing that can be broken, and what may not be asked."""

import base64
from pathlib import Path

import pytest
import yaml
from oatflow.components.jobs.registry import KINDS
from oatflow.pipelines.cli import main
from oatflow.pipelines.cluster import examination as cluster_doctor
from oatflow.pipelines.cluster import probes
from oatflow.pipelines.cluster.checks import needed_rights, service_of, version_of

from .kfp_api_double import kfp_api
from .kubernetes_reading_double import PROMISE, STEPS, TRAINER, cluster_in_order, deployment, kubernetes_api, node

ROOT = Path(__file__).parents[2]
HERE = "/api/v1/namespaces/kubeflow"
SECRET = f"{HERE}/secrets/mlpipeline-minio-artifact"
CONFIG = f"{HERE}/configmaps/oatflow-config"
SEAWEEDFS = "/apis/apps/v1/namespaces/kubeflow/deployments/seaweedfs"
OPERATOR = "/apis/apps/v1/namespaces/kubeflow/deployments/training-operator"
MANAGER = "/apis/apps/v1/namespaces/kubeflow-system/deployments/kubeflow-trainer-controller-manager"
IMAGES = [f"image {name}" for name in ("control", "sampler", "oracle", "trainer")]
ROWS = [
    "Kubeflow Pipelines", "Kubernetes", "namespace", "PyTorchJob", "TrainJob", "manifests", "account",
    "training account", "store's keys", "other keys", "ledger", "store's service", "quota", "GPUs", *IMAGES, "store",
]  # fmt: skip


@pytest.fixture
def kfp():
    with kfp_api(multi_user=False) as served:
        yield served


@pytest.fixture
def api(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(cluster_doctor, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(probes, "POLL_SECONDS", 0.01)
    with kubernetes_api() as served:
        monkeypatch.setenv("KUBECONFIG", str(served.write_kubeconfig(tmp_path / "kubeconfig")))
        yield served


class Table:
    """What the command printed: marks, findings and advice by row."""

    def __init__(self, code, text):
        self.code, self.text = code, text
        *lines, self.verdict = text.splitlines()
        self.rows, row = {}, ["", "", ""]
        for line in lines:
            if line.startswith("      -> "):
                row[2] = line.removeprefix("      -> ")
            else:
                name, _, found = line[6:].partition(": ")
                row = self.rows[name] = [line[:4].strip(), found, ""]

    def marked(self, mark):
        return [name for name, row in self.rows.items() if row[0] == mark]


@pytest.fixture
def doctor(kfp, api, capsys):
    def run(*flags, host=kfp.endpoint):
        with pytest.raises(SystemExit) as stop:
            main(["doctor", "--host", host, *flags])
        return Table(stop.value.code, capsys.readouterr().out)

    return run


def test_a_cluster_in_order_passes_every_check_and_nothing_is_left_behind(doctor, kfp, api):
    table = doctor()
    assert table.code == 0 and table.verdict == "all is well"
    assert table.marked("ok") == list(table.rows) == ROWS
    assert table.rows["Kubeflow Pipelines"][1] == f"2.17.0 at {kfp.endpoint}, one namespace for all"
    assert table.rows["Kubernetes"][1] == f"v1.34.4 at {api.host}"
    assert "4 of nvidia.com/gpu on 1 node, tainted nvidia.com/gpu=present:NoSchedule" in table.rows["GPUs"][1]
    assert table.rows["image sampler"][1] == "ghcr.io/oatflow/sampler:0.1.0 can be pulled and run"
    assert table.rows["store"][1] == PROMISE
    assert len(api.created) == 2 and api.jobs == {}


def test_no_key_is_ever_shown(doctor, api):
    api.objects[f"{HERE}/secrets/oatflow-keys"] = {"data": {"HF_TOKEN": base64.b64encode(b"hf_hidden").decode()}}
    table = doctor()
    assert "HF_TOKEN" in table.rows["other keys"][1]
    shown = [word for word in ("bWluaW8=", "minio\n", "aGlkZGVu", "hidden", "aGZfaGlkZGVu") if word in table.text]
    assert table.code == 0 and shown == []


def without(path):
    return lambda api: api.objects.pop(path)


def set_to(path, found):
    return lambda api: api.objects.update({path: found})


def not_served(*paths):
    return lambda api: [api.discovery.pop(path) for path in paths]


def quota(used, hard, resource="requests.cpu"):
    return {"status": {"hard": {resource: hard}, "used": {resource: used}}}


def taken(*right):
    return lambda api: api.rights.discard((STEPS, *right))


def waiting(reason, message=""):
    return {"waiting": {"reason": reason, "message": message}}


LEDGER = "s3://mlpipeline/private/kubeflow/oatflow?endpoint=http://seaweedfs.kubeflow:9000"
SAMPLER = "ghcr.io/oatflow/sampler:0.1.0"
BROKEN = {
    "kubernetes is old": (lambda api: setattr(api, "version", "v1.25.16"), "Kubernetes", "v1.25.16", "1.27"),
    "no namespace": (without(HERE), "namespace", "kubeflow is not there", "--namespace"),
    "no operator": (without(OPERATOR), "PyTorchJob", "no deployment training-operator", "training operator"),
    "an operator that is not ready": (
        set_to(OPERATOR, deployment("training-operator:v1.9.0", ready=0)), "PyTorchJob", "not ready",
        "kubectl describe deployment -n kubeflow training-operator",
    ),
    "an old trainer": (
        set_to(MANAGER, deployment("ghcr.io/kubeflow/trainer/trainer-controller-manager:v2.0.1")), "TrainJob",
        "v2.0.1", "2.2",
    ),
    "no JobSet": (not_served("/apis/jobset.x-k8s.io"), "TrainJob", "JobSet is not there", "install JobSet"),
    "no runtime": (
        without("/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/torch-distributed"), "TrainJob",
        "no ClusterTrainingRuntime torch-distributed", "train_runtime",
    ),
    "no overlay": (
        without("/apis/policy/v1/namespaces/kubeflow/poddisruptionbudgets/oatflow-trainer"), "manifests",
        "poddisruptionbudgets/oatflow-trainer", "kubectl apply -k",
    ),
    "no role": (taken("create", "pytorchjobs.kubeflow.org"), "account",
                "pipeline-runner may not create pytorchjobs.kubeflow.org", "oatflow-launcher"),
    "no logs": (taken("get", "pods/log"), "account", "pipeline-runner may not get pods/log", "oatflow-launcher"),
    "no such account": (without(f"{HERE}/serviceaccounts/{STEPS}"), "account", "no service account pipeline-runner",
                        "--service_account"),
    "a trainer that reads secrets": (
        lambda api: api.rights.add((TRAINER, "get", "secrets")), "training account", "may read secrets",
        "rolebindings",
    ),
    "no secret": (without(SECRET), "store's keys", "no secret mlpipeline-minio-artifact", "--s3_secret"),
    "a key is missing": (set_to(SECRET, {"data": {"accesskey": "eA==", "secretKey": "eA=="}}), "store's keys",
                         "secretkey is missing", "step 3"),
    "a key is empty": (set_to(SECRET, {"data": {"accesskey": "", "secretkey": "eA=="}}), "store's keys",
                       "accesskey is empty", "step 3"),
    "no config": (set_to(CONFIG, {"data": {"AWS_REGION": "us-east-1"}}), "ledger", "OATFLOW_LEDGER is not in",
                  "kubectl apply -k"),
    "no address": (set_to(CONFIG, {"data": {"OATFLOW_LEDGER": "mlpipeline/oatflow"}}), "ledger", "is no address",
                   "s3://bucket/prefix"),
    "the example's bucket": (set_to(CONFIG, {"data": {"OATFLOW_LEDGER": "s3://example-bucket/oatflow"}}), "ledger",
                             "is the example", "components/aws"),
    "another name of the store": (
        set_to(CONFIG, {"data": {"OATFLOW_LEDGER": LEDGER.replace("seaweedfs.", "minio-service.")}}),
        "store's service", "no service minio-service in namespace kubeflow", "kubectl get service -n kubeflow",
    ),
    "an unsafe store": (
        set_to(SEAWEEDFS, deployment("chrislusf/seaweedfs:4.00", container="seaweedfs")), "store's service", "4.00",
        "kubectl set image -n kubeflow deployment/seaweedfs seaweedfs=chrislusf/seaweedfs:4.48",
    ),
    "a store just too old": (set_to(SEAWEEDFS, deployment("registry.example:5000/seaweedfs:4.16")),
                             "store's service", "4.16", "kubectl set image"),
    "a store that is not ready": (set_to(SEAWEEDFS, deployment("chrislusf/seaweedfs:4.48", ready=0)),
                                  "store's service", "not ready", "kubectl describe"),
    "a quota is used up": (set_to(f"{HERE}/resourcequotas/team", quota("31500m", "31.5")), "quota",
                           "requests.cpu (31500m of 31.5, team)", "larger quota"),
    "no GPUs": (set_to("/api/v1/nodes/gpu-1", node()), "GPUs", "none of 2 nodes offers nvidia.com/gpu", "--cpu"),
    "GPUs that take no pods": (set_to("/api/v1/nodes/gpu-1", node("4", unschedulable=True)), "GPUs",
                               "no node with nvidia.com/gpu takes pods: gpu-1", "kubectl uncordon gpu-1"),
    "an image that is not there": (
        lambda api: api.images.update({SAMPLER: waiting("ImagePullBackOff", "Back-off pulling image: not found")}),
        "image sampler", f"{SAMPLER} cannot be pulled: ImagePullBackOff: Back-off pulling image: not found",
        "--image_pull_secret",
    ),
    "an image for other machines": (
        lambda api: api.images.update({SAMPLER: {"terminated": {
            "exitCode": 128, "reason": "StartError", "message": "exec format error",
        }}}), "image sampler", "does not run: StartError exec format error", "for these nodes",
    ),
    "a store that breaks its promise": (
        lambda api: setattr(api, "verdict", (1, [
            "FAIL  S3: create-only writes that race are not safe here: 3 of 8 won, not one",
            "      -> check the address", "1 check failed",
        ])), "store", "3 of 8 won", "check the address",
    ),
    "a doctor that is out of memory": (lambda api: setattr(api, "verdict", (137, [])), "store",
                                       "exit code 137, Error", "step 5"),
}  # fmt: skip


@pytest.mark.parametrize(
    "what",
    [name if number % 4 == 0 else pytest.param(name, marks=pytest.mark.slow) for number, name in enumerate(BROKEN)],
)
def test_a_single_fault_fails_its_own_row_with_what_to_do(doctor, api, what):
    breaks, row, found, advice = BROKEN[what]
    breaks(api)
    table = doctor()
    assert table.code == 1 and table.verdict == "1 check failed"
    assert table.marked("FAIL") == [row] and table.marked("ok") == [name for name in table.rows if name != row]
    assert found in table.rows[row][1] and advice in table.rows[row][2]
    assert api.jobs == {}


def test_the_manifests_page_shows_what_it_prints(doctor, api):
    BROKEN["no GPUs"][0](api)
    page = (Path(__file__).parents[2] / "manifests/README.md").read_text()
    (shown,) = (block for block in page.split("```\n") if block.startswith("ok    account"))
    assert set(shown.splitlines()) - {"..."} <= set(doctor().text.splitlines())


def test_an_old_kubeflow_fails_and_a_newer_one_is_pointed_out(doctor, kfp):
    kfp.version = "2.14.4"
    table = doctor("--no-pods")
    assert table.marked("FAIL") == ["Kubeflow Pipelines"] and "2.17" in table.rows["Kubeflow Pipelines"][2]
    kfp.version = "2.18.0"
    assert doctor("--no-pods").rows["Kubeflow Pipelines"][1].endswith("; oatflow is made for 2.17")
    kfp.version = "unknown"
    table = doctor("--no-pods")
    assert table.code == 1 and table.marked("?") == ["Kubeflow Pipelines"]


def test_a_kubeflow_with_a_login_is_asked_with_the_token(doctor, kfp, tmp_path, monkeypatch):
    kfp.token = "hidden-words"
    assert doctor("--no-pods").marked("FAIL") == ["Kubeflow Pipelines"]
    (tmp_path / "token").write_text("hidden-words")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    table = doctor("--no-pods")
    assert table.code == 0 and "hidden-words" not in table.text


def test_a_kubeflow_that_does_not_answer_hides_no_other_check(doctor):
    table = doctor(host="http://127.0.0.1:9")
    assert table.code == 1 and list(table.rows) == ROWS
    assert table.marked("FAIL") == ["Kubeflow Pipelines"]
    assert "kubectl port-forward" in table.rows["Kubeflow Pipelines"][2]


def test_a_kubernetes_that_does_not_answer_is_one_row(doctor, tmp_path, monkeypatch, api):
    api.host = "http://127.0.0.1:9"
    monkeypatch.setenv("KUBECONFIG", str(api.write_kubeconfig(tmp_path / "another")))
    table = doctor()
    assert table.code == 1 and list(table.rows) == ROWS[:2]
    assert "http://127.0.0.1:9" in table.rows["Kubernetes"][1] and "KUBECONFIG" in table.rows["Kubernetes"][2]


def test_no_kubeconfig_at_all_is_said_once(doctor, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    table = doctor()
    assert table.code == 1 and list(table.rows) == ROWS[:2] and "no cluster" in table.rows["Kubernetes"][1]


def test_credentials_that_are_not_known_are_said_once(doctor, api):
    api.knows_caller = False
    table = doctor()
    assert table.code == 1 and list(table.rows) == ROWS[:2] and "Unauthorized" in table.rows["Kubernetes"][1]


def test_who_may_ask_nothing_reads_which_right_each_check_takes(doctor, api):
    api.forbidden = ["GET /api/v1/", "GET /apis/[^/]+/[^/]+/.", "POST .*/localsubject", "POST .*/jobs"]
    table = doctor()
    assert table.code == 1 and table.marked("FAIL") == []
    unknown = set(table.marked("?"))
    assert unknown == {*ROWS[2:11], "quota", "GPUs", "images", "store"}
    assert all(row[1].startswith("not known: no right to ") for name, row in table.rows.items() if name in unknown)
    assert all(
        "kubectl" in row[2] or "manifests/README" in row[2] for name, row in table.rows.items() if name in unknown
    )
    assert table.verdict == f"{len(unknown)} checks gave no answer"


@pytest.mark.parametrize(
    ("forbidden", "row", "right"),
    [
        ("/nodes", "GPUs", "list nodes"),
        ("GET .*/secrets/mlpipeline", "store's keys", "get secrets"),
        ("/resourcequotas", "quota", "list resourcequotas"),
        ("POST .*/jobs", None, "create jobs"),
        ("/deployments/seaweedfs", "store's service", "get services and deployments"),
    ],
)
def test_one_right_that_is_missing_hides_one_row(doctor, api, forbidden, row, right):
    api.forbidden = [forbidden]
    table = doctor()
    assert table.marked("?") == ([row] if row else ["images", "store"]) and table.marked("FAIL") == []
    assert all(right in table.rows[name][1] for name in table.marked("?"))


def test_without_pods_nothing_is_created(doctor, api):
    table = doctor("--no-pods")
    assert table.code == 0 and list(table.rows) == ROWS[: ROWS.index("image control")] and api.created == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--host", "http://127.0.0.1:9", "--store-only"],
            "store_only: only for a check of this machine; leave out --host",
        ),
        (["--host", "http://127.0.0.1:9", "--pretrain", "a/b"], "pretrain: only for a check of this machine"),
        (["--cpu"], "cpu: only for a check of a cluster; give --host as well"),
        (["--train-queue", "q"], "train_queue: only for a check of a cluster"),
        (["--image-pull-secret", "login"], "image_pull_secret: only for a check of a cluster"),
        (["--host", "http://127.0.0.1:9", "--timeout", "nan"], "timeout=nan: expected seconds"),
        (["--host", "http://127.0.0.1:9", "--timeout", "0"], "timeout=0: expected seconds"),
    ],
)
def test_a_flag_that_cannot_be_used_is_refused(capsys, flags, said):
    with pytest.raises(SystemExit) as stop:
        main(["doctor", *flags])
    assert stop.value.code == 2 and said in capsys.readouterr().err


def test_events_that_may_not_be_read_hide_nothing(doctor, api):
    api.forbidden = ["/events"]
    api.slow_pods = 2
    assert doctor().marked("ok") == ROWS


def test_one_kind_of_job_is_enough_unless_one_is_asked_for(doctor, api):
    not_served("/apis/trainer.kubeflow.org/v1alpha1")(api)
    table = doctor("--no-pods")
    assert table.code == 0 and "only runs with train_backend trainjob need it" in table.rows["TrainJob"][1]
    table = doctor("--no-pods", "--train-backend", "trainjob")
    assert table.marked("FAIL") == ["TrainJob"] and "Kubeflow Trainer 2.2" in table.rows["TrainJob"][2]
    not_served("/apis/kubeflow.org/v1")(api)
    assert doctor("--no-pods").marked("FAIL") == ["PyTorchJob", "TrainJob"]


def test_a_kind_that_is_there_and_broken_fails_unless_the_other_one_is_asked_for(doctor, api):
    api.objects[MANAGER] = deployment("trainer-controller-manager:v2.3.0", ready=0)
    assert doctor("--no-pods").marked("FAIL") == ["TrainJob"]
    table = doctor("--no-pods", "--train-backend", "pytorchjob")
    assert table.code == 0 and "not ready; only runs with train_backend trainjob" in table.rows["TrainJob"][1]


def test_a_profile_is_examined_with_its_own_account_and_place(doctor, kfp, api):
    kfp.multi_user = True
    api.objects = cluster_in_order("team-a")
    api.objects["/api/v1/namespaces/team-a/serviceaccounts/default-editor"] = {}
    api.rights = {("default-editor", *right[1:]) for right in api.rights}
    table = doctor("--namespace", "team-a")
    assert table.code == 0 and "default-editor may do" in table.rows["account"][1]
    assert {spec["user"].split(":")[2] for spec in api.reviews} == {"team-a"}
    assert all("system:serviceaccounts:team-a" in spec["groups"] for spec in api.reviews)
    api.objects["/api/v1/namespaces/team-a/configmaps/oatflow-config"] = {"data": {"OATFLOW_LEDGER": LEDGER}}
    table = doctor("--namespace", "team-a")
    assert table.marked("FAIL") == ["ledger"] and "private/team-a/" in table.rows["ledger"][1]


def test_a_kubeflow_for_many_users_wants_a_namespace(kfp, api, capsys):
    kfp.multi_user = True
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--host", kfp.endpoint])
    assert stop.value.code == 2 and "--namespace" in capsys.readouterr().err


def test_what_runs_will_be_given_is_what_is_examined(doctor, api):
    api.objects[f"{HERE}/secrets/own"] = {"data": {"accesskey": "eA==", "secretkey": "eA=="}}
    api.objects[f"{HERE}/serviceaccounts/me"] = {}
    api.rights |= {("me", *right[1:]) for right in api.rights}
    aws = "s3://bucket/oatflow"
    flags = ["--s3-secret", "own", "--service-account", "me", "--registry", "r.example:5000/ml", "--cpu",
             "--image-pull-secret", "login", "--ledger", aws]  # fmt: skip
    table = doctor(*flags)
    assert table.code == 0 and "store's service" not in table.rows and table.rows["ledger"][1] == aws
    images, store = (job["spec"]["template"]["spec"] for job in api.created)
    assert {each["image"] for each in images["containers"]} == {
        f"r.example:5000/ml/{name}:0.1.0-cpu" for name in ("control", "sampler", "oracle", "trainer")
    }
    assert images["serviceAccountName"] == "me" and images["imagePullSecrets"] == [{"name": "login"}]
    (container,) = store["containers"]
    variables = {each["name"]: each for each in container["env"]}
    assert variables["OATFLOW_LEDGER"]["value"] == aws
    assert variables["AWS_ACCESS_KEY_ID"]["valueFrom"]["secretKeyRef"]["name"] == "own"


def test_a_queue_is_looked_up_where_it_is_named(doctor, api):
    path = "/apis/kueue.x-k8s.io/v1beta2/namespaces/kubeflow/localqueues/oatflow"
    assert doctor("--no-pods", "--train-queue", "oatflow").marked("FAIL") == ["queue"]
    api.objects[path] = {
        "spec": {"clusterQueue": "pool"},
        "status": {"conditions": [{"type": "Active", "status": "True"}]},
    }
    assert doctor("--no-pods", "--train-queue", "oatflow").rows["queue"][1] == "oatflow, of the cluster queue pool"
    stopped = {"type": "Active", "status": "False", "message": "it is stopped"}
    api.objects[path]["status"]["conditions"] = [stopped]
    assert "it is stopped" in doctor("--no-pods", "--train-queue", "oatflow").rows["queue"][1]
    not_served("/apis/kueue.x-k8s.io")(api)
    assert "Kueue is not there" in doctor("--no-pods", "--train-queue", "oatflow").rows["queue"][1]


def test_a_quota_of_nothing_or_of_what_runs_do_not_take_is_not_used_up(doctor, api):
    api.objects[f"{HERE}/resourcequotas/a"] = quota("0", "0", "services.nodeports")
    api.objects[f"{HERE}/resourcequotas/b"] = quota("10Gi", "10Gi", "requests.storage")
    api.objects[f"{HERE}/resourcequotas/c"] = quota("1Gi", "2Gi", "limits.memory")
    assert doctor("--no-pods").rows["quota"][1] == "a, b, c: not used up"


def test_pods_that_the_namespace_refuses_say_why(doctor, api):
    api.events = ['Error creating: pods "x" is forbidden: exceeded quota: team, requested: pods=1']
    table = doctor()
    assert table.marked("FAIL") == ["images", "store"] and api.jobs == {}
    assert all("exceeded quota: team" in table.rows[name][1] for name in ("images", "store"))


def test_a_quota_that_refuses_the_jobs_is_no_missing_right(doctor, api):
    api.forbidden = ["POST .*/jobs"]
    api.refusal = "exceeded quota: team, requested: count/jobs.batch=1, used: 4, limited: 4"
    table = doctor()
    assert table.marked("FAIL") == ["images", "store"] and table.marked("?") == []
    assert all("exceeded quota: team" in table.rows[name][1] for name in ("images", "store"))


def test_images_that_take_longer_than_the_wait_are_not_known(doctor, api):
    api.images = {SAMPLER: waiting("ContainerCreating")}
    table = doctor("--timeout", "0.05")
    assert table.marked("?") == ["image sampler"] and "--timeout" in table.rows["image sampler"][2]
    assert table.marked("FAIL") == [] and api.jobs == {}


def test_a_store_that_lets_its_doctor_wait_is_named_by_the_doctors_last_line(doctor, api):
    api.images = {"ghcr.io/oatflow/control:0.1.0": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
    api.verdict = (0, ["the store does not answer; trying again"])
    table = doctor("--timeout", "0.05")
    assert "has not ended within 0 s: the store does not answer" in table.rows["store"][1]


def test_pods_without_a_node_say_so_before_the_wait_is_over(doctor, api, monkeypatch):
    monkeypatch.setattr(probes, "POD_SECONDS", 0.05)
    api.pod = {"phase": "Pending", "containerStatuses": [], "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2: Insufficient cpu"},
    ]}  # fmt: skip
    table = doctor("--timeout", "60")
    assert table.marked("?") == IMAGES and "Insufficient cpu" in table.rows["image control"][1]
    assert table.marked("FAIL") == ["store"] and "Insufficient cpu" in table.rows["store"][1]


def test_a_doctor_that_is_stopped_leaves_no_job_behind(doctor, api, monkeypatch, kfp, capsys):
    def stop(_):
        raise KeyboardInterrupt

    api.images = {SAMPLER: waiting("ContainerCreating")}
    monkeypatch.setattr(probes.time, "sleep", stop)
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", "--host", kfp.endpoint])
    assert stopped.value.code == 130 and len(api.created) == 1 and api.jobs == {}


def test_the_rights_it_asks_for_are_those_that_the_role_gives():
    role = next(yaml.safe_load_all((ROOT / "manifests/base/launcher-role.yaml").read_text()))
    given = {
        (verb, resource + (f".{group}" if group else ""))
        for rule in role["rules"] for group in rule["apiGroups"] for resource in rule["resources"]
        for verb in rule["verbs"]
    }  # fmt: skip
    assert set(needed_rights(list(KINDS.values()))) == given


@pytest.mark.parametrize(
    ("image", "version"),
    [("chrislusf/seaweedfs:4.00", (4, 0)), ("r.example:5000/a/b:v1.9.0-rc.1@sha256:ab", (1, 9)), ("2.17.0", (2, 17)),
     ("r.example:5000/a/b", None), ("a:latest", None), ("", None)],
)  # fmt: skip
def test_versions_are_read_from_tags(image, version):
    assert version_of(image) == version


@pytest.mark.parametrize(
    ("ledger", "service"),
    [("s3://b/o?endpoint=http://minio.minio:9000", ("minio", "minio")),
     ("s3://b/o?endpoint=http://s.ns.svc.cluster.local:9000", ("s", "ns")),
     ("s3://b/o?endpoint=https://storage.example.com", None), ("s3://b/o?endpoint=http://10.0.0.7:9000", None),
     ("s3://b/o", None), ("", None)],
)  # fmt: skip
def test_a_service_of_the_cluster_is_told_from_other_hosts(ledger, service):
    assert service_of(ledger) == service


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("doctor", "without --host and --namespace, this machine is checked"),
        ("status", "without --host, --namespace and --run, only the ledger is read"),
    ],
)
def test_the_help_says_when_no_cluster_is_asked(capsys, command, said):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert said in " ".join(capsys.readouterr().out.split())
