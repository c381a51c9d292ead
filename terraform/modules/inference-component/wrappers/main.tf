# Written by make terraform-readme.
terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.69, < 7.0"
    }
    awscc = {
      source  = "hashicorp/awscc"
      version = ">= 1.106, < 2.0"
    }
  }
}

locals {
  inputs = [
    "create",
    "name",
    "endpoint_name",
    "variant_name",
    "image",
    "weights",
    "environment",
    "revision",
    "slots",
    "network_isolation",
    "vpc",
    "adapters",
    "resources",
    "copies",
    "caching",
    "timeouts",
    "deployment",
    "logs",
    "alarms",
    "execution_role_arn",
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

  endpoint_name = try(each.value.endpoint_name, var.defaults.endpoint_name, null)

  variant_name = try(each.value.variant_name, var.defaults.variant_name, null)

  image = try(each.value.image, var.defaults.image, null)

  weights = try(each.value.weights, var.defaults.weights, null)

  environment = try(each.value.environment, var.defaults.environment, null)

  revision = try(each.value.revision, var.defaults.revision, null)

  slots = try(each.value.slots, var.defaults.slots, null)

  network_isolation = try(each.value.network_isolation, var.defaults.network_isolation, null)

  vpc = try(each.value.vpc, var.defaults.vpc, null)

  adapters = try(each.value.adapters, var.defaults.adapters, null)

  resources = try(each.value.resources, var.defaults.resources, null)

  copies = try(each.value.copies, var.defaults.copies, null)

  caching = try(each.value.caching, var.defaults.caching, null)

  timeouts = try(each.value.timeouts, var.defaults.timeouts, null)

  deployment = try(each.value.deployment, var.defaults.deployment, null)

  logs = try(each.value.logs, var.defaults.logs, null)

  alarms = try(each.value.alarms, var.defaults.alarms, null)

  execution_role_arn = try(each.value.execution_role_arn, var.defaults.execution_role_arn, null)

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
