# Each module with all that it can make, and create = false: the plan changes
# nothing. By the wrappers, which show all outputs.

terraform {
  required_version = ">= 1.9"
}

locals {
  registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace"
  image    = "${local.registry}:1.2.0"
  key      = "arn:aws:kms:eu-west-1:123456789012:key/mine"
  topic    = "arn:aws:sns:eu-west-1:123456789012:pager"
  vpc      = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
  weights  = { s3_uri = "s3://models/llama/", kms_key_arn = local.key }
}

module "alarms" {
  source   = "../../modules/alarms/wrappers"
  defaults = { create = false, name = "chat", subject = "It", namespace = "AWS/SageMaker", dimensions = { EndpointName = "chat" } }

  items = { one = { limits = { errors = { metric = "Invocation5XXErrors", limit = 1, says = "fails" } } } }
}

module "artifacts" {
  source   = "../../modules/artifacts/wrappers"
  defaults = { create = false, name = "llm" }

  items = {
    one = {}
    of_a_network = {
      network = {
        vpc_id = "vpc-1", subnet_ids = ["subnet-1"], route_table_ids = ["rtb-1"], cidr_blocks = ["10.0.0.0/16"]
        s3     = "restricted", buckets = ["answers"]
      }
    }
  }
}

module "execution_role" {
  source   = "../../modules/execution-role/wrappers"
  defaults = { create = false, name = "chat", image = local.image }

  items = { one = { vpc = local.vpc, read_s3_uris = ["s3://models/llama/"] } }
}

module "inference_component" {
  source   = "../../modules/inference-component/wrappers"
  defaults = { create = false, name = "small", endpoint_name = "fleet", image = local.image, resources = { min_memory_mb = 4096 } }

  items = {
    one             = { vpc = local.vpc, weights = local.weights }
    with_an_adapter = { adapters = { legal = "s3://adapters/legal.tar.gz" }, copies = { min = 0, max = 2 } }
  }
}

module "lambda_function" {
  source   = "../../modules/lambda-function/wrappers"
  defaults = { create = false, name = "titles", image = "${local.registry}@sha256:${sha256("image")}", weights = local.weights }

  items = {
    of_a_queue   = { queue = { arn = "arn:aws:sqs:eu-west-1:123456789012:titles", output_s3_uri = "s3://answers/titles/" }, vpc = local.vpc }
    with_a_url   = { url = {}, provisioned_concurrency = 1 }
    on_instances = { managed_instances = merge(local.vpc, { min_environments = 3 }), memory_mb = 4096 }
  }
}

module "sagemaker_model" {
  source   = "../../modules/sagemaker-model/wrappers"
  defaults = { create = false, name = "chat", image = local.image }

  items = { one = { weights = local.weights }, with_a_role = { execution_role_arn = "arn:aws:iam::123456789012:role/mine" } }
}

module "sagemaker_endpoint" {
  source   = "../../modules/sagemaker-endpoint/wrappers"
  defaults = { create = false, name = "chat" }

  items = {
    of_realtime   = { image = local.image, weights = local.weights, vpc = local.vpc, instance = { type = "ml.c7i.xlarge" }, autoscaling = { max = 3 } }
    of_async      = { mode = "async", image = local.image, instance = { type = "ml.c7i.xlarge" }, autoscaling = { min = 0, max = 2 }, async = { input_s3_uris = ["s3://answers/in/"], output_s3_uri = "s3://answers/out/", error_topic_arn = local.topic } }
    of_serverless = { mode = "serverless", image = local.image, weights = { s3_uri = "s3://models/llama.tar.gz" } }
    of_components = { mode = "components", instance = { type = "ml.c7i.xlarge" } }
    of_a_stack    = { image = local.image, instance = { type = "ml.c7i.xlarge", fallback_types = ["ml.c6i.xlarge"] }, metrics = {}, routing = { strategy = "PREFIX_AWARE", prefix_length = 2048 } }
    with_a_shadow = { image = local.image, instance = { type = "ml.c7i.xlarge" }, shadow = { image = "${local.registry}:1.3.0", percent = 50 } }
  }
}
