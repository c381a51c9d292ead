locals {
  slots = coalesce(var.slots, 64)
}

# Made before the component: a group that SageMaker makes keeps its logs for ever.
resource "aws_cloudwatch_log_group" "this" {
  # checkov:skip=CKV_AWS_158:the key is the user's to give; without one CloudWatch encrypts with its own
  count = var.create ? 1 : 0

  name              = "/aws/sagemaker/InferenceComponents/${var.name}"
  retention_in_days = var.logs.retention_days
  kms_key_id        = var.logs.kms_key_arn
  tags              = var.tags
}

module "model" {
  source = "../sagemaker-model"

  create                   = var.create
  name                     = var.name
  image                    = var.image
  weights                  = var.weights
  environment              = merge({ SERVED_MODEL_NAME = var.name }, var.slots == null ? {} : { MAX_BATCH_SIZE = tostring(var.slots) }, var.environment)
  revision                 = var.revision
  vpc                      = var.vpc
  network_isolation        = var.network_isolation
  execution_role_arn       = var.execution_role_arn
  role_name                = var.role_name
  role_use_name_prefix     = var.role_use_name_prefix
  role_path                = var.role_path
  permissions_boundary_arn = var.permissions_boundary_arn
  tags                     = var.tags

  permissions = {
    read_s3_uris    = values(var.adapters)
    log_group_names = aws_cloudwatch_log_group.this[*].name
  }
}

# A component names a model, and not an image, because a model takes weights
# from a prefix and more than 16 environment variables.
resource "awscc_sagemaker_inference_component" "this" {
  count = var.create ? 1 : 0

  inference_component_name = var.name
  endpoint_name            = var.endpoint_name
  variant_name             = var.variant_name
  tags                     = [for key, value in var.tags : { key = key, value = value }]

  specification = {
    model_name = module.model.name

    compute_resource_requirements = {
      number_of_accelerator_devices_required = var.resources.accelerators
      number_of_cpu_cores_required           = var.resources.cpus
      min_memory_required_in_mb              = var.resources.min_memory_mb
      max_memory_required_in_mb              = var.resources.max_memory_mb
    }
    startup_parameters = {
      model_data_download_timeout_in_seconds            = var.timeouts.download
      container_startup_health_check_timeout_in_seconds = var.timeouts.startup
    }
    data_cache_config = { enable_caching = var.caching }
  }

  runtime_config = { copy_count = max(1, var.copies.min) }

  deployment_config = {
    rolling_update_policy = {
      maximum_batch_size                   = { type = "CAPACITY_PERCENT", value = var.deployment.percent }
      wait_interval_in_seconds             = var.deployment.wait_seconds
      maximum_execution_timeout_in_seconds = var.deployment.timeout_seconds
    }
    auto_rollback_configuration = var.deployment.rollback_on_alarm && length(module.alarms.names) > 0 ? {
      alarms = [for name in module.alarms.names : { alarm_name = name }]
    } : null
  }

  lifecycle {
    # The number of copies is the scaling policy's.
    ignore_changes = [runtime_config]
  }

  depends_on = [aws_cloudwatch_log_group.this]
}

resource "awscc_sagemaker_inference_component" "adapter" {
  for_each = var.create ? var.adapters : {}

  inference_component_name = "${var.name}-${each.key}"
  endpoint_name            = var.endpoint_name
  tags                     = [for key, value in var.tags : { key = key, value = value }]

  specification = {
    base_inference_component_name = awscc_sagemaker_inference_component.this[0].inference_component_name
    container                     = { artifact_url = each.value }
  }
}
