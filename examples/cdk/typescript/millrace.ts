/** Constructs of Millrace for the AWS CDK: an endpoint on SageMaker, and a Lambda function with a URL that streams. */
import * as path from "node:path";
import {
  Duration, aws_ecr as ecr, aws_iam as iam, aws_lambda as lambda, aws_logs as logs, aws_s3 as s3, aws_sagemaker as sagemaker,
  cloudformation_include as include,
} from "aws-cdk-lib";
import { Construct } from "constructs";

const template = path.join(__dirname, "../../cloudformation/sagemaker.yaml");
const ruled = ["ShadowTag", "FallbackInstanceType"]; // the CDK replaces no parameter that a rule of the template reads

/**
 * An endpoint on SageMaker with its role, log group, scaling and alarm: the template ../../cloudformation/sagemaker.yaml.
 *
 * It takes the template's parameters by their names; those that are not given stay parameters of the stack, with the
 * template's defaults. The stack's name is the endpoint's, so a stack holds one.
 */
export class MillraceEndpoint extends Construct {
  readonly template: include.CfnInclude;
  readonly endpoint: sagemaker.CfnEndpoint;
  readonly endpointName: string;

  constructor(scope: Construct, id: string, parameters: Record<string, string | number> = {}) {
    super(scope, id);
    this.template = new include.CfnInclude(this, "Template", {
      templateFile: template,
      parameters: Object.fromEntries(Object.entries(parameters).filter(([name]) => !ruled.includes(name))),
    });
    for (const name of ruled) {
      if (name in parameters) this.template.getParameter(name).default = parameters[name];
    }
    this.endpoint = this.template.getResource("Endpoint") as sagemaker.CfnEndpoint;
    this.endpointName = this.endpoint.attrEndpointName;
  }

  grantInvoke(grantee: iam.IGrantable): iam.Grant {
    const actions = ["InvokeEndpoint", "InvokeEndpointWithResponseStream", "InvokeEndpointWithBidirectionalStream"];
    return iam.Grant.addToPrincipal({ grantee, actions: actions.map((a) => `sagemaker:${a}`), resourceArns: [this.endpoint.ref] });
  }
}

export interface MillraceFunctionProps {
  readonly repository: ecr.IRepository;
  readonly tagOrDigest: string;
  readonly bucket?: s3.IBucket;
  readonly prefix?: string;
  readonly memorySize?: number;
  readonly timeout?: Duration;
  readonly environment?: Record<string, string>;
}

/**
 * A Lambda function of Millrace's image in ECR, with a URL that streams and that IAM signs for. The weights are the
 * image's own, or lie in a bucket below a prefix that ends in a slash.
 */
export class MillraceFunction extends lambda.DockerImageFunction {
  readonly url: lambda.FunctionUrl;

  constructor(scope: Construct, id: string, props: MillraceFunctionProps) {
    const prefix = props.prefix ?? "";
    super(scope, id, {
      code: lambda.DockerImageCode.fromEcr(props.repository, { tagOrDigest: props.tagOrDigest }),
      memorySize: props.memorySize ?? 3008,
      timeout: props.timeout ?? Duration.minutes(5),
      environment: {
        LAMBDA_INVOKE_MODE: "stream", // as the URL's mode
        ...props.environment,
        ...(props.bucket && { MODEL_ID: props.bucket.s3UrlForObject(prefix) }),
      },
      loggingFormat: lambda.LoggingFormat.JSON,
      logGroup: new logs.LogGroup(scope, `${id}Logs`, { retention: logs.RetentionDays.ONE_MONTH }),
    });
    props.bucket?.grantRead(this, `${prefix}*`);
    this.url = this.addFunctionUrl({ authType: lambda.FunctionUrlAuthType.AWS_IAM, invokeMode: lambda.InvokeMode.RESPONSE_STREAM });
  }
}
