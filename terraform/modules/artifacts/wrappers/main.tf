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
    "repositories",
    "keep_untagged_days",
    "keep_old_weights_days",
    "kms_key_arn",
    "network",
    "force_destroy",
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

  repositories = try(each.value.repositories, var.defaults.repositories, null)

  keep_untagged_days = try(each.value.keep_untagged_days, var.defaults.keep_untagged_days, null)

  keep_old_weights_days = try(each.value.keep_old_weights_days, var.defaults.keep_old_weights_days, null)

  kms_key_arn = try(each.value.kms_key_arn, var.defaults.kms_key_arn, null)

  network = try(each.value.network, var.defaults.network, null)

  force_destroy = try(each.value.force_destroy, var.defaults.force_destroy, null)

  tags = try(each.value.tags, var.defaults.tags, null)
}

output "wrapper" {
  description = "The module's outputs, by the keys of items."
  value       = module.wrapper
}
