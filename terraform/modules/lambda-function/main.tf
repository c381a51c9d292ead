locals {
  managed   = var.create && var.managed_instances != null
  log_group = "/aws/lambda/${var.name}"

  image_region = split(".", var.image)[3] # ACCOUNT.dkr.ecr.REGION.amazonaws.com/…

  # No event says whether the URL streams. Its CORS headers and the server's must
  # name the same origins: browsers refuse two values.
  environment = merge(
    try(var.url.stream, false) ? { LAMBDA_INVOKE_MODE = "stream" } : {},
    try(var.url.cors, null) == null ? {} : { CORS_ALLOW_ORIGIN = join(",", var.url.cors.allow_origins) },
    var.weights == null ? {} : { MODEL_ID = var.weights.s3_uri },
    var.queue == null ? {} : { QUEUE_OUTPUT = var.queue.output_s3_uri },
    local.managed ? { MAX_BATCH_SIZE = tostring(var.managed_instances.max_concurrency) } : {},
    var.environment,
  )
}

# Made before the function: a group that Lambda makes keeps its logs for ever.
resource "aws_cloudwatch_log_group" "this" {
  # checkov:skip=CKV_AWS_158:the key is the user's to give; without one CloudWatch encrypts with its own
  count = var.create ? 1 : 0

  name              = local.log_group
  retention_in_days = var.logs.retention_days
  kms_key_id        = var.logs.kms_key_arn
  tags              = var.tags
}

resource "aws_lambda_function" "this" {
  # checkov:skip=CKV_AWS_115:reserved_concurrency takes from what other functions of the account may use: the user's to say
  # checkov:skip=CKV_AWS_116:the function is called for its answer; a queue of failed asynchronous calls has nothing to hold
  # checkov:skip=CKV_AWS_117:without vpc the function has no way into a network, which is what most want
  # checkov:skip=CKV_AWS_173:the key is the user's to give; without one Lambda encrypts with its own
  # checkov:skip=CKV_AWS_272:code signing is for archives; an image is named by its digest
  count = var.create ? 1 : 0

  function_name                  = var.name
  role                           = aws_iam_role.this[0].arn
  package_type                   = "Image"
  image_uri                      = var.image
  architectures                  = [var.architecture]
  memory_size                    = var.memory_mb
  timeout                        = var.timeout_seconds
  publish                        = true
  reserved_concurrent_executions = var.reserved_concurrency
  kms_key_arn                    = var.environment_kms_key_arn
  tags                           = var.tags

  ephemeral_storage {
    size = var.tmp_mb
  }

  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.this[0].name
  }

  tracing_config {
    mode = var.tracing
  }

  # Only published versions are restored, and callers use one by the alias.
  dynamic "snap_start" {
    for_each = var.snap_start ? ["PublishedVersions"] : []

    content {
      apply_on = snap_start.value
    }
  }

  dynamic "image_config" {
    for_each = length(var.command) > 0 ? [var.command] : []

    content {
      command = image_config.value
    }
  }

  dynamic "environment" {
    for_each = length(local.environment) > 0 ? [local.environment] : []

    content {
      variables = environment.value
    }
  }

  dynamic "vpc_config" {
    for_each = var.vpc[*]

    content {
      subnet_ids         = vpc_config.value.subnet_ids
      security_group_ids = vpc_config.value.security_group_ids
    }
  }

  dynamic "capacity_provider_config" {
    for_each = var.managed_instances[*]

    content {
      lambda_managed_instances_capacity_provider_config {
        capacity_provider_arn                     = aws_lambda_capacity_provider.this[0].arn
        execution_environment_memory_gib_per_vcpu = capacity_provider_config.value.memory_gib_per_vcpu
        per_execution_environment_max_concurrency = capacity_provider_config.value.max_concurrency
      }
    }
  }

  lifecycle {
    precondition {
      condition     = local.image_region == local.region
      error_message = "image is in ${local.image_region}, the function in ${local.region}: Lambda pulls from its own region's ECR only; copy the image there"
    }
  }

  # Lambda tries the role when the function is made, and its log group when it starts.
  depends_on = [aws_iam_role_policy.this]
}

# Callers use the alias: it moves to a new version once that is published, and
# provisioned concurrency can be had only by name.
resource "aws_lambda_alias" "live" {
  count = var.create ? 1 : 0

  name             = "live"
  description      = "The version that callers use"
  function_name    = aws_lambda_function.this[0].function_name
  function_version = aws_lambda_function.this[0].version

  depends_on = [aws_lambda_function_scaling_config.this]
}

resource "aws_lambda_provisioned_concurrency_config" "this" {
  count = var.create && var.provisioned_concurrency > 0 ? 1 : 0

  function_name                     = aws_lambda_function.this[0].function_name
  qualifier                         = aws_lambda_alias.live[0].name
  provisioned_concurrent_executions = var.provisioned_concurrency
}

resource "aws_lambda_capacity_provider" "this" {
  count = local.managed ? 1 : 0

  name = var.name
  tags = var.tags

  vpc_config {
    subnet_ids         = var.managed_instances.subnet_ids
    security_group_ids = var.managed_instances.security_group_ids
  }

  permissions_config {
    capacity_provider_operator_role_arn = aws_iam_role.operator[0].arn
  }

  instance_requirements = [{
    architectures           = [var.architecture]
    allowed_instance_types  = length(var.managed_instances.instance_types) > 0 ? var.managed_instances.instance_types : null
    excluded_instance_types = null
  }]

  capacity_provider_scaling_config = [{
    max_vcpu_count = var.managed_instances.max_vcpus
    scaling_mode   = var.managed_instances.cpu_target == null ? "Auto" : "Manual"
    scaling_policies = var.managed_instances.cpu_target == null ? null : [{
      predefined_metric_type = "LambdaCapacityProviderAverageCPUUtilization"
      target_value           = var.managed_instances.cpu_target
    }]
  }]

  depends_on = [aws_iam_role_policy_attachment.operator]
}

# Of one version: Lambda scales each by its own.
resource "aws_lambda_function_scaling_config" "this" {
  count = !local.managed || try(coalesce(var.managed_instances.min_environments, var.managed_instances.max_environments), null) == null ? 0 : 1

  function_name = aws_lambda_function.this[0].function_name
  qualifier     = aws_lambda_function.this[0].version

  function_scaling_config {
    min_execution_environments = var.managed_instances.min_environments
    max_execution_environments = var.managed_instances.max_environments
  }
}
