"""The templates of examples/: CloudFormation's linter finds nothing, Helm renders what Kubernetes knows, and what they set
is known to the program."""

import copy
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from cfnlint import decode

EXAMPLES = Path(__file__).parents[2] / "examples"
TEMPLATES = sorted((EXAMPLES / "cloudformation").glob("*.yaml"))


def test_lint():
    """In one call: to start the linter takes seconds."""
    done = subprocess.run([Path(sys.executable).with_name("cfn-lint"), *TEMPLATES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def variables(template) -> set:
    """The names of environment variables that the resources of a template set."""
    tree, problems = decode.decode(str(template))
    assert not problems
    names = set()
    for resource in tree["Resources"].values():
        properties = resource.get("Properties", {})
        names |= properties.get("PrimaryContainer", {}).get("Environment", {}).keys()
        for container in properties.get("InferenceSpecification", {}).get("Containers", []):
            names |= container["Environment"].keys()
        environment = properties.get("Environment", {})
        names |= environment.get("Variables", {}).keys() if isinstance(environment, dict) else set()
        for container in properties.get("ContainerDefinitions", []):
            for entry in container["Environment"]:
                names.add((entry.get("Fn::If") or [None, entry])[1]["Name"])
    return names


@functools.cache
def helped(*command) -> str:
    return subprocess.run([os.environ["MILLRACE"], *command, "--help"], capture_output=True, text=True, check=True).stdout


def unknown(names) -> set:
    """Those of variables' names that the program's help does not have."""
    return {n for n in names if not re.search(rf"\b{n}\b", helped("serve"))} - {"SAGEMAKER_REGION", "HF_TOKEN"}  # others' names


def test_variables():
    for template in TEMPLATES:
        names = variables(template)
        assert names or template.name in ("github.yaml", "dashboard.yaml"), template.name
        assert not unknown(names), template.name


def test_unit(tmp_path):
    """systemd finds no fault in the unit, and waits for as long as requests that run may take."""
    text = (EXAMPLES / "systemd/millrace.service").read_text()
    timeout = int(re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[1])
    helped = subprocess.run([os.environ["MILLRACE"], "serve", "--help"], capture_output=True, text=True, check=True).stdout
    default = int(re.search(r"--graceful-termination-timeout=(\d+)", helped)[1])
    assert timeout > default
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "millrace.service"
    unit.write_text(text.replace("/usr/local/bin/millrace", os.environ["MILLRACE"]))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_dashboard():
    """The widgets are JSON, fill rows of 24 columns, and show the metrics that the server's log lines become."""
    tree, _ = decode.decode(str(EXAMPLES / "cloudformation/dashboard.yaml"))
    emf = (EXAMPLES.parent / "handler/telemetry/emf.go").read_text()
    for name in "Endpoint", "Function":
        body = tree["Resources"][name]["Properties"]["DashboardBody"]["Fn::Sub"]
        assert set(re.findall(r"\$\{([\w:]+)\}", body)) <= tree["Parameters"].keys() | {"AWS::Region"}
        widgets = json.loads(body)["widgets"]
        for y in {w["y"] for w in widgets}:
            assert sum(w["width"] for w in widgets if w["y"] == y) == 24
        own, rows = set(), [w["properties"]["metrics"] for w in widgets if w["type"] == "metric"]
        for metrics in rows:
            if metrics[0][0] == "${Namespace}":
                own |= {metric[1] for metric in metrics}
        assert own and all(f'"{metric}":' in emf for metric in own)


def test_workflow():
    """What the workflow runs are commands and flags of the program."""
    workflow = yaml.safe_load((EXAMPLES / "github-actions/deploy.yaml").read_text())
    runs = [re.search(r"(sagemaker|lambda) deploy (.*)", step["run"])
            for job in workflow["jobs"].values() for step in job["steps"] if step.get("name") == "Deploy"]
    assert len(runs) == 2
    for run in runs:
        given = set(re.findall(r"--[a-z-]+", run[2]))
        assert given and not given - set(re.findall(r"--[a-z-]+", helped(run[1], "deploy")))


# What deploy, status and --create-role ask AWS for is in these folders. What the workflow's role may not do: calling what it
# deployed, deleting what is there with its role and log, and uploading a model.
CALLERS = "sagemaker/deploy", "container/lambda/deploy", "internal/account"
SERVICES = {"cloudwatchlogs": "logs", "sagemakerruntime": ""}
NOT_NEEDED = {"DeleteRole", "DeleteRolePolicy", "DeleteLogGroup", "Invoke", "InvokeWithResponseStream",
              "HeadObject", "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload",
              "GetCallerIdentity"}  # for which nobody needs a permission
# What AWS asks for besides, where a call has tags or wants them, names a role or an image for Lambda.
BESIDES = {"sagemaker:AddTags", "lambda:ListTags", "lambda:TagResource", "iam:TagRole", "iam:PassRole", "ecr:GetRepositoryPolicy", "ecr:SetRepositoryPolicy"}


def test_workflow_role():
    """The role of the workflow may do what the commands ask AWS for."""
    called = set()
    for source in (file for folder in CALLERS for file in (EXAMPLES.parent / folder).glob("*.go") if not file.name.endswith("_test.go")):
        text = source.read_text()
        for service, operation in re.findall(r"\b(%s)\.(\w+)Input\{" % "|".join(re.findall(r'service/(\w+)"', text) or ["none"]), text):
            called.add((SERVICES.get(service, service), operation))
    needed = {f"{service}:{operation}" for service, operation in called if service and operation not in NOT_NEEDED} | BESIDES
    assert {"lambda:GetAlias", "sagemaker:CreateEndpoint", "iam:GetRole", "logs:FilterLogEvents"} <= needed  # or nothing is read from the sources
    tree, _ = decode.decode(str(EXAMPLES / "cloudformation/github.yaml"))
    allowed = set()
    for statement in tree["Resources"]["Role"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]:
        actions = statement["Action"]
        allowed |= {actions} if isinstance(actions, str) else set(actions)
    assert not needed - allowed, "the role may not do what the commands do"
    services = {action.split(":")[0] for action in needed} - {"ecr"}
    assert not {a for a in allowed if a.split(":")[0] in services} - needed, "the role may do what no command does"


# --- The chart ------------------------------------------------------------------

CHART = EXAMPLES / "helm/millrace"
KUBERNETES = "1.34"
FULL = {
    "image": {"repository": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace", "digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}], "model": {"id": "s3://models/llama/", "hubTokenSecret": "hub"}, "apiKeySecret": "keys",
    "env": {"MAX_BATCH_SIZE": 16, "DISABLE_GRAMMAR_SUPPORT": True}, "autoscaling": {"by": "hpa"},
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}}, "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn"}},
    "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"}, "nodeSelector": {"node.kubernetes.io/instance-type": "c7i.4xlarge"},
    "tolerations": [{"key": "a", "operator": "Exists"}], "affinity": {"nodeAffinity": {}},
}


@pytest.fixture(scope="module")
def render():
    """Renders the chart as Helm does, and returns what it makes, by kind."""
    helm = pytest.importorskip("helm_python")  # has Helm itself in it, for some kinds of machines

    def render(values, name="chat"):
        with helm.Chart.load(str(CHART)) as chart:
            files = chart.render(values, name=name, namespace="prod")
        made = [tree for file, text in files.items() if file.endswith(".yaml") for tree in yaml.safe_load_all(text) if tree]
        return {tree["kind"]: tree for tree in made}
    return render


def test_chart_lint():
    helm = pytest.importorskip("helm_python")
    found = helm.lint(str(CHART))
    assert not found["errors"] and all(m["error"] == "icon is recommended" for m in found["messages"]), found


@pytest.mark.parametrize("values", [{}, FULL, {"serviceAccount": {"create": False}}], ids=["defaults", "full", "another's account"])
def test_chart_is_known_to_kubernetes(render, values):
    made = render(values)
    assert {"Deployment", "Service", "PodDisruptionBudget"} <= made.keys()
    for tree in made.values():
        kubernetes_validate.validate(tree, KUBERNETES, strict=True)
    wrong = copy.deepcopy(made["Deployment"])
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_chart_pod(render):
    pod = render({**FULL, "shutdownDelaySeconds": 20, "terminationSeconds": 100, "startupSeconds": 601})["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert not unknown(env)
    assert (env["SHUTDOWN_DELAY"], env["GRACEFUL_TERMINATION_TIMEOUT"], env["MAX_BATCH_SIZE"], env["DISABLE_GRAMMAR_SUPPORT"]) == ("20", "100", "16", "true")
    assert pod["terminationGracePeriodSeconds"] > 120
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 601
    assert container["image"].endswith("/millrace@sha256:" + "0" * 64)
    assert container["securityContext"]["readOnlyRootFilesystem"] and pod["securityContext"]["runAsNonRoot"]


def test_chart_scaling(render):
    made = render({"autoscaling": {"by": "hpa"}})
    assert "replicas" not in made["Deployment"]["spec"]
    metrics = {m["pods"]["metric"]["name"] for m in made["HorizontalPodAutoscaler"]["spec"]["metrics"]}
    made = render({"autoscaling": {"by": "keda"}, "podMonitor": True}, name="millrace")
    scaled = made["ScaledObject"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == made["Deployment"]["metadata"]["name"] == "millrace"
    query = scaled["triggers"][0]["metadata"]["query"]
    metrics |= set(re.findall(r"tgi_\w+", query))
    operations = (EXAMPLES.parent / "docs/operations.md").read_text()
    assert metrics and all(f"`{metric}`" in operations for metric in metrics)
    assert made["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["port"] == made["Deployment"]["spec"]["template"]["spec"]["containers"][0]["ports"][0]["name"]


@pytest.mark.parametrize("values, named", [
    ({"shutdownDelaySeconds": 301}, "shutdownDelaySeconds"),
    ({"env": {"PORT": "1"}}, "PORT"),
    ({"replica": 2}, "'replica' not allowed"),
    ({"image": {"digest": "sha256:1"}}, "/image/digest"),
    ({"autoscaling": {"by": "cpu"}}, "/autoscaling/by"),
    ({"autoscaling": {"minReplicas": 5}}, "autoscaling.minReplicas is more than autoscaling.maxReplicas"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_chart_refuses(render, values, named):
    with pytest.raises(Exception, match=re.escape(named)):
        render(values)
