# Written by make terraform-readme.
locals {
  inputs = [
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
    "permissions_boundary_arn",
    "tags",
  ]
}

module "wrapper" {
  source = "../"

  for_each = var.items

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

  permissions_boundary_arn = try(each.value.permissions_boundary_arn, var.defaults.permissions_boundary_arn, null)

  tags = try(each.value.tags, var.defaults.tags, null)
}
