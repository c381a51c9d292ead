locals {
  variant        = "main"
  shadow_variant = "shadow"

  components = var.mode == "components"
  serverless = var.mode == "serverless"
  slots      = coalesce(var.slots, 64)
  # What SageMaker hands to an instance at once.
  async_slots = coalesce(try(var.async.max_concurrency, null), min(local.slots, 1000))

  # What the names of instance types say of them.
  gpu_type  = "^ml\\.[gp][0-9]"
  arm_type  = "^ml\\.([cmrt][0-9]+[a-z]*g|[gp][0-9]+g)"
  nvme_type = "^ml\\.([a-z0-9-]*\\dg?d[a-z]*|g[4-9][a-z]*|p[4-9][a-z0-9-]*|trn[0-9][a-z]*)\\."

  # Of both variants, if there are two.
  instance_count = local.serverless ? null : max(var.instance.count, try(var.autoscaling.min, 1), try(var.instance.managed_scaling.min, 1))
  ami_version    = local.serverless ? null : try(coalesce(var.instance.ami_version, can(regex(local.gpu_type, var.instance.type)) ? "al2023-ami-sagemaker-inference-gpu-4-1" : null), null)
  # Requests differ a hundredfold in length: the least busy copy, not any.
  routing_strategy = try(var.routing.strategy, "LEAST_OUTSTANDING_REQUESTS")

  # Null is what tells an input that was left out from one that the mode ignores.
  timeouts = coalesce(var.timeouts, { download = 1800, startup = 900 })
  deployment = coalesce(var.deployment, {
    strategy = "all_at_once", percent = null, wait_seconds = 300, keep_old_seconds = null, timeout_seconds = 7200, rollback_on_alarm = true
  })

  # Some clients send the endpoint's name as the model's. The server stops a
  # generation before SageMaker's 60 s; an asynchronous call has an hour.
  environment = merge(
    { SERVED_MODEL_NAME = var.name },
    var.slots == null ? {} : { MAX_BATCH_SIZE = tostring(var.slots) },
    var.mode == "async" ? { SAGEMAKER_REQUEST_DEADLINE = "0" } : {},
    var.environment,
  )

  writes = [for uri in [
    try(var.async.output_s3_uri, null), try(var.async.failure_s3_uri, null),
    try(var.data_capture.s3_uri, null), try(var.instance.core_dump_s3_uri, null),
  ] : uri if uri != null]
  permissions = {
    read_s3_uris  = try(var.async.input_s3_uris, [])
    write_s3_uris = local.writes
    kms_key_arns = distinct(compact([
      try(var.async.kms_key_arn, null), try(var.data_capture.kms_key_arn, null), try(var.instance.core_dump_kms_key_arn, null),
    ]))
    log_group_names = aws_cloudwatch_log_group.this[*].name
    topic_arns      = compact([try(var.async.success_topic_arn, null), try(var.async.error_topic_arn, null)])
    session_manager = try(var.instance.session_manager, false)
  }
}

# Made before the endpoint: a group that SageMaker makes keeps its logs for ever.
resource "aws_cloudwatch_log_group" "this" {
  # checkov:skip=CKV_AWS_158:the key is the user's to give; without one CloudWatch encrypts with its own
  count = var.create ? 1 : 0

  name              = "/aws/sagemaker/Endpoints/${var.name}"
  retention_in_days = var.logs.retention_days
  kms_key_id        = var.logs.kms_key_arn
  tags              = var.tags
}

module "model" {
  source = "../sagemaker-model"
  count  = local.components ? 0 : 1

  create                   = var.create
  name                     = var.name
  image                    = var.image
  weights                  = var.weights
  environment              = local.environment
  revision                 = var.revision
  vpc                      = var.vpc
  network_isolation        = var.network_isolation
  execution_role_arn       = var.execution_role_arn
  permissions              = local.permissions
  role_name                = var.role_name
  role_use_name_prefix     = var.role_use_name_prefix
  role_path                = var.role_path
  permissions_boundary_arn = var.permissions_boundary_arn
  tags                     = var.tags
}

module "shadow" {
  source = "../sagemaker-model"
  count  = var.shadow == null ? 0 : 1

  create                   = var.create
  name                     = var.name
  image                    = var.shadow.image
  weights                  = var.weights
  environment              = merge(local.environment, var.shadow.environment)
  revision                 = var.revision
  vpc                      = var.vpc
  network_isolation        = var.network_isolation
  execution_role_arn       = var.execution_role_arn
  permissions              = local.permissions
  role_name                = var.role_use_name_prefix ? var.role_name : "${coalesce(var.role_name, var.name)}-shadow"
  role_use_name_prefix     = var.role_use_name_prefix
  role_path                = var.role_path
  permissions_boundary_arn = var.permissions_boundary_arn
  tags                     = var.tags
}

# The components' models have roles of their own; this is the endpoint's.
module "role" {
  source = "../execution-role"
  count  = local.components && var.execution_role_arn == null ? 1 : 0

  create                   = var.create
  name                     = coalesce(var.role_name, var.name)
  use_name_prefix          = var.role_use_name_prefix
  path                     = var.role_path
  write_s3_uris            = local.writes
  log_group_names          = local.permissions.log_group_names
  session_manager          = local.permissions.session_manager
  permissions_boundary_arn = var.permissions_boundary_arn
  tags                     = var.tags
}

# A configuration cannot be changed: a new one is made, the endpoint moves to it,
# and the old one goes. A change of the model reaches it as a new model name.
resource "aws_sagemaker_endpoint_configuration" "this" {
  # checkov:skip=CKV_AWS_98:the key is the user's to give, and instances with NVMe take none
  count = var.create && !local.stacked ? 1 : 0

  name_prefix        = "${substr(var.name, 0, 36)}-"
  kms_key_arn        = var.volume_kms_key_arn
  execution_role_arn = local.components ? (var.execution_role_arn == null ? module.role[0].arn : var.execution_role_arn) : null
  tags               = var.tags

  production_variants {
    variant_name           = local.variant
    model_name             = one(module.model[*].name)
    initial_variant_weight = local.components ? null : 1

    instance_type                                     = try(var.instance.type, null)
    initial_instance_count                            = local.instance_count
    volume_size_in_gb                                 = try(var.instance.volume_gb, null)
    inference_ami_version                             = local.ami_version
    enable_ssm_access                                 = try(var.instance.session_manager, false) ? true : null
    model_data_download_timeout_in_seconds            = local.serverless || local.components ? null : local.timeouts.download
    container_startup_health_check_timeout_in_seconds = local.serverless || local.components ? null : local.timeouts.startup

    dynamic "routing_config" {
      for_each = local.serverless ? [] : [local.routing_strategy]

      content {
        routing_strategy = routing_config.value
      }
    }

    dynamic "managed_instance_scaling" {
      for_each = try(var.instance.managed_scaling[*], [])

      content {
        status             = "ENABLED"
        min_instance_count = managed_instance_scaling.value.min
        max_instance_count = managed_instance_scaling.value.max
      }
    }

    dynamic "core_dump_config" {
      for_each = compact([try(var.instance.core_dump_s3_uri, null)])

      content {
        destination_s3_uri = core_dump_config.value
        kms_key_id         = var.instance.core_dump_kms_key_arn
      }
    }

    dynamic "capacity_reservation_config" {
      for_each = compact([try(var.instance.capacity_reservation_arn, null)])

      content {
        capacity_reservation_preference = "capacity-reservations-only"
        ml_reservation_arn              = capacity_reservation_config.value
      }
    }

    dynamic "serverless_config" {
      for_each = local.serverless ? [coalesce(var.serverless, { memory_mb = 6144, max_concurrency = 10, provisioned_concurrency = null })] : []

      content {
        memory_size_in_mb       = serverless_config.value.memory_mb
        max_concurrency         = serverless_config.value.max_concurrency
        provisioned_concurrency = serverless_config.value.provisioned_concurrency
      }
    }
  }

  dynamic "shadow_production_variants" {
    for_each = var.shadow[*]
    iterator = shadow

    content {
      variant_name           = local.shadow_variant
      model_name             = module.shadow[0].name
      initial_variant_weight = shadow.value.percent / 100

      instance_type                                     = var.instance.type
      initial_instance_count                            = local.instance_count
      volume_size_in_gb                                 = var.instance.volume_gb
      inference_ami_version                             = local.ami_version
      model_data_download_timeout_in_seconds            = local.timeouts.download
      container_startup_health_check_timeout_in_seconds = local.timeouts.startup

      routing_config {
        routing_strategy = local.routing_strategy
      }
    }
  }

  dynamic "async_inference_config" {
    for_each = var.async[*]

    content {
      client_config {
        max_concurrent_invocations_per_instance = local.async_slots
      }

      output_config {
        s3_output_path  = async_inference_config.value.output_s3_uri
        s3_failure_path = async_inference_config.value.failure_s3_uri
        kms_key_id      = async_inference_config.value.kms_key_arn

        dynamic "notification_config" {
          for_each = length(local.permissions.topic_arns) > 0 ? [async_inference_config.value] : []

          content {
            success_topic = notification_config.value.success_topic_arn
            error_topic   = notification_config.value.error_topic_arn
          }
        }
      }
    }
  }

  dynamic "data_capture_config" {
    for_each = var.data_capture[*]

    content {
      enable_capture              = true
      initial_sampling_percentage = data_capture_config.value.percent
      destination_s3_uri          = data_capture_config.value.s3_uri
      kms_key_id                  = data_capture_config.value.kms_key_arn

      capture_options {
        capture_mode = "Input"
      }
      capture_options {
        capture_mode = "Output"
      }
      # Else bodies are kept as base64.
      capture_content_type_header {
        json_content_types = ["application/json", "application/jsonlines"]
      }
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

moved {
  from = aws_sagemaker_endpoint_configuration.this
  to   = aws_sagemaker_endpoint_configuration.this[0]
}

resource "aws_sagemaker_endpoint" "this" {
  count = var.create ? 1 : 0

  name                 = var.name
  endpoint_config_name = local.stacked ? aws_cloudformation_stack.configuration[0].outputs["Name"] : aws_sagemaker_endpoint_configuration.this[0].name
  tags                 = var.tags

  # An endpoint with a shadow has SageMaker's own way only.
  dynamic "deployment_config" {
    for_each = contains(["realtime", "async"], var.mode) && var.shadow == null ? [local.deployment] : []
    iterator = deployment

    content {
      dynamic "blue_green_update_policy" {
        for_each = deployment.value.strategy == "rolling" ? [] : [true]

        content {
          maximum_execution_timeout_in_seconds = deployment.value.timeout_seconds
          termination_wait_in_seconds          = coalesce(deployment.value.keep_old_seconds, 300)

          traffic_routing_configuration {
            type                     = upper(deployment.value.strategy)
            wait_interval_in_seconds = deployment.value.wait_seconds

            dynamic "canary_size" {
              for_each = deployment.value.strategy == "canary" ? [deployment.value.percent] : []

              content {
                type  = "CAPACITY_PERCENT"
                value = coalesce(canary_size.value, 25)
              }
            }

            dynamic "linear_step_size" {
              for_each = deployment.value.strategy == "linear" ? [deployment.value.percent] : []

              content {
                type  = "CAPACITY_PERCENT"
                value = coalesce(linear_step_size.value, 25)
              }
            }
          }
        }
      }

      dynamic "rolling_update_policy" {
        for_each = deployment.value.strategy == "rolling" ? [true] : []

        content {
          maximum_execution_timeout_in_seconds = deployment.value.timeout_seconds
          wait_interval_in_seconds             = deployment.value.wait_seconds

          maximum_batch_size {
            type  = "CAPACITY_PERCENT"
            value = coalesce(deployment.value.percent, 25)
          }
        }
      }

      dynamic "auto_rollback_configuration" {
        for_each = deployment.value.rollback_on_alarm && length(module.alarms.names) > 0 ? [true] : []

        content {
          dynamic "alarms" {
            for_each = module.alarms.names

            content {
              alarm_name = alarms.value
            }
          }
        }
      }
    }
  }

  depends_on = [aws_cloudwatch_log_group.this]
}
