# Written by make terraform-readme.
locals {
  inputs = [
    "name",
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

module "wrapper" {
  source = "../"

  for_each = var.items

  name = try(each.value.name, var.defaults.name, null)

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
