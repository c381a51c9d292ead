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
    "subject",
    "namespace",
    "dimensions",
    "limits",
    "action_arns",
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

  subject = try(each.value.subject, var.defaults.subject, null)

  namespace = try(each.value.namespace, var.defaults.namespace, null)

  dimensions = try(each.value.dimensions, var.defaults.dimensions, null)

  limits = try(each.value.limits, var.defaults.limits, null)

  action_arns = try(each.value.action_arns, var.defaults.action_arns, null)

  tags = try(each.value.tags, var.defaults.tags, null)
}

output "wrapper" {
  description = "The module's outputs, by the keys of items."
  value       = module.wrapper
}
