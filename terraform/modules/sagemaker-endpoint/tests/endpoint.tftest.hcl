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
  instance = { type = "ml.g6.xlarge" }
}

run "realtime" {
  command = plan

  assert {
    condition     = aws_sagemaker_endpoint.this[0].name == "chat" && aws_sagemaker_endpoint_configuration.this[0].name_prefix == "chat-"
    error_message = "the endpoint has a name of its own, and its configurations only a prefix"
  }
  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].production_variants[0].model_name == output.model_name && startswith(output.model_name, "chat-")
    error_message = "the variant does not use the model ${output.model_name}"
  }
  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].production_variants[0].routing_config[0].routing_strategy == "LEAST_OUTSTANDING_REQUESTS"
    error_message = "requests are routed at random"
  }
  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].production_variants[0].inference_ami_version == "al2023-ami-sagemaker-inference-gpu-4-1"
    error_message = "a GPU instance without the image that has a CUDA 13 driver"
  }
  assert {
    condition     = aws_cloudwatch_log_group.this[0].name == "/aws/sagemaker/Endpoints/chat" && aws_cloudwatch_log_group.this[0].retention_in_days == 365
    error_message = "log group ${aws_cloudwatch_log_group.this[0].name}, ${aws_cloudwatch_log_group.this[0].retention_in_days} days"
  }
  assert {
    condition     = length(aws_appautoscaling_target.this) == 0 && length(aws_sagemaker_endpoint_configuration.this[0].async_inference_config) == 0 && length(aws_sagemaker_endpoint_configuration.this[0].data_capture_config) == 0
    error_message = "something that was not asked for"
  }
  assert {
    condition     = output.alarm_names == ["chat-latency", "chat-mid-stream-errors", "chat-server-errors"]
    error_message = "alarms ${jsonencode(output.alarm_names)}"
  }
  assert {
    condition     = module.alarms.alarms["latency"].threshold == 450000000 && module.alarms.alarms["latency"].extended_statistic == "p99"
    error_message = "the latency alarm is not near where streams are cut, in microseconds"
  }
  assert {
    condition     = toset(aws_sagemaker_endpoint.this[0].deployment_config[0].auto_rollback_configuration[0].alarms[*].alarm_name) == toset(output.alarm_names)
    error_message = "an update is not rolled back by the module's alarms"
  }
  assert {
    condition     = aws_sagemaker_endpoint.this[0].deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].type == "ALL_AT_ONCE"
    error_message = "not all at once"
  }
  assert {
    condition     = length([for s in jsondecode(output.execution_policy_json).Statement : s if contains(["Write", "Publish", "Interfaces", "SessionManager", "Keys"], s.Sid)]) == 0
    error_message = "the role may do more than it needs: ${output.execution_policy_json}"
  }
}

run "on_cpus" {
  command = plan

  variables {
    instance = { type = "ml.c7i.4xlarge", volume_gb = 100 }
    slots    = 8
  }

  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].production_variants[0].inference_ami_version == null
    error_message = "a CPU instance with an image for GPUs"
  }
}

run "scaled" {
  command = plan

  variables {
    slots       = 32
    autoscaling = { min = 2, max = 10 }
  }

  assert {
    condition     = aws_appautoscaling_target.this[0].resource_id == "endpoint/chat/variant/main" && aws_appautoscaling_target.this[0].scalable_dimension == "sagemaker:variant:DesiredInstanceCount"
    error_message = "scales ${aws_appautoscaling_target.this[0].resource_id}"
  }
  assert {
    condition     = aws_appautoscaling_policy.load[0].target_tracking_scaling_policy_configuration[0].target_value == 22
    error_message = "the target is not 0.7 of 32 slots"
  }
  assert {
    condition     = aws_appautoscaling_policy.load[0].target_tracking_scaling_policy_configuration[0].predefined_metric_specification[0].predefined_metric_type == "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    error_message = "not the concurrency metric"
  }
  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].production_variants[0].initial_instance_count == 2 && length(aws_appautoscaling_policy.wake) == 0
    error_message = "begins with fewer instances than the least"
  }
}

run "async" {
  command = plan

  variables {
    mode        = "async"
    autoscaling = { min = 0, max = 4 }
    async = {
      output_s3_uri   = "s3://answers/out/"
      failure_s3_uri  = "s3://answers/failed/"
      input_s3_uris   = ["s3://questions/in/"]
      kms_key_arn     = "arn:aws:kms:eu-west-1:123456789012:key/k"
      error_topic_arn = "arn:aws:sns:eu-west-1:123456789012:failed"
    }
  }

  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].async_inference_config[0].client_config[0].max_concurrent_invocations_per_instance == 64
    error_message = "an instance is not filled"
  }
  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].async_inference_config[0].output_config[0].notification_config[0].error_topic == "arn:aws:sns:eu-west-1:123456789012:failed"
    error_message = "errors are told to nobody"
  }
  assert {
    condition     = aws_appautoscaling_policy.backlog[0].target_tracking_scaling_policy_configuration[0].customized_metric_specification[0].metric_name == "ApproximateBacklogSizePerInstance" && length(aws_appautoscaling_policy.load) == 0
    error_message = "not scaled on the backlog"
  }
  assert {
    condition     = aws_appautoscaling_policy.backlog[0].target_tracking_scaling_policy_configuration[0].target_value == 64
    error_message = "an instance is added before the others are full"
  }
  assert {
    condition     = output.alarm_names == ["chat-server-errors"]
    error_message = "an hour for an answer is not an alarm, and nothing streams: ${jsonencode(output.alarm_names)}"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.wake[0].metric_name == "HasBacklogWithoutCapacity" && aws_appautoscaling_target.this[0].min_capacity == 0
    error_message = "nothing wakes an endpoint without instances"
  }
  assert {
    condition = { for s in jsondecode(output.execution_policy_json).Statement : s.Sid => s.Resource if contains(["Write", "Publish", "Keys", "Read"], s.Sid) } == {
      Read    = ["arn:aws:s3:::models/llama/*", "arn:aws:s3:::questions/in/*"]
      Write   = ["arn:aws:s3:::answers/out/*", "arn:aws:s3:::answers/failed/*"]
      Keys    = ["arn:aws:kms:eu-west-1:123456789012:key/k"]
      Publish = ["arn:aws:sns:eu-west-1:123456789012:failed"]
    }
    error_message = "the role: ${output.execution_policy_json}"
  }
}

run "shadow" {
  command = plan

  variables {
    shadow               = { image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1.3.0", environment = { MAX_BATCH_SIZE = "32" } }
    role_name            = "team-chat"
    role_use_name_prefix = false
  }

  assert {
    condition     = output.execution_role_name == "team-chat" && module.shadow[0].execution_role_name == "team-chat-shadow"
    error_message = "roles ${output.execution_role_name} and ${module.shadow[0].execution_role_name}"
  }

  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].shadow_production_variants[0].model_name == module.shadow[0].name && module.shadow[0].name != output.model_name
    error_message = "the shadow does not run a model of its own"
  }
  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].shadow_production_variants[0].initial_variant_weight == 1 && aws_sagemaker_endpoint_configuration.this[0].shadow_production_variants[0].inference_ami_version == "al2023-ami-sagemaker-inference-gpu-4-1"
    error_message = "not all calls, or another driver"
  }
  assert {
    condition     = length(aws_sagemaker_endpoint.this[0].deployment_config) == 0
    error_message = "an update in a way that SageMaker refuses beside a shadow"
  }
}

run "random_routing" {
  command = plan

  variables {
    routing = { strategy = "RANDOM" }
  }

  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].production_variants[0].routing_config[0].routing_strategy == "RANDOM"
    error_message = "not routed at random"
  }
}

run "serverless" {
  command = plan

  variables {
    mode       = "serverless"
    instance   = null
    weights    = { s3_uri = "s3://models/small/", stream = true }
    serverless = { memory_mb = 4096, provisioned_concurrency = 2 }
  }

  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].production_variants[0].serverless_config[0].memory_size_in_mb == 4096 && aws_sagemaker_endpoint_configuration.this[0].production_variants[0].serverless_config[0].provisioned_concurrency == 2
    error_message = "not the size that was asked for"
  }
  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].production_variants[0].instance_type == null && length(aws_sagemaker_endpoint_configuration.this[0].production_variants[0].routing_config) == 0 && length(aws_sagemaker_endpoint.this[0].deployment_config) == 0
    error_message = "a serverless endpoint with what only instances take"
  }
  assert {
    condition     = output.alarm_names == ["chat-latency", "chat-server-errors"] && module.alarms.alarms["latency"].threshold == 55000000
    error_message = "answers of serverless endpoints come whole within 60 s: ${jsonencode(output.alarm_names)}"
  }
}

run "a_fixed_fleet_for_components" {
  command = plan

  variables {
    mode     = "components"
    image    = null
    weights  = null
    instance = { type = "ml.m7i.12xlarge", count = 2 }
  }

  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].production_variants[0].initial_instance_count == 2 && length(aws_sagemaker_endpoint_configuration.this[0].production_variants[0].managed_instance_scaling) == 0
    error_message = "not two instances that stay"
  }
  assert {
    condition     = output.execution_policy_json != null
    error_message = "the role that was made has no policy in the outputs"
  }
}

run "components" {
  command = plan

  variables {
    mode     = "components"
    image    = null
    weights  = null
    instance = { type = "ml.m7i.12xlarge", managed_scaling = { min = 0, max = 3 }, session_manager = true, core_dump_s3_uri = "s3://dumps/chat/" }
  }

  assert {
    condition     = length(module.model) == 0 && aws_sagemaker_endpoint_configuration.this[0].production_variants[0].model_name == null
    error_message = "an endpoint for components has a model"
  }
  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].production_variants[0].managed_instance_scaling[0] == { status = "ENABLED", min_instance_count = 0, max_instance_count = 3 }
    error_message = "the instances do not follow the components"
  }
  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].production_variants[0].enable_ssm_access && aws_sagemaker_endpoint_configuration.this[0].production_variants[0].core_dump_config[0].destination_s3_uri == "s3://dumps/chat/"
    error_message = "no shell, or no crash dumps"
  }
  assert {
    condition     = length(module.role) == 1 && length(output.alarm_names) == 0
    error_message = "the endpoint needs a role and has no alarms: components have"
  }
}

run "components_that_stay" {
  command = plan

  variables {
    mode     = "components"
    image    = null
    weights  = null
    instance = { type = "ml.m7i.12xlarge", managed_scaling = { min = 2, max = 3 } }

    role_use_name_prefix = false
  }

  assert {
    condition     = output.execution_role_name == "chat"
    error_message = "the role ${output.execution_role_name}"
  }

  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].production_variants[0].initial_instance_count == 2
    error_message = "begins with fewer instances than the least"
  }
}

run "canary" {
  command = plan

  variables {
    autoscaling = { min = 2, max = 4 }
    deployment  = { strategy = "canary", percent = 10, rollback_on_alarm = false }
  }

  assert {
    condition     = aws_sagemaker_endpoint.this[0].deployment_config[0].blue_green_update_policy[0].traffic_routing_configuration[0].canary_size[0] == { type = "CAPACITY_PERCENT", value = 10 }
    error_message = "no canary of 10 %"
  }
  assert {
    condition     = length(aws_sagemaker_endpoint.this[0].deployment_config[0].auto_rollback_configuration) == 0
    error_message = "rolled back by alarms, against what was asked"
  }
}

run "rolling_with_capture_and_key" {
  command = plan

  variables {
    instance           = { type = "ml.c7i.4xlarge", count = 4 }
    deployment         = { strategy = "rolling" }
    data_capture       = { s3_uri = "s3://captured/chat/", percent = 5 }
    volume_kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/k"
    vpc                = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
    alarms             = { latency_ms = -1, action_arns = ["arn:aws:sns:eu-west-1:123456789012:pager"] }
  }

  assert {
    condition     = aws_sagemaker_endpoint.this[0].deployment_config[0].rolling_update_policy[0].maximum_batch_size[0].value == 25 && length(aws_sagemaker_endpoint.this[0].deployment_config[0].blue_green_update_policy) == 0
    error_message = "not in batches"
  }
  assert {
    condition     = aws_sagemaker_endpoint_configuration.this[0].data_capture_config[0].initial_sampling_percentage == 5 && strcontains(output.execution_policy_json, "arn:aws:s3:::captured/chat/*")
    error_message = "not captured, or the role cannot write it"
  }
  assert {
    condition     = output.alarm_names == ["chat-mid-stream-errors", "chat-server-errors"] && module.alarms.alarms["server-errors"].alarm_actions == toset(["arn:aws:sns:eu-west-1:123456789012:pager"])
    error_message = "alarms ${jsonencode(output.alarm_names)}"
  }
}

# What callers may do is known once the endpoint is there.
run "callers" {
  override_resource {
    target = aws_sagemaker_endpoint.this
    values = { arn = "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/chat" }
  }

  assert {
    condition = { for s in jsondecode(output.invoke_policy_json).Statement : s.Action[0] => s.Resource } == {
      "sagemaker:InvokeEndpoint" = ["arn:aws:sagemaker:eu-west-1:123456789012:endpoint/chat"], "sagemaker:CallWithBearerToken" = ["*"]
    }
    error_message = "callers may invoke ${output.invoke_policy_json}"
  }
}

run "callers_of_async" {
  variables {
    mode  = "async"
    async = { output_s3_uri = "s3://answers/out/", input_s3_uris = ["s3://questions/in/"] }
  }

  assert {
    condition     = [for s in jsondecode(output.invoke_policy_json).Statement : s.Action] == [["sagemaker:InvokeEndpointAsync"]]
    error_message = "callers may invoke ${output.invoke_policy_json}"
  }
}
