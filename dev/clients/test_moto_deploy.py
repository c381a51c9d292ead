"""Deploys to moto's SageMaker, Lambda and S3 with the real binary, looks with boto3 at what it has made, and deletes it.

moto knows no update of an endpoint and none of the newer instance types, and everything serves at once: updates and
failures are tested in Go, in sagemaker/deploy and container/lambda/deploy.
"""

import json
import os
import subprocess
import urllib.request

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

from server import BINARY

REGION = "eu-west-1"
IMAGE = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/millrace:1.0"
ROLE = "arn:aws:iam::123456789012:role/sagemaker"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture(scope="module")
def aws():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(aws):
    """Makes boto3's clients; afterwards AWS is empty again."""
    def make(service):
        return boto3.client(service, endpoint_url=aws, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test")
    yield make
    urllib.request.urlopen(urllib.request.Request(f"{aws}/moto-api/reset", method="POST")).close()


@pytest.fixture
def millrace(aws):
    def run(command, *arguments, status=0, of="sagemaker"):
        done = subprocess.run([BINARY, of, command, *arguments, "--endpoint-url", aws],
                              env={**os.environ, **KEYS}, capture_output=True, text=True, timeout=120)
        assert done.returncode == status, done.stdout + done.stderr
        return done
    return run


MACHINE = ("--image", IMAGE, "--role", ROLE, "--instance-type", "ml.c5.xlarge")


def tags(sagemaker, arn):
    return {tag["Key"]: tag["Value"] for tag in sagemaker.list_tags(ResourceArn=arn)["Tags"]}


def test_an_endpoint_from_the_first_to_the_last_day(millrace, client):
    sagemaker = client("sagemaker")
    done = millrace("deploy", "chat", *MACHINE, "--model", "s3://models/llama/", "--env", "A=1;2,3", "--tag", "team=search")
    assert "endpoint chat: in service after" in done.stderr
    endpoint = sagemaker.describe_endpoint(EndpointName="chat")
    config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
    model = sagemaker.describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
    assert config["ProductionVariants"][0]["InstanceType"] == "ml.c5.xlarge"
    assert model["PrimaryContainer"]["Environment"] == {"A": "1;2,3", "SERVED_MODEL_NAME": "chat", "SAGEMAKER_REGION": REGION}
    assert model["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]["S3Uri"] == "s3://models/llama/"
    for arn in endpoint["EndpointArn"], config["EndpointConfigArn"], model["ModelArn"]:
        assert tags(sagemaker, arn) == {"millrace:endpoint": "chat", "team": "search"}

    again = millrace("deploy", "chat", *MACHINE, "--model", "s3://models/llama/", "--env", "A=1;2,3")
    assert "serves exactly this already" in again.stderr
    assert len(sagemaker.list_models()["Models"]) == 1

    status = json.loads(millrace("status", "chat", "--json").stdout)
    assert status["status"] == "InService"
    assert status["variants"][0]["image"] == IMAGE
    assert "ml.c5.xlarge" in millrace("status", "chat").stdout

    removed = millrace("delete", "chat", "--yes").stdout
    assert removed.splitlines() == ["deleted endpoint chat", f"deleted endpoint configuration {endpoint['EndpointConfigName']}",
                                    f"deleted model {model['ModelName']}"]
    assert "nothing of chat is left" in millrace("delete", "chat", "--yes").stdout
    assert "there is no endpoint chat in eu-west-1" in millrace("status", "chat", status=1).stderr


def test_a_folder_is_copied_once(millrace, client, tmp_path):
    weights = os.urandom(40 << 20)  # three parts
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(weights)
    s3 = client("s3")
    s3.create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": REGION})
    arguments = ("deploy", "chat", *MACHINE, "--model", str(tmp_path), "--bucket", "models/teams")

    planned = json.loads(millrace(*arguments, "--dry-run").stdout)
    assert [request["operation"] for request in planned] == ["PutObject", "PutObject", "CreateModel", "CreateEndpointConfig", "CreateEndpoint"]
    assert "Contents" not in s3.list_objects_v2(Bucket="models")

    millrace(*arguments)
    objects = {o["Key"]: o for o in s3.list_objects_v2(Bucket="models")["Contents"]}
    assert set(objects) == {request["body"]["Key"] for request in planned[:2]}
    key = next(key for key in objects if key.endswith("model.safetensors"))
    assert s3.get_object(Bucket="models", Key=key)["Body"].read() == weights

    millrace(*arguments)
    assert {o["Key"]: o["LastModified"] for o in s3.list_objects_v2(Bucket="models")["Contents"]} == {k: o["LastModified"] for k, o in objects.items()}


@pytest.mark.parametrize("machines, found", [
    (("--serverless", "4096,5"), lambda config: config["ProductionVariants"][0]["ServerlessConfig"] == {"MemorySizeInMB": 4096, "MaxConcurrency": 5}),
    (("--instance-type", "ml.m5.large", "--async", "s3://answers/chat/"),
     lambda config: config["AsyncInferenceConfig"]["OutputConfig"]["S3OutputPath"] == "s3://answers/chat/"),
], ids=["serverless", "async"])
def test_other_kinds_of_endpoints(millrace, client, machines, found):
    millrace("deploy", "kind", "--image", IMAGE, "--role", ROLE, *machines)
    sagemaker = client("sagemaker")
    name = sagemaker.describe_endpoint(EndpointName="kind")["EndpointConfigName"]
    assert found(sagemaker.describe_endpoint_config(EndpointConfigName=name))


def test_others_parts_are_left_alone(millrace, client):
    sagemaker = client("sagemaker")
    sagemaker.create_model(ModelName="chat-0123456789", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": IMAGE})
    variant = {"VariantName": "v", "ModelName": "chat-0123456789", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="theirs", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="theirs", EndpointConfigName="theirs")
    for command in ("delete", "theirs", "--yes"), ("deploy", "theirs", *MACHINE):
        assert "was not made by this command" in millrace(*command, status=1).stderr

    millrace("deploy", "chat", *MACHINE)
    millrace("delete", "chat", "--yes")
    assert sagemaker.describe_model(ModelName="chat-0123456789")
    with pytest.raises(ClientError):
        sagemaker.describe_endpoint(EndpointName="chat")


@pytest.mark.parametrize("command, message", [
    (("deploy", "my_chat", *MACHINE), 'name "my_chat"'),
    (("deploy", "chat", "--image", IMAGE, "--role", ROLE), "--instance-type is missing"),
    (("deploy", "chat", *MACHINE, "--model", "s3://models/llama"), "did you mean s3://models/llama/"),
    (("deploy", "chat", *MACHINE, "--region", "us-east-1"), "is in region eu-west-1, the endpoint in us-east-1"),
    (("deploy", "chat", "--role", ROLE, "--instance-type", "ml.c5.xlarge"), "--image is missing"),
    (("deploy", "chat", *MACHINE, "--readers", "5"), "belong to --advise"),
    (("deploy", "chat", "--advise"), "--measured is missing"),
    (("delete", "chat"), "give --yes"),
    (("invoke", "chat", "x", "--parameters", "5"), "expected a JSON object"),
], ids=lambda value: value if isinstance(value, str) else " ".join(value[-2:]))
def test_a_slip_is_named_before_anything_is_asked(millrace, command, message):
    assert message in millrace(*command, status=2).stderr


def test_advice(millrace, tmp_path):
    measured, prices = tmp_path / "measured.json", tmp_path / "prices.csv"
    measured.write_text(json.dumps({"concurrency": 8, "tokens_per_second": 100, "time_per_output_token": {"p90_ms": 80}}))
    prices.write_text("ml.c7i.xlarge,0.20\nml.c7i.8xlarge,2\n")
    arguments = ("deploy", "chat", "--advise", "--measured", f"ml.c7i.xlarge={measured}", "--prices", str(prices))
    assert "--instance-type ml.c7i.xlarge --instances 2 --env MAX_BATCH_SIZE=8, 0.40 an hour" in millrace(*arguments).stdout
    advice = json.loads(millrace(*arguments, "--readers", "64", "--env", "MAX_TOTAL_TOKENS=64", "--json").stdout)
    assert [c["basis"] for c in advice["choices"]] == ["measured", "estimated"]
    assert [c["price_per_hour"] for c in advice["choices"]] == pytest.approx([1.6, 2])
    assert advice["tokens_per_request"] == 64


def test_a_role_that_is_made_for_an_endpoint(millrace, client):
    iam, role = client("iam"), f"millrace-{REGION}-chat"
    machine = ("--image", IMAGE, "--instance-type", "ml.c5.xlarge", "--model", "s3://models/llama/")
    printed = json.loads(millrace("deploy", "chat", *machine, "--print-policy").stdout)
    assert iam.list_roles()["Roles"] == []
    millrace("deploy", "chat", *machine, "--create-role")
    made = iam.get_role(RoleName=role)["Role"]
    assert made["AssumeRolePolicyDocument"] == printed["trust"]
    assert iam.get_role_policy(RoleName=role, PolicyName="millrace")["PolicyDocument"] == printed["permissions"]
    (model,) = client("sagemaker").list_models()["Models"]
    assert client("sagemaker").describe_model(ModelName=model["ModelName"])["ExecutionRoleArn"] == made["Arn"]
    assert f"role {role}" in millrace("delete", "chat", "--yes").stdout
    assert iam.list_roles()["Roles"] == []


def test_a_function_from_the_first_to_the_last_day(millrace, client):
    aws, role = client("lambda"), f"millrace-lambda-{REGION}-small"
    arguments = ("deploy", "small", "--image", IMAGE, "--create-role", "--model", "s3://models/llama/", "--tag", "team=search")
    printed = json.loads(millrace(*arguments, "--print-policy", of="lambda").stdout)
    url = millrace(*arguments, of="lambda").stdout.strip()
    function = aws.get_function(FunctionName="small", Qualifier="live")
    assert function["Tags"] == {"millrace:function": "small", "team": "search"}
    assert function["Configuration"]["MemorySize"] == 3008 and function["Configuration"]["Timeout"] == 300
    assert function["Configuration"]["Environment"]["Variables"] == {"LAMBDA_INVOKE_MODE": "stream", "MODEL_ID": "s3://models/llama/"}
    assert function["Code"]["ImageUri"] == IMAGE
    link = aws.get_function_url_config(FunctionName="small", Qualifier="live")
    assert (link["FunctionUrl"], link["AuthType"], link["InvokeMode"]) == (url, "AWS_IAM", "RESPONSE_STREAM")
    iam = client("iam")
    assert iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"] == printed["trust"]
    assert iam.get_role_policy(RoleName=role, PolicyName="millrace")["PolicyDocument"] == printed["permissions"]

    assert "serves exactly this already" in millrace(*arguments, of="lambda").stderr
    millrace(*arguments, "--url", "public", of="lambda")
    statements = {s["Action"]: s for s in json.loads(aws.get_policy(FunctionName="small", Qualifier="live")["Policy"])["Statement"]}
    assert set(statements) == {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"}

    removed = millrace("delete", "small", "--yes", of="lambda").stdout
    assert removed.splitlines() == [f"deleted role {role}", "deleted function small"]
    assert aws.list_functions()["Functions"] == [] and iam.list_roles()["Roles"] == []
    assert "there is no function small:live" in millrace("invoke", "small", "Hello", status=1, of="lambda").stderr


def test_others_functions_are_left_alone(millrace, client):
    role = client("iam").create_role(RoleName="theirs", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    client("lambda").create_function(FunctionName="theirs", Role=role, PackageType="Image", Code={"ImageUri": IMAGE})
    for command in ("delete", "theirs", "--yes"), ("deploy", "theirs", "--image", IMAGE):
        assert "was not made by this command" in millrace(*command, status=1, of="lambda").stderr
