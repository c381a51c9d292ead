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
    "use_name_prefix",
    "path",
    "image",
    "read_s3_uris",
    "write_s3_uris",
    "kms_key_arns",
    "log_group_names",
    "topic_arns",
    "vpc",
    "session_manager",
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

  use_name_prefix = try(each.value.use_name_prefix, var.defaults.use_name_prefix, null)

  path = try(each.value.path, var.defaults.path, null)

  image = try(each.value.image, var.defaults.image, null)

  read_s3_uris = try(each.value.read_s3_uris, var.defaults.read_s3_uris, null)

  write_s3_uris = try(each.value.write_s3_uris, var.defaults.write_s3_uris, null)

  kms_key_arns = try(each.value.kms_key_arns, var.defaults.kms_key_arns, null)

  log_group_names = try(each.value.log_group_names, var.defaults.log_group_names, null)

  topic_arns = try(each.value.topic_arns, var.defaults.topic_arns, null)

  vpc = try(each.value.vpc, var.defaults.vpc, null)

  session_manager = try(each.value.session_manager, var.defaults.session_manager, null)

  permissions_boundary_arn = try(each.value.permissions_boundary_arn, var.defaults.permissions_boundary_arn, null)

  tags = try(each.value.tags, var.defaults.tags, null)
}

output "wrapper" {
  description = "The module's outputs, by the keys of items."
  value       = module.wrapper
}
