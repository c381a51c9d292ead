// An endpoint and a function, and a role that may call each: npx aws-cdk deploy --all.
import { App, Stack, aws_ecr as ecr, aws_iam as iam, aws_s3 as s3 } from "aws-cdk-lib";
import { MillraceEndpoint, MillraceFunction } from "./millrace";

const app = new App();

const chat = new Stack(app, "chat");
const endpoint = new MillraceEndpoint(chat, "Millrace", { Tag: "1.0", Routing: "PREFIX_AWARE", FallbackInstanceType: "ml.c6i.4xlarge" });
endpoint.grantInvoke(new iam.Role(chat, "Caller", { assumedBy: new iam.ServicePrincipal("ec2.amazonaws.com") }));

const small = new Stack(app, "small");
const fn = new MillraceFunction(small, "Millrace", {
  repository: ecr.Repository.fromRepositoryName(small, "Images", "millrace"),
  tagOrDigest: "1.0",
  bucket: s3.Bucket.fromBucketName(small, "Models", "my-models"),
  prefix: "llama/",
});
const caller = new iam.Role(small, "Caller", { assumedBy: new iam.ServicePrincipal("ec2.amazonaws.com") });
fn.grantInvoke(caller);
fn.grantInvokeUrl(caller);

app.synth();
