mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_region" {
    defaults = { region = "eu-west-1" }
  }
  mock_resource "aws_iam_role" { # the real provider takes nothing else for an ARN
    defaults = { arn = "arn:aws:iam::123456789012:role/chat" }
  }
}

variables {
  name     = "chat"
  image    = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1.2.0"
  weights  = { s3_uri = "s3://models/llama/" }
  instance = { type = "ml.c7i.4xlarge" }
}

# What only CloudFormation can say of a configuration.

run "routed_by_prefix" {
  command = plan

  variables {
    slots        = 16
    routing      = { strategy = "PREFIX_AWARE", prefix_length = 2048 }
    data_capture = { s3_uri = "s3://captured/chat/", percent = 5 }
  }

  assert {
    condition = jsondecode(aws_cloudformation_stack.configuration[0].template_body).Resources.Configuration == {
      Type = "AWS::SageMaker::EndpointConfig"
      Properties = {
        ProductionVariants = [{
          VariantName                                 = "main", ModelName = output.model_name, InitialVariantWeight = 1
          InstanceType                                = "ml.c7i.4xlarge", InitialInstanceCount = 1
          ModelDataDownloadTimeoutInSeconds           = 1800
          ContainerStartupHealthCheckTimeoutInSeconds = 900
          RoutingConfig                               = { RoutingStrategy = "PREFIX_AWARE", PrefixAwareRoutingConfig = { PrefixLength = 2048, ConcurrencyThreshold = 16 } }
        }]
        DataCaptureConfig = {
          EnableCapture            = true, InitialSamplingPercentage = 5, DestinationS3Uri = "s3://captured/chat/"
          CaptureOptions           = [{ CaptureMode = "Input" }, { CaptureMode = "Output" }]
          CaptureContentTypeHeader = { JsonContentTypes = ["application/json", "application/jsonlines"] }
        }
      }
    }
    error_message = "the template: ${aws_cloudformation_stack.configuration[0].template_body}"
  }
  assert {
    condition     = length(aws_sagemaker_endpoint_configuration.this) == 0 && can(regex("^endpoint-chat-[0-9a-f]{8}$", aws_cloudformation_stack.configuration[0].name))
    error_message = "there are two configurations, or the stack's name does not follow from its content"
  }
}

run "the_endpoint_takes_its_configuration" {
  variables {
    routing = { strategy = "PREFIX_AWARE", prefix_length = 2048, concurrency_threshold = 8 }
  }

  override_resource {
    target = aws_cloudformation_stack.configuration
    values = { outputs = { Name = "chat-from-a-stack" } }
  }

  assert {
    condition     = aws_sagemaker_endpoint.this[0].endpoint_config_name == "chat-from-a-stack"
    error_message = "the endpoint has ${aws_sagemaker_endpoint.this[0].endpoint_config_name}"
  }
}

run "fallback_types" {
  command = plan

  variables {
    instance = { type = "ml.g6.xlarge", fallback_types = ["ml.g5.xlarge", "ml.g6e.xlarge"] }
  }

  assert {
    condition = jsondecode(aws_cloudformation_stack.configuration[0].template_body).Resources.Configuration.Properties.ProductionVariants[0].InstancePools == [
      { InstanceType = "ml.g6.xlarge", Priority = 1 }, { InstanceType = "ml.g5.xlarge", Priority = 2 }, { InstanceType = "ml.g6e.xlarge", Priority = 3 },
    ]
    error_message = "not in this order: ${aws_cloudformation_stack.configuration[0].template_body}"
  }
  assert {
    condition = alltrue([for variant in jsondecode(aws_cloudformation_stack.configuration[0].template_body).Resources.Configuration.Properties.ProductionVariants :
    !contains(keys(variant), "InstanceType") && variant.InferenceAmiVersion == "al2023-ami-sagemaker-inference-gpu-4-1"])
    error_message = "a type beside the pools, or a driver that is too old: ${aws_cloudformation_stack.configuration[0].template_body}"
  }
}

run "metrics_of_components" {
  command = plan

  variables {
    mode               = "components"
    image              = null
    weights            = null
    execution_role_arn = "arn:aws:iam::123456789012:role/chat"
    instance           = { type = "ml.m7i.12xlarge", managed_scaling = { min = 0, max = 3 }, session_manager = true, core_dump_s3_uri = "s3://dumps/chat/" }
    metrics            = { frequency_seconds = 10 }
  }

  assert {
    condition = jsondecode(aws_cloudformation_stack.configuration[0].template_body).Resources.Configuration.Properties == {
      ExecutionRoleArn = "arn:aws:iam::123456789012:role/chat"
      MetricsConfig    = { EnableDetailedObservability = true, EnableEnhancedMetrics = false, MetricPublishFrequencyInSeconds = 10 }
      ProductionVariants = [{
        VariantName            = "main", InstanceType = "ml.m7i.12xlarge", InitialInstanceCount = 1, EnableSSMAccess = true
        RoutingConfig          = { RoutingStrategy = "LEAST_OUTSTANDING_REQUESTS" }
        ManagedInstanceScaling = { Status = "ENABLED", MinInstanceCount = 0, MaxInstanceCount = 3 }
        CoreDumpConfig         = { DestinationS3Uri = "s3://dumps/chat/" }
      }]
    }
    error_message = "the template: ${aws_cloudformation_stack.configuration[0].template_body}"
  }
}

run "a_shadow_beside_routing" {
  command = plan

  variables {
    routing            = { strategy = "PREFIX_AWARE", prefix_length = 1024, concurrency_threshold = 4 }
    shadow             = { image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1.3.0", percent = 50 }
    volume_kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/k"
  }

  assert {
    condition = [for variant in jsondecode(aws_cloudformation_stack.configuration[0].template_body).Resources.Configuration.Properties.ShadowProductionVariants :
    [variant.VariantName, variant.InitialVariantWeight, variant.RoutingConfig.RoutingStrategy]] == [["shadow", 0.5, "PREFIX_AWARE"]]
    error_message = "no shadow of half the calls: ${aws_cloudformation_stack.configuration[0].template_body}"
  }
  assert {
    condition     = jsondecode(aws_cloudformation_stack.configuration[0].template_body).Resources.Configuration.Properties.KmsKeyId == "arn:aws:kms:eu-west-1:123456789012:key/k"
    error_message = "disks without the key"
  }
}
