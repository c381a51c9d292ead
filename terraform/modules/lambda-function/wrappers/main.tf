# Written by make terraform-readme.
terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.69, < 7.0"
    }
  }
}

locals {
  inputs = [
    "create",
    "name",
    "image",
    "architecture",
    "weights",
    "environment",
    "command",
    "memory_mb",
    "tmp_mb",
    "timeout_seconds",
    "reserved_concurrency",
    "provisioned_concurrency",
    "snap_start",
    "managed_instances",
    "vpc",
    "url",
    "queue",
    "tracing",
    "environment_kms_key_arn",
    "logs",
    "alarms",
    "role_name",
    "role_use_name_prefix",
    "role_path",
    "permissions_boundary_arn",
    "tags",
  ]
}

variable "defaults" {
  description = "Inputs of the module that hold for each of the items, unless it has its own."
  type        = any
  default     = {}
  nullable    = false

  validation {
    condition     = length(setsubtract(keys(var.defaults), local.inputs)) == 0
    error_message = "defaults: the module has no input ${join(", ", setsubtract(keys(var.defaults), local.inputs))}"
  }
}

variable "items" {
  description = "Inputs of the module, by a key for each instance of it; an empty map creates nothing."
  type        = any
  default     = {}
  nullable    = false

  validation {
    condition     = length(setsubtract(flatten([for item in values(var.items) : keys(item)]), local.inputs)) == 0
    error_message = "items: the module has no input ${join(", ", setsubtract(flatten([for item in values(var.items) : keys(item)]), local.inputs))}"
  }
}

module "wrapper" {
  source = "../"

  for_each = var.items

  create = try(each.value.create, var.defaults.create, null)

  name = try(each.value.name, var.defaults.name, null)

  image = try(each.value.image, var.defaults.image, null)

  architecture = try(each.value.architecture, var.defaults.architecture, null)

  weights = try(each.value.weights, var.defaults.weights, null)

  environment = try(each.value.environment, var.defaults.environment, null)

  command = try(each.value.command, var.defaults.command, null)

  memory_mb = try(each.value.memory_mb, var.defaults.memory_mb, null)

  tmp_mb = try(each.value.tmp_mb, var.defaults.tmp_mb, null)

  timeout_seconds = try(each.value.timeout_seconds, var.defaults.timeout_seconds, null)

  reserved_concurrency = try(each.value.reserved_concurrency, var.defaults.reserved_concurrency, null)

  provisioned_concurrency = try(each.value.provisioned_concurrency, var.defaults.provisioned_concurrency, null)

  snap_start = try(each.value.snap_start, var.defaults.snap_start, null)

  managed_instances = try(each.value.managed_instances, var.defaults.managed_instances, null)

  vpc = try(each.value.vpc, var.defaults.vpc, null)

  url = try(each.value.url, var.defaults.url, null)

  queue = try(each.value.queue, var.defaults.queue, null)

  tracing = try(each.value.tracing, var.defaults.tracing, null)

  environment_kms_key_arn = try(each.value.environment_kms_key_arn, var.defaults.environment_kms_key_arn, null)

  logs = try(each.value.logs, var.defaults.logs, null)

  alarms = try(each.value.alarms, var.defaults.alarms, null)

  role_name = try(each.value.role_name, var.defaults.role_name, null)

  role_use_name_prefix = try(each.value.role_use_name_prefix, var.defaults.role_use_name_prefix, null)

  role_path = try(each.value.role_path, var.defaults.role_path, null)

  permissions_boundary_arn = try(each.value.permissions_boundary_arn, var.defaults.permissions_boundary_arn, null)

  tags = try(each.value.tags, var.defaults.tags, null)
}

output "wrapper" {
  description = "The module's outputs, by the keys of items."
  value       = module.wrapper
}
