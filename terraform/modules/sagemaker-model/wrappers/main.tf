# Written by make terraform-readme.
locals {
  inputs = [
    "name",
    "image",
    "weights",
    "environment",
    "revision",
    "vpc",
    "network_isolation",
    "execution_role_arn",
    "permissions",
    "permissions_boundary_arn",
    "tags",
  ]
}

module "wrapper" {
  source = "../"

  for_each = var.items

  name = try(each.value.name, var.defaults.name, null)

  image = try(each.value.image, var.defaults.image, null)

  weights = try(each.value.weights, var.defaults.weights, null)

  environment = try(each.value.environment, var.defaults.environment, null)

  revision = try(each.value.revision, var.defaults.revision, null)

  vpc = try(each.value.vpc, var.defaults.vpc, null)

  network_isolation = try(each.value.network_isolation, var.defaults.network_isolation, null)

  execution_role_arn = try(each.value.execution_role_arn, var.defaults.execution_role_arn, null)

  permissions = try(each.value.permissions, var.defaults.permissions, null)

  permissions_boundary_arn = try(each.value.permissions_boundary_arn, var.defaults.permissions_boundary_arn, null)

  tags = try(each.value.tags, var.defaults.tags, null)
}
