"""An endpoint and a function, and a role that may call each: npx aws-cdk deploy --all."""

from aws_cdk import App, Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3

from millrace import MillraceEndpoint, MillraceFunction

app = App()

chat = Stack(app, "chat")
endpoint = MillraceEndpoint(chat, "Millrace", parameters={"Tag": "1.0", "Routing": "PREFIX_AWARE", "FallbackInstanceType": "ml.c6i.4xlarge"})
endpoint.grant_invoke(iam.Role(chat, "Caller", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com")))

small = Stack(app, "small")
function = MillraceFunction(small, "Millrace", repository=ecr.Repository.from_repository_name(small, "Images", "millrace"), tag_or_digest="1.0",
                            bucket=s3.Bucket.from_bucket_name(small, "Models", "my-models"), prefix="llama/")
caller = iam.Role(small, "Caller", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
function.grant_invoke(caller)
function.grant_invoke_url(caller)

app.synth()
