#!/usr/bin/env python3
"""Write rules.json: what AWS's APIs refuse, for the stand-in to refuse it too.

    python3 -m pip download --no-deps -d build/wheels PACKAGE
    dev/standin/rules.py build/wheels

botocore ships the published models of the APIs: which members a request has,
which of them it needs, and of each the values, the range, the length and the
pattern. This script finds the member of the request for each argument in
schema.json by its name, and writes down what the model says of it. For
arguments with another name than the member, ALIASES has it; others go without.
Types of CloudFormation, which have the API's names, are for the templates of
aws_cloudformation_stack.
"""

import glob
import gzip
import json
import os
import re
import sys
import zipfile

PACKAGE = "botocore==1.44.8"

# The request that creates each type, by service.
REQUESTS = {
    "application-autoscaling": {
        "aws_appautoscaling_policy": "PutScalingPolicyRequest",
        "aws_appautoscaling_target": "RegisterScalableTargetRequest",
    },
    "cloudformation": {"aws_cloudformation_stack": "CreateStackInput"},
    "cloudwatch": {"aws_cloudwatch_metric_alarm": "PutMetricAlarmInput"},
    "ecr": {"aws_ecr_repository": "CreateRepositoryRequest"},
    "iam": {"aws_iam_role": "CreateRoleRequest", "aws_iam_role_policy": "PutRolePolicyRequest"},
    "kms": {"aws_kms_alias": "CreateAliasRequest", "aws_kms_key": "CreateKeyRequest"},
    "lambda": {
        "aws_lambda_alias": "CreateAliasRequest",
        "aws_lambda_capacity_provider": "CreateCapacityProviderRequest",
        "aws_lambda_event_source_mapping": "CreateEventSourceMappingRequest",
        "aws_lambda_function": "CreateFunctionRequest",
        "aws_lambda_function_scaling_config": "PutFunctionScalingConfigRequest",
        "aws_lambda_function_url": "CreateFunctionUrlConfigRequest",
        "aws_lambda_permission": "AddPermissionRequest",
        "aws_lambda_provisioned_concurrency_config": "PutProvisionedConcurrencyConfigRequest",
    },
    "logs": {
        "aws_cloudwatch_log_group": "CreateLogGroupRequest",
        "aws_cloudwatch_log_metric_filter": "PutMetricFilterRequest",
    },
    "sagemaker": {
        "aws_sagemaker_endpoint": "CreateEndpointInput",
        "aws_sagemaker_endpoint_configuration": "CreateEndpointConfigInput",
        "aws_sagemaker_model": "CreateModelInput",
        "awscc_sagemaker_inference_component": "CreateInferenceComponentInput",
        "AWS::SageMaker::EndpointConfig": "CreateEndpointConfigInput",
    },
}

# Members by the argument that means them, where the names differ.
ALIASES = {
    "aws_appautoscaling_policy": {"name": "PolicyName", "step_adjustment": "StepAdjustments"},
    "aws_cloudformation_stack": {"name": "StackName", "iam_role_arn": "RoleARN"},
    "aws_cloudwatch_log_group": {"name": "logGroupName"},
    "aws_cloudwatch_log_metric_filter": {"name": "filterName", "pattern": "filterPattern", "metric_transformation": "metricTransformations", "namespace": "metricNamespace", "value": "metricValue"},
    "aws_cloudwatch_metric_alarm": {"metric_query": "Metrics", "metric": "MetricStat"},
    "aws_ecr_repository": {"name": "repositoryName"},
    "aws_iam_role": {"name": "RoleName", "assume_role_policy": "AssumeRolePolicyDocument"},
    "aws_iam_role_policy": {"name": "PolicyName", "role": "RoleName", "policy": "PolicyDocument"},
    "aws_kms_alias": {"name": "AliasName", "target_key_id": "TargetKeyId"},
    "aws_lambda_capacity_provider": {"name": "CapacityProviderName"},
    "aws_lambda_function_url": {"authorization_type": "AuthType"},
    "aws_lambda_event_source_mapping": {"source_access_configuration": "SourceAccessConfigurations", "filter": "Filters"},
    "aws_sagemaker_endpoint": {"name": "EndpointName"},
    "aws_sagemaker_endpoint_configuration": {"name": "EndpointConfigName", "kms_key_arn": "KmsKeyId"},
    "aws_sagemaker_model": {"name": "ModelName", "container": "Containers", "additional_model_data_source": "AdditionalModelDataSources"},
}

# What the models say in prose only: arguments of one object that exclude each other.
EXCLUSIVE = {
    "aws_cloudwatch_metric_alarm": {"": [["statistic", "extended_statistic"], ["metric_name", "metric_query"]]},
    "aws_lambda_function": {"": [["filename", "image_uri", "s3_bucket"]]},
    "aws_sagemaker_endpoint": {"deployment_config": [["blue_green_update_policy", "rolling_update_policy"]]},
    "aws_sagemaker_endpoint_configuration": {
        "production_variants": [["instance_type", "serverless_config"], ["initial_instance_count", "serverless_config"]],
    },
    "aws_sagemaker_model": {"": [["primary_container", "container"]], "primary_container": [["model_data_url", "model_data_source"]]},
    "AWS::SageMaker::EndpointConfig": {"ProductionVariants": [["InstanceType", "InstancePools", "ServerlessConfig"]]},
}

# What Java's expressions have and Go's do not: looking around, classes by a word,
# characters by number, and more than a thousand repetitions.
FOREIGN = re.compile(r"\(\?<?[=!]|\\p\{\w{3,}\}|\\u|\{(\d+,)?\d{4,}\}")

LIMITS = ("enum", "min", "max", "pattern")
SCALARS = {"string": "string", "integer": "number", "long": "number", "float": "number", "double": "number"}


def plain(name):
    return name.replace("_", "").lower()


class Generator:
    """The rules for the types of one service."""

    def __init__(self, service, model, shapes):
        self.service, self.model, self.shapes = service, model["shapes"], shapes

    def limits(self, name):
        """What is said of a scalar, put among the shapes; the name that it has there, or None."""
        shape = self.model[name]
        said = {k: shape[k] for k in LIMITS if k in shape}
        if said.get("min") == 0 and shape["type"] == "string":
            del said["min"]
        if FOREIGN.search(said.get("pattern", "")):
            del said["pattern"]
        if not said:
            return None
        said["type"] = SCALARS[shape["type"]]
        key = f"{self.service}.{name}"
        self.shapes[key] = said
        return key

    def member(self, resource, argument, members):
        alias = ALIASES.get(resource, {}).get(argument)
        if alias in members:
            return alias
        return next((m for m in members if plain(m) == plain(argument)), None)

    def block(self, resource, name, block, path=""):
        """The rule for a block, or an attribute with attributes, that means the shape."""
        shape = self.model[name]
        rule, found = {}, {}
        for argument, a in block.get("attributes", {}).items():
            if a.get("computed") and not a.get("optional"):
                continue
            if member := self.member(resource, argument, shape["members"]):
                target = shape["members"][member]["shape"]
                if "nested_type" in a:
                    inner = self.nested(resource, target, a["nested_type"]["nesting_mode"], {"attributes": a["nested_type"]["attributes"]}, f"{path}{argument}.")
                else:
                    inner = self.value(target, a["type"])
                if inner:
                    found[argument] = inner
                # awscc calls all that it can read back computed. A name that is left out is CloudFormation's to give.
                if member in shape.get("required", []) and not a.get("required") and (path if resource.startswith("awscc") else not a.get("computed")):
                    rule.setdefault("required", []).append(argument)
        for argument, b in block.get("block_types", {}).items():
            if member := self.member(resource, argument, shape["members"]):
                inner = self.nested(resource, shape["members"][member]["shape"], b["nesting_mode"], b["block"], f"{path}{argument}.")
                if inner:
                    found[argument] = inner
        if found:
            rule["members"] = found
        self.exclude(rule, resource, path, {"name", "name_prefix"} <= set(block.get("attributes", {})))
        return rule

    @staticmethod
    def exclude(rule, resource, path, prefixed=False):
        groups = EXCLUSIVE.get(resource, {}).get(path.rstrip("."), []) + ([["name", "name_prefix"]] if prefixed else [])
        if groups:
            rule["exclusive"] = groups

    def nested(self, resource, name, nesting, block, path):
        shape = self.model[name]
        if shape["type"] == "list":
            element = shape["member"]["shape"]
            if self.model[element]["type"] != "structure" or nesting not in ("list", "set"):
                return None
            inner = self.block(resource, element, block, path)
            return {**self.items(shape), **({"element": inner} if inner else {})}
        if shape["type"] != "structure":
            return None
        inner = self.block(resource, name, block, path)
        return {"element": inner} if inner and nesting in ("list", "set") else inner

    def items(self, shape):
        return {"max": shape["max"]} if "max" in shape else {}

    def value(self, name, kind):
        """The rule for an attribute of a type of Terraform's, None if the model's is another."""
        shape = self.model[name]
        if isinstance(kind, str):
            return {"shape": key} if SCALARS.get(shape["type"]) == kind and (key := self.limits(name)) else None
        if shape["type"] == "list" and kind[0] in ("list", "set"):
            inner = self.value(shape["member"]["shape"], kind[1])
        elif shape["type"] == "structure" and kind[0] == "object":
            members = {a: self.value(shape["members"][m]["shape"], t) for a, t in kind[1].items() if (m := self.member("", a, shape["members"]))}
            members = {a: rule for a, rule in members.items() if rule}
            return {"members": members} if members else None
        elif shape["type"] == "structure" and kind[0] in ("list", "set"):  # a block of at most one, as an attribute
            return {"element": inner} if (inner := self.value(name, kind[1])) else None
        elif shape["type"] == "map" and kind[0] == "map" and kind[1] == "string":
            inner = self.value(shape["value"]["shape"], kind[1])
        else:
            return None
        rule = {**self.items(shape), **({"element": inner} if inner else {})}
        return rule or None

    def template(self, resource, name, path="", seen=()):
        """The rule for a type of CloudFormation's, which has the API's own names."""
        shape = self.model[name]
        if shape["type"] == "structure":
            rule = {"closed": True, "members": {}}
            for member, target in shape["members"].items():
                if target["shape"] not in seen:
                    rule["members"][member] = self.template(resource, target["shape"], f"{path}{member}.", seen + (name,)) or {}
            if required := [m for m in shape.get("required", []) if path or m != "EndpointConfigName"]:
                rule["required"] = required
            self.exclude(rule, resource, path)
            return rule
        if shape["type"] == "list":
            return {**self.items(shape), "element": self.template(resource, shape["member"]["shape"], path, seen)}
        return {"shape": key} if shape["type"] in SCALARS and (key := self.limits(name)) else {}


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    here = os.path.dirname(os.path.abspath(__file__))
    wheels = glob.glob(os.path.join(sys.argv[1], f"{PACKAGE.replace('==', '-')}-*.whl"))
    if not wheels:
        raise SystemExit(f"{sys.argv[1]} holds no wheel of {PACKAGE}: python3 -m pip download --no-deps -d {sys.argv[1]} {PACKAGE}")
    with open(os.path.join(here, "schema.json")) as file:
        schemas = {}
        for provider in json.load(file)["provider_schemas"].values():
            schemas |= provider["resource_schemas"]

    shapes, resources = {}, {}
    with zipfile.ZipFile(wheels[0]) as wheel:
        for service, requests in REQUESTS.items():
            newest = max(n for n in wheel.namelist() if re.fullmatch(rf"botocore/data/{service}/[0-9-]+/service-2\.json\.gz", n))
            generator = Generator(service, json.loads(gzip.decompress(wheel.read(newest))), shapes)
            for resource, request in requests.items():
                if resource in schemas:
                    resources[resource] = generator.block(resource, request, schemas[resource]["block"])
                else:
                    resources[resource] = generator.template(resource, request)

    with open(os.path.join(here, "rules.json"), "w") as out:
        lines = lambda d: "{\n" + ",\n".join(f"{json.dumps(k)}:{json.dumps(d[k], separators=(',', ':'), sort_keys=True)}" for k in sorted(d)) + "\n}"
        out.write(f'{{\n"package":{json.dumps(PACKAGE)},\n"resources":{lines(resources)},\n"shapes":{lines(shapes)}\n}}\n')


main()
