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
}

mock_provider "awscc" {}

variables {
  name          = "llama"
  endpoint_name = "fleet"
  image         = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1.2.0"
  weights       = { s3_uri = "s3://models/llama/" }
  resources     = { accelerators = 1, min_memory_mb = 8192 }
}

run "one_copy" {
  command = plan

  assert {
    condition     = awscc_sagemaker_inference_component.this[0].specification.model_name == output.model_name && awscc_sagemaker_inference_component.this[0].endpoint_name == "fleet"
    error_message = "the component does not run its model on the endpoint"
  }
  assert {
    condition     = awscc_sagemaker_inference_component.this[0].specification.compute_resource_requirements.number_of_accelerator_devices_required == 1 && awscc_sagemaker_inference_component.this[0].specification.data_cache_config.enable_caching
    error_message = "not its share of the instance"
  }
  assert {
    condition     = aws_appautoscaling_target.this[0].resource_id == "inference-component/llama" && aws_appautoscaling_target.this[0].min_capacity == 1 && aws_appautoscaling_target.this[0].max_capacity == 1
    error_message = "scales ${aws_appautoscaling_target.this[0].resource_id}"
  }
  assert {
    condition     = aws_appautoscaling_policy.load[0].target_tracking_scaling_policy_configuration[0].predefined_metric_specification[0].predefined_metric_type == "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"
    error_message = "not the concurrency metric"
  }
  assert {
    condition     = aws_appautoscaling_policy.load[0].target_tracking_scaling_policy_configuration[0].target_value == 44 && length(aws_cloudwatch_metric_alarm.wake) == 0
    error_message = "the target is not 0.7 of the server's 64 slots"
  }
  assert {
    condition     = aws_cloudwatch_log_group.this[0].name == "/aws/sagemaker/InferenceComponents/llama"
    error_message = "log group ${aws_cloudwatch_log_group.this[0].name}"
  }
  assert {
    condition     = toset(awscc_sagemaker_inference_component.this[0].deployment_config.auto_rollback_configuration.alarms[*].alarm_name) == toset(["llama-latency", "llama-server-errors"])
    error_message = "an update is not rolled back by the module's alarms"
  }
}

run "to_zero" {
  command = plan

  variables {
    copies = { min = 0, max = 4, target = 10 }
    alarms = { enabled = false }
  }

  assert {
    condition     = awscc_sagemaker_inference_component.this[0].runtime_config.copy_count == 1 && aws_appautoscaling_target.this[0].min_capacity == 0
    error_message = "begins with no copy, so that a bad image is found only later; or never goes to none"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.wake[0].metric_name == "NoCapacityInvocationFailures" && aws_cloudwatch_metric_alarm.wake[0].dimensions == tomap({ InferenceComponentName = "llama" })
    error_message = "nothing wakes the component"
  }
  assert {
    condition     = one(aws_appautoscaling_policy.wake[0].step_scaling_policy_configuration[0].step_adjustment[*]).scaling_adjustment == 1
    error_message = "waking does not add a copy"
  }
  assert {
    condition     = length(output.alarm_names) == 0
    error_message = "alarms ${jsonencode(output.alarm_names)}"
  }
}

run "adapters" {
  command = plan

  variables {
    adapters = { legal = "s3://adapters/legal.tar.gz", medical = "s3://adapters/medical/" }
    tags     = { team = "a" }

    role_name            = "team-llama"
    role_use_name_prefix = false
  }

  assert {
    condition     = output.execution_role_name == "team-llama"
    error_message = "the role ${output.execution_role_name}"
  }
  assert {
    condition     = output.adapter_names == { legal = "llama-legal", medical = "llama-medical" }
    error_message = "adapters ${jsonencode(output.adapter_names)}"
  }
  assert {
    condition     = awscc_sagemaker_inference_component.adapter["legal"].specification.base_inference_component_name == "llama" && awscc_sagemaker_inference_component.adapter["legal"].specification.container.artifact_url == "s3://adapters/legal.tar.gz"
    error_message = "the adapter is not of this model"
  }
  assert {
    condition     = awscc_sagemaker_inference_component.adapter["legal"].tags[0].key == "team"
    error_message = "the adapter has no tags"
  }
  assert {
    condition     = strcontains(module.model.policy_json, "arn:aws:s3:::adapters/legal.tar.gz") && strcontains(module.model.policy_json, "arn:aws:s3:::adapters/medical/*")
    error_message = "the role cannot read the adapters: ${module.model.policy_json}"
  }
}

run "refuses" {
  command = plan

  variables {
    resources = { min_memory_mb = 64 }
    copies    = { min = 2, max = 1 }
    adapters  = { a = "s3://adapters/a.zip" }
    timeouts  = { download = 7200 }
    slots     = 0
  }

  expect_failures = [var.resources, var.copies, var.adapters, var.timeouts, var.slots]
}

run "refuses_out_of_range" {
  command = plan

  variables {
    copies                   = { max = 2, target = 0 }
    alarms                   = { server_errors = -2 }
    logs                     = { retention_days = 10 }
    adapters                 = { a-very-long-name-of-an-adapter-that-does-not-fit-behind-its-model = "s3://adapters/long/" }
    execution_role_arn       = "arn:aws:iam::123456789012:role/mine"
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/boundary"
  }

  expect_failures = [var.copies, var.alarms, var.logs, var.adapters, var.permissions_boundary_arn]
}
