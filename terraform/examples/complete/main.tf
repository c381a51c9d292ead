provider "aws" {
  region = var.region
}

locals {
  tags       = { service = var.name }
  alarms     = { action_arns = [var.pager] }
  logs       = { retention_days = 400, kms_key_arn = module.artifacts.kms_key_arn }
  repository = module.artifacts.repository_urls["${var.name}/millrace"]
}

module "artifacts" {
  source = "../../modules/artifacts"

  name         = var.name
  repositories = ["${var.name}/millrace"]
  network      = var.network
  tags         = local.tags
}

module "chat" {
  source = "../../modules/sagemaker-endpoint"

  name  = "${var.name}-chat"
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

  name  = "${var.name}-titles"
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

  name   = "${var.name}-${each.key}"
  role   = var.caller_role
  policy = each.value
}
