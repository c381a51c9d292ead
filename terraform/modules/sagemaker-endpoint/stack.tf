locals {
  # What aws_sagemaker_endpoint_configuration cannot say (the provider's version
  # 6.69 cannot), CloudFormation can: then a stack makes the configuration.
  stacked = local.routing_strategy == "PREFIX_AWARE" || length(local.fallback_types) > 0 || var.metrics != null

  fallback_types = try(var.instance.fallback_types, [])

  # CloudFormation refuses nulls, hence what is left out of each object.
  stack_variant = { for name, value in {
    InstanceType                                = length(local.fallback_types) > 0 ? null : try(var.instance.type, null)
    InstancePools                               = length(local.fallback_types) == 0 ? null : [for i, type in concat([var.instance.type], local.fallback_types) : { InstanceType = type, Priority = i + 1 }]
    InitialInstanceCount                        = local.instance_count
    VolumeSizeInGB                              = try(var.instance.volume_gb, null)
    InferenceAmiVersion                         = local.ami_version
    ModelDataDownloadTimeoutInSeconds           = local.components ? null : local.timeouts.download
    ContainerStartupHealthCheckTimeoutInSeconds = local.components ? null : local.timeouts.startup
    RoutingConfig = merge({ RoutingStrategy = local.routing_strategy }, local.routing_strategy == "PREFIX_AWARE" ? {
      PrefixAwareRoutingConfig = {
        PrefixLength         = var.routing.prefix_length
        ConcurrencyThreshold = coalesce(var.routing.concurrency_threshold, min(local.slots, 1024))
      }
    } : {})
  } : name => value if value != null }

  stack_configuration = merge(
    {
      ProductionVariants = [merge(
        local.stack_variant,
        { VariantName = local.variant },
        { for name, value in {
          ModelName            = one(module.model[*].name)
          InitialVariantWeight = local.components ? null : 1
          EnableSSMAccess      = try(var.instance.session_manager, false) ? true : null
          ManagedInstanceScaling = try(var.instance.managed_scaling, null) == null ? null : {
            Status = "ENABLED", MinInstanceCount = var.instance.managed_scaling.min, MaxInstanceCount = var.instance.managed_scaling.max
          }
          CoreDumpConfig = try(var.instance.core_dump_s3_uri, null) == null ? null : merge(
            { DestinationS3Uri = var.instance.core_dump_s3_uri },
            var.instance.core_dump_kms_key_arn == null ? {} : { KmsKeyId = var.instance.core_dump_kms_key_arn },
          )
          CapacityReservationConfig = try(var.instance.capacity_reservation_arn, null) == null ? null : {
            CapacityReservationPreference = "capacity-reservations-only", MlReservationArn = var.instance.capacity_reservation_arn
          }
        } : name => value if value != null },
      )]
    },
    var.shadow == null ? {} : {
      ShadowProductionVariants = [merge(local.stack_variant, {
        VariantName = local.shadow_variant, ModelName = one(module.shadow[*].name), InitialVariantWeight = var.shadow.percent / 100
      })]
    },
    var.metrics == null ? {} : {
      MetricsConfig = {
        EnableDetailedObservability     = var.metrics.detailed
        EnableEnhancedMetrics           = var.metrics.enhanced
        MetricPublishFrequencyInSeconds = var.metrics.frequency_seconds
      }
    },
    var.data_capture == null ? {} : {
      DataCaptureConfig = merge(
        {
          EnableCapture             = true
          InitialSamplingPercentage = var.data_capture.percent
          DestinationS3Uri          = var.data_capture.s3_uri
          CaptureOptions            = [{ CaptureMode = "Input" }, { CaptureMode = "Output" }]
          CaptureContentTypeHeader  = { JsonContentTypes = ["application/json", "application/jsonlines"] }
        },
        var.data_capture.kms_key_arn == null ? {} : { KmsKeyId = var.data_capture.kms_key_arn },
      )
    },
    var.volume_kms_key_arn == null ? {} : { KmsKeyId = var.volume_kms_key_arn },
    local.components ? { ExecutionRoleArn = var.execution_role_arn == null ? one(module.role[*].arn) : var.execution_role_arn } : {},
  )

  stack_template = jsonencode({
    AWSTemplateFormatVersion = "2010-09-09"
    Resources                = { Configuration = { Type = "AWS::SageMaker::EndpointConfig", Properties = local.stack_configuration } }
    Outputs                  = { Name = { Value = { "Fn::GetAtt" = ["Configuration", "EndpointConfigName"] } } }
  })
}

# Named by its content: a change makes a new stack with a new configuration, the
# endpoint moves to it, and the old stack goes, as without one. An update of the
# stack would delete the configuration that the endpoint still has.
resource "aws_cloudformation_stack" "configuration" {
  # checkov:skip=CKV_AWS_124:Terraform waits for the stack and says what becomes of it
  count = var.create && local.stacked ? 1 : 0

  name          = "endpoint-${var.name}-${substr(sha256(local.stack_template), 0, 8)}"
  template_body = local.stack_template
  on_failure    = "DELETE"
  tags          = var.tags

  lifecycle {
    create_before_destroy = true
  }
}
