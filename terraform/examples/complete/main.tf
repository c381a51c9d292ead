# Everything of one's own: a bucket and a repository, a network without a way
# out, an endpoint in it that updates by canary, and a function for small work.
#
# The bucket and the repository come first, and then what is put into them:
#
#   terraform apply -target module.artifacts
#   aws s3 cp --recursive CHECKPOINT "$(terraform output -raw s3_uri)llama/"
#   docker push "$(terraform output -raw repository_url):1.2.0"
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
  instance          = { type = "ml.g6.xlarge", count = 2, core_dump_s3_uri = "${module.artifacts.s3_uri}dumps/" }
  slots             = 32
  autoscaling       = { min = 2, max = 8 }
  network_isolation = true
  vpc = {
    subnet_ids         = var.network.subnet_ids
    security_group_ids = var.network.security_group_ids
  }
  environment = { MAX_TOTAL_TOKENS = "8192" }
  timeouts    = { startup = 600 }
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
  value = module.artifacts.s3_uri
}

output "repository_url" {
  value = local.repository
}

output "endpoint" {
  value = module.chat.name
}

output "url" {
  value = module.titles.url
}
