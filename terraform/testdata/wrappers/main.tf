# Each wrapper, with an instance of its module and no input that it can do without.

locals {
  image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace"
}

module "alarms" {
  source = "../../modules/alarms/wrappers"

  items = { one = { name = "chat", subject = "It", namespace = "AWS/SageMaker", dimensions = {}, limits = {} } }
}

module "artifacts" {
  source = "../../modules/artifacts/wrappers"

  items = { one = { name = "llm" } }
}

module "execution_role" {
  source = "../../modules/execution-role/wrappers"

  items = { one = { name = "chat" } }
}

module "inference_component" {
  source = "../../modules/inference-component/wrappers"

  items = { one = { name = "small", endpoint_name = "fleet", image = "${local.image}:1.2.0", resources = { min_memory_mb = 4096 } } }
}

module "lambda_function" {
  source = "../../modules/lambda-function/wrappers"

  items = { one = { name = "titles", image = "${local.image}@sha256:${sha256("image")}" } }
}

module "sagemaker_model" {
  source = "../../modules/sagemaker-model/wrappers"

  items = { one = { name = "chat", image = "${local.image}:1.2.0" } }
}

module "sagemaker_endpoint" {
  source = "../../modules/sagemaker-endpoint/wrappers"

  defaults = { image = "${local.image}:1.2.0", instance = { type = "ml.c7i.xlarge" } }
  items = {
    small = { name = "small" }
    large = { name = "large", instance = { type = "ml.c7i.8xlarge" }, autoscaling = { max = 3 } }
  }
}

output "endpoints" {
  description = "Names of the endpoints, by their keys."
  value       = { for key, endpoint in module.sagemaker_endpoint.wrapper : key => endpoint.name }
}
