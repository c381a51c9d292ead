"""Constructs of Millrace for the AWS CDK: an endpoint on SageMaker, and a Lambda function with a URL that streams."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aws_cdk import Duration
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import cloudformation_include as include
from constructs import Construct

TEMPLATE = Path(__file__).resolve().parents[2] / "cloudformation" / "sagemaker.yaml"
RULED = {"ShadowTag", "FallbackInstanceType"}  # the CDK replaces no parameter that a rule of the template reads


class MillraceEndpoint(Construct):
    """An endpoint on SageMaker with its role, log group, scaling and alarm: the template ../../cloudformation/sagemaker.yaml.

    It takes the template's parameters by their names; those that are not given stay parameters of the stack, with the
    template's defaults. The stack's name is the endpoint's, so a stack holds one.
    """

    def __init__(self, scope: Construct, id: str, *, parameters: Mapping[str, Any] | None = None):
        super().__init__(scope, id)
        parameters = parameters or {}
        self.template = include.CfnInclude(
            self, "Template", template_file=str(TEMPLATE), parameters={k: v for k, v in parameters.items() if k not in RULED})
        for name in RULED & parameters.keys():
            self.template.get_parameter(name).default = parameters[name]
        self.endpoint = self.template.get_resource("Endpoint")
        self.endpoint_name = self.endpoint.attr_endpoint_name

    def grant_invoke(self, grantee: iam.IGrantable) -> iam.Grant:
        actions = ["InvokeEndpoint", "InvokeEndpointWithResponseStream", "InvokeEndpointWithBidirectionalStream"]
        return iam.Grant.add_to_principal(grantee=grantee, actions=[f"sagemaker:{a}" for a in actions], resource_arns=[self.endpoint.ref])


class MillraceFunction(lambda_.DockerImageFunction):
    """A Lambda function of Millrace's image in ECR, with a URL that streams and that IAM signs for. The weights are the
    image's own, or lie in a bucket below a prefix that ends in a slash."""

    def __init__(self, scope: Construct, id: str, *, repository: ecr.IRepository, tag_or_digest: str, bucket: s3.IBucket | None = None,
                 prefix: str = "", memory_size: int = 3008, timeout: Duration | None = None, environment: Mapping[str, str] | None = None):
        variables = {"LAMBDA_INVOKE_MODE": "stream", **(environment or {})}  # as the URL's mode
        if bucket:
            variables["MODEL_ID"] = bucket.s3_url_for_object(prefix)
        super().__init__(
            scope, id, code=lambda_.DockerImageCode.from_ecr(repository, tag_or_digest=tag_or_digest), memory_size=memory_size,
            timeout=timeout or Duration.minutes(5), environment=variables, logging_format=lambda_.LoggingFormat.JSON,
            log_group=logs.LogGroup(scope, f"{id}Logs", retention=logs.RetentionDays.ONE_MONTH))
        if bucket:
            bucket.grant_read(self, f"{prefix}*")
        self.url = self.add_function_url(auth_type=lambda_.FunctionUrlAuthType.AWS_IAM, invoke_mode=lambda_.InvokeMode.RESPONSE_STREAM)
