data "aws_region" "current" {}

locals {
  streamed   = try(var.weights.stream, false)
  archive    = !local.streamed && try(endswith(var.weights.s3_uri, ".tar.gz"), false)
  prefix     = !local.streamed && try(endswith(var.weights.s3_uri, "/"), false)
  additional = try(var.weights.additional, {})

  image_region = split(".", var.image)[3] # ACCOUNT.dkr.ecr.REGION.amazonaws.com/…

  # The server tells by SAGEMAKER_REGION that it is on SageMaker: without weights
  # of SageMaker's nothing else need say so.
  environment = merge(
    { SAGEMAKER_REGION = data.aws_region.current.region },
    local.streamed ? { MODEL_ID = var.weights.s3_uri } : {},
    var.environment,
  )

  role = [coalesce(var.role_name, var.name), tostring(var.role_use_name_prefix), var.role_path]

  # A model cannot be changed, and must not go before the last endpoint that
  # uses it has another: hence a new name for each content.
  content = sha256(jsonencode(concat([
    var.image, var.weights, local.environment, var.vpc, var.network_isolation, var.execution_role_arn, var.revision,
    # What makes another role makes another model, which names its role.
  ], local.role == [var.name, "true", "/"] ? [] : local.role)))
  name = "${var.name}-${substr(local.content, 0, 8)}"
}

module "role" {
  source = "../execution-role"
  count  = var.execution_role_arn == null ? 1 : 0

  create                   = var.create
  name                     = coalesce(var.role_name, var.name)
  use_name_prefix          = var.role_use_name_prefix
  path                     = var.role_path
  image                    = var.image
  read_s3_uris             = concat(compact([try(var.weights.s3_uri, null)]), values(local.additional), var.permissions.read_s3_uris)
  write_s3_uris            = var.permissions.write_s3_uris
  kms_key_arns             = distinct(concat(compact([try(var.weights.kms_key_arn, null)]), var.permissions.kms_key_arns))
  log_group_names          = var.permissions.log_group_names
  topic_arns               = var.permissions.topic_arns
  session_manager          = var.permissions.session_manager
  vpc                      = var.vpc
  permissions_boundary_arn = var.permissions_boundary_arn
  tags                     = var.tags
}

resource "aws_sagemaker_model" "this" {
  # checkov:skip=CKV_AWS_370:network_isolation is the user's to ask for: streamed weights need the network
  count = var.create ? 1 : 0

  name                     = local.name
  execution_role_arn       = var.execution_role_arn == null ? module.role[0].arn : var.execution_role_arn
  enable_network_isolation = var.network_isolation
  tags                     = var.tags

  primary_container {
    image          = var.image
    environment    = local.environment
    model_data_url = local.archive ? var.weights.s3_uri : null

    dynamic "model_data_source" {
      for_each = local.prefix ? [var.weights] : []

      content {
        s3_data_source {
          s3_uri           = model_data_source.value.s3_uri
          s3_data_type     = "S3Prefix"
          compression_type = "None"

          dynamic "model_access_config" {
            for_each = model_data_source.value.accept_eula ? [true] : []

            content {
              accept_eula = true
            }
          }
        }
      }
    }

    dynamic "additional_model_data_source" {
      for_each = local.additional

      content {
        channel_name = additional_model_data_source.key

        s3_data_source {
          s3_uri           = additional_model_data_source.value
          s3_data_type     = "S3Prefix"
          compression_type = "None"
        }
      }
    }
  }

  dynamic "vpc_config" {
    for_each = var.vpc[*]

    content {
      subnets            = vpc_config.value.subnet_ids
      security_group_ids = vpc_config.value.security_group_ids
    }
  }

  lifecycle {
    create_before_destroy = true

    precondition {
      condition     = local.image_region == data.aws_region.current.region
      error_message = "image is in ${local.image_region}, the model in ${data.aws_region.current.region}: SageMaker pulls from its own region's ECR only; copy the image there"
    }
  }
}
