// The CDK constructs of examples/cdk in TypeScript, compiled and synthesised. Those in Python make the same: ../test_cdk.py.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { synthesize } from "./cdk.mjs";

let chat, small;

before(() => {
  ({ chat, small } = synthesize());
});

const resources = (template, type) => Object.values(template.Resources).filter((r) => r.Type === type).map((r) => r.Properties);

test("the endpoint is the template with its parameters", () => {
  assert.ok(!("Tag" in chat.Parameters) && "Weights" in chat.Parameters);
  assert.equal(chat.Parameters.FallbackInstanceType.Default, "ml.c6i.4xlarge");
  const [model] = resources(chat, "AWS::SageMaker::Model").filter((m) => !JSON.stringify(m).includes("ShadowTag"));
  assert.deepEqual(model.PrimaryContainer.Image, { "Fn::Sub": "${AWS::AccountId}.dkr.ecr.${AWS::Region}.${AWS::URLSuffix}/${Repository}:1.0" });
  assert.deepEqual(resources(chat, "AWS::IAM::Policy")[0].PolicyDocument.Statement[0].Resource, { Ref: "Endpoint" });
});

test("the function's URL streams as the function does", () => {
  const [fn] = resources(small, "AWS::Lambda::Function");
  const [url] = resources(small, "AWS::Lambda::Url");
  assert.equal(fn.PackageType, "Image");
  assert.deepEqual(fn.Environment.Variables, { LAMBDA_INVOKE_MODE: "stream", MODEL_ID: "s3://my-models/llama/" });
  assert.deepEqual([url.InvokeMode, url.AuthType], ["RESPONSE_STREAM", "AWS_IAM"]);
});
