# Everything of one's own: a bucket and a repository, a network without a way
# out, an endpoint in it that updates by canary, and a function for small work.
#
# The bucket and the repository come first, then what is put into them, and then
# the rest. network, pager and caller_role stand in terraform.tfvars.
#
#   terraform apply -target module.artifacts -var tag= -var digest=
#   aws s3 cp --recursive CHECKPOINT "$(terraform output -raw s3_uri)llama/"
#   aws s3 cp --recursive SMALL_CHECKPOINT "$(terraform output -raw s3_uri)small/"
#   make -C ../../.. image IMAGE="$(terraform output -raw repository_url):1.2.0"
#   docker push "$(terraform output -raw repository_url):1.2.0"     # prints the digest
#   terraform apply -var tag=1.2.0 -var digest=sha256:...

variable "tag" {
  description = "Tag of the image, for the endpoint."
  type        = string
}

variable "digest" {
  description = "The image's digest for x86_64, for the function."
  type        = string
}

variable "network" {
  description = "The VPC, its private subnets, their route tables and addresses, and the endpoint's security groups."
  type = object({
    vpc_id             = string
    subnet_ids         = list(string)
    security_group_ids = list(string)
    route_table_ids    = list(string)
    cidr_blocks        = list(string)
  })
}

variable "pager" {
  description = "SNS topic that alarms are sent to."
  type        = string
}

variable "caller_role" {
  description = "Name of the role that calls the endpoint and the function."
  type        = string
}

locals {
  tags       = { service = "llm" }
  alarms     = { action_arns = [var.pager] }
  logs       = { retention_days = 400, kms_key_arn = module.artifacts.kms_key_arn }
  repository = module.artifacts.repository_urls["millrace"]
}

module "artifacts" {
  source = "../../modules/artifacts"

  name    = "llm"
  network = var.network
  tags    = local.tags
}

module "chat" {
  source = "../../modules/sagemaker-endpoint"

  name  = "chat"
  image = "${local.repository}:${var.tag}"
  weights = {
    s3_uri      = "${module.artifacts.s3_uri}llama/"
    kms_key_arn = module.artifacts.kms_key_arn
  }
  instance          = { type = "ml.c7i.4xlarge", count = 2, core_dump_s3_uri = "${module.artifacts.s3_uri}dumps/" }
  slots             = 16
  autoscaling       = { min = 2, max = 8 }
  network_isolation = true
  vpc = {
    subnet_ids         = var.network.subnet_ids
    security_group_ids = var.network.security_group_ids
  }
  environment = { MAX_TOTAL_TOKENS = "8192" }
  timeouts    = { startup = 600 }
  routing     = { strategy = "PREFIX_AWARE", prefix_length = 2048 }
  metrics     = {}
  deployment  = { strategy = "canary", percent = 25 }
  data_capture = {
    s3_uri      = "${module.artifacts.s3_uri}captured/"
    percent     = 1
    kms_key_arn = module.artifacts.kms_key_arn
  }
  alarms = local.alarms
  logs   = local.logs
  tags   = local.tags
}

module "titles" {
  source = "../../modules/lambda-function"

  name  = "titles"
  image = "${local.repository}@${var.digest}"
  weights = {
    s3_uri      = "${module.artifacts.s3_uri}small/"
    kms_key_arn = module.artifacts.kms_key_arn
  }
  environment_kms_key_arn = module.artifacts.kms_key_arn
  reserved_concurrency    = 20
  provisioned_concurrency = 1
  url                     = { cors = { allow_origins = ["https://example.com"] } }
  alarms                  = local.alarms
  logs                    = local.logs
  tags                    = local.tags
}

# Whoever gets this policy may call both.
resource "aws_iam_role_policy" "caller" {
  for_each = { endpoint = module.chat.invoke_policy_json, function = module.titles.invoke_policy_json }

  name   = "llm-${each.key}"
  role   = var.caller_role
  policy = each.value
}

output "s3_uri" {
  description = "Where weights go: add a prefix for each model."
  value       = module.artifacts.s3_uri
}

output "repository_url" {
  description = "Where images go: add a tag."
  value       = local.repository
}

output "endpoint" {
  description = "Name of the endpoint: EndpointName for the invoke calls."
  value       = module.chat.name
}

output "url" {
  description = "URL of the function, for signed requests."
  value       = module.titles.url
}
