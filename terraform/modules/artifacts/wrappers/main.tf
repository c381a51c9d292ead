# Written by make terraform-readme.
locals {
  inputs = [
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

module "wrapper" {
  source = "../"

  for_each = var.items

  name = try(each.value.name, var.defaults.name, null)

  repositories = try(each.value.repositories, var.defaults.repositories, null)

  keep_untagged_days = try(each.value.keep_untagged_days, var.defaults.keep_untagged_days, null)

  keep_old_weights_days = try(each.value.keep_old_weights_days, var.defaults.keep_old_weights_days, null)

  kms_key_arn = try(each.value.kms_key_arn, var.defaults.kms_key_arn, null)

  network = try(each.value.network, var.defaults.network, null)

  force_destroy = try(each.value.force_destroy, var.defaults.force_destroy, null)

  tags = try(each.value.tags, var.defaults.tags, null)
}
