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

variables {
  name  = "chat"
  image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
}

run "long" {
  module {
    source = "../../testdata/long"
  }
}

run "plain" {
  command = plan

  assert {
    condition     = aws_lambda_function.this[0].package_type == "Image" && aws_lambda_function.this[0].publish && aws_lambda_function.this[0].memory_size == 10240
    error_message = "not a published image with all the memory"
  }
  assert {
    condition     = aws_lambda_function.this[0].logging_config[0].log_format == "JSON" && aws_lambda_function.this[0].logging_config[0].log_group == "/aws/lambda/chat"
    error_message = "not JSON, or not to the module's log group"
  }
  assert {
    condition     = length(aws_lambda_function.this[0].environment) == 0 && length(aws_lambda_function.this[0].image_config) == 0 && length(aws_lambda_function.this[0].snap_start) == 0 && length(aws_lambda_function.this[0].vpc_config) == 0 && length(aws_lambda_function.this[0].capacity_provider_config) == 0
    error_message = "something that was not asked for"
  }
  assert {
    condition     = output.url == null && length(aws_lambda_permission.url) == 0 && length(aws_lambda_provisioned_concurrency_config.this) == 0
    error_message = "can be called from outside, which was not asked for"
  }
  assert {
    condition = { for s in jsondecode(output.policy_json).Statement : s.Sid => s.Resource } == {
      Logs = ["arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/chat:*"], Trace = ["*"]
    }
    error_message = "the role may do more than log and trace: ${output.policy_json}"
  }
  assert {
    condition     = output.alarm_names == ["chat-duration", "chat-errors", "chat-throttles"] && module.alarms.alarms["duration"].threshold == 270000
    error_message = "alarms ${jsonencode(output.alarm_names)}"
  }
}

run "streaming_url" {
  command = plan

  variables {
    url                     = { cors = { allow_origins = ["https://example.com"] }, principals = ["210987654321"] }
    provisioned_concurrency = 2
    reserved_concurrency    = 10
  }

  assert {
    condition     = aws_lambda_function.this[0].environment[0].variables.LAMBDA_INVOKE_MODE == "stream"
    error_message = "answers of a function whose URL streams are in one piece"
  }
  assert {
    condition     = aws_lambda_function_url.this[0].invoke_mode == "RESPONSE_STREAM" && aws_lambda_function_url.this[0].authorization_type == "AWS_IAM" && aws_lambda_function_url.this[0].qualifier == "live"
    error_message = "not a signed, streaming URL of the alias"
  }
  assert {
    condition     = aws_lambda_permission.url["210987654321"].action == "lambda:InvokeFunctionUrl" && aws_lambda_permission.url["210987654321"].function_url_auth_type == "AWS_IAM"
    error_message = "the other account may not use the URL"
  }
  assert {
    condition     = aws_lambda_permission.invoke["210987654321"].action == "lambda:InvokeFunction" && aws_lambda_permission.invoke["210987654321"].invoked_via_function_url
    error_message = "the other account may not invoke by way of the URL, or otherwise too"
  }
  assert {
    condition     = aws_lambda_provisioned_concurrency_config.this[0].qualifier == "live" && aws_lambda_provisioned_concurrency_config.this[0].provisioned_concurrent_executions == 2
    error_message = "provisioned concurrency is not the alias's"
  }
  assert {
    condition     = aws_lambda_function_url.this[0].cors[0].allow_origins == toset(["https://example.com"]) && aws_lambda_function.this[0].environment[0].variables.CORS_ALLOW_ORIGIN == "https://example.com"
    error_message = "no CORS, or the server names other origins than the URL"
  }
}

run "buffered_url" {
  command = plan

  variables {
    url         = { stream = false }
    environment = { MAX_TOTAL_TOKENS = "2048" }
  }

  assert {
    condition     = aws_lambda_function_url.this[0].invoke_mode == "BUFFERED" && !contains(keys(aws_lambda_function.this[0].environment[0].variables), "LAMBDA_INVOKE_MODE")
    error_message = "the URL and the function do not agree"
  }
}

# The errors that callers cause are in Lambda's metric, and must not wake anyone.
run "faults_of_the_server_alone" {
  command = plan

  assert {
    condition     = one([for q in aws_cloudwatch_metric_alarm.errors[0].metric_query : q.expression if coalesce(q.return_data, false)]) == "errors - FILL(refused, 0)"
    error_message = "the alarm counts what callers cause"
  }
  assert {
    condition     = aws_cloudwatch_log_metric_filter.refused[0].pattern == "{ $.refused IS TRUE }"
    error_message = "what the server logs of refused events is not counted"
  }
}

run "messages_of_a_queue" {
  command = plan

  variables {
    queue = { arn = "arn:aws:sqs:eu-west-1:123456789012:questions", output_s3_uri = "s3://answers/chat/", max_concurrency = 5 }
  }

  assert {
    condition     = aws_lambda_event_source_mapping.queue[0].function_response_types == toset(["ReportBatchItemFailures"]) && aws_lambda_event_source_mapping.queue[0].scaling_config[0].maximum_concurrency == 5
    error_message = "messages that fail are deleted, or too many run at once"
  }
  assert {
    condition     = aws_lambda_function.this[0].environment[0].variables.QUEUE_OUTPUT == "s3://answers/chat/"
    error_message = "answers have nowhere to go"
  }
  assert {
    condition = { for s in jsondecode(output.policy_json).Statement : s.Sid => s.Resource if contains(["Queue", "Answers", "AnswersKey"], s.Sid) } == {
      Queue = ["arn:aws:sqs:eu-west-1:123456789012:questions"], Answers = ["arn:aws:s3:::answers/chat/*"]
    }
    error_message = "the role cannot read the queue or write answers: ${output.policy_json}"
  }
}

run "refuses_a_queue_by_url" {
  command = plan

  variables {
    queue = { arn = "https://sqs.eu-west-1.amazonaws.com/123456789012/questions", output_s3_uri = "s3://answers/chat", batch_size = 11 }
  }

  expect_failures = [var.queue]
}

run "open_url" {
  command = plan

  variables {
    url = { auth = "NONE" }
  }

  assert {
    condition     = keys(aws_lambda_permission.url) == ["*"] && aws_lambda_permission.url["*"].function_url_auth_type == "NONE" && keys(aws_lambda_permission.invoke) == ["*"]
    error_message = "an open URL needs both permissions for all"
  }
}

run "weights_from_s3_in_a_vpc" {
  command = plan

  variables {
    weights     = { s3_uri = "s3://models/small/", kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/k" }
    vpc         = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
    environment = { MAX_TOTAL_TOKENS = "2048" }
    tracing     = "PassThrough"
  }

  assert {
    condition     = aws_lambda_function.this[0].environment[0].variables == tomap({ MODEL_ID = "s3://models/small/", MAX_TOTAL_TOKENS = "2048" })
    error_message = "environment ${jsonencode(aws_lambda_function.this[0].environment[0].variables)}"
  }
  assert {
    condition = { for s in jsondecode(output.policy_json).Statement : s.Sid => s.Resource } == {
      Logs       = ["arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/chat:*"]
      Weights    = ["arn:aws:s3:::models/small/*"]
      List       = ["arn:aws:s3:::models"]
      WeightsKey = ["arn:aws:kms:eu-west-1:123456789012:key/k"]
      Interfaces = ["arn:aws:ec2:eu-west-1:123456789012:*/*"]
      Network    = ["*"]
    }
    error_message = "the role: ${output.policy_json}"
  }
  assert {
    condition     = [for s in jsondecode(output.policy_json).Statement : s.Condition.StringLike["s3:prefix"] if s.Sid == "List"] == [["small/*"]]
    error_message = "more may be listed than the weights: ${output.policy_json}"
  }
  assert {
    condition     = [for s in jsondecode(output.policy_json).Statement : s.Condition.StringLike["kms:ViaService"] if s.Sid == "WeightsKey"] == [["s3.*"]]
    error_message = "the key may be used for more than the weights: ${output.policy_json}"
  }
}

run "managed_instances" {
  command = plan

  variables {
    memory_mb         = 32768
    timeout_seconds   = 3600
    managed_instances = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"], instance_types = ["c8g.8xlarge"], max_concurrency = 32 }
    architecture      = "arm64"
  }

  assert {
    condition     = aws_lambda_function.this[0].capacity_provider_config[0].lambda_managed_instances_capacity_provider_config[0].per_execution_environment_max_concurrency == 32 && aws_lambda_function.this[0].environment[0].variables.MAX_BATCH_SIZE == "32"
    error_message = "an environment does not batch what it is given"
  }
  assert {
    condition     = aws_lambda_capacity_provider.this[0].instance_requirements[0].allowed_instance_types == tolist(["c8g.8xlarge"]) && aws_lambda_capacity_provider.this[0].instance_requirements[0].architectures == tolist(["arm64"])
    error_message = "not the instances that were asked for"
  }
  assert {
    condition     = aws_iam_role_policy_attachment.operator[0].policy_arn == "arn:aws:iam::aws:policy/AWSLambdaManagedEC2ResourceOperator"
    error_message = "Lambda may not run the instances"
  }
  assert {
    condition     = length(aws_lambda_function_scaling_config.this) == 0 && aws_lambda_capacity_provider.this[0].capacity_provider_scaling_config[0].scaling_mode == "Auto"
    error_message = "scaled otherwise than Lambda does by itself"
  }
}

run "managed_instances_that_scale_to_zero" {
  command = plan

  variables {
    managed_instances = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"], min_environments = 0, max_environments = 2, cpu_target = 50 }

    role_name            = "team-titles"
    role_use_name_prefix = false
    role_path            = "/llm/"
  }

  assert {
    condition     = [aws_iam_role.this[0].name, aws_iam_role.operator[0].name, aws_iam_role.operator[0].path] == ["team-titles", "team-titles-operator", "/llm/"]
    error_message = "roles ${aws_iam_role.this[0].name} and ${aws_iam_role.operator[0].name}"
  }

  assert {
    condition = [for config in aws_lambda_function_scaling_config.this[0].function_scaling_config :
    [config.min_execution_environments, config.max_execution_environments]] == [[0, 2]]
    error_message = "not 0 to 2 environments"
  }
  assert {
    condition = [for config in aws_lambda_capacity_provider.this[0].capacity_provider_scaling_config :
      [config.scaling_mode, config.scaling_policies[0].predefined_metric_type, config.scaling_policies[0].target_value]] == [
    ["Manual", "LambdaCapacityProviderAverageCPUUtilization", 50]]
    error_message = "the instances are not scaled by half their CPUs"
  }
}

run "refuses_more_environments_at_least_than_at_most" {
  command = plan

  variables {
    managed_instances = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"], max_environments = 2 }
  }

  expect_failures = [var.managed_instances]
}

run "refuses_half_an_environment" {
  command = plan

  variables {
    managed_instances = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"], min_environments = 0.5 }
  }

  expect_failures = [var.managed_instances]
}

run "refuses_to_aim_at_no_load" {
  command = plan

  variables {
    managed_instances = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"], cpu_target = 0 }
  }

  expect_failures = [var.managed_instances]
}

run "refuses_a_tag" {
  command = plan

  variables {
    image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:latest"
  }

  expect_failures = [var.image]
}

run "refuses_an_image_of_another_region" {
  command = plan

  variables {
    image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/millrace@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  }

  expect_failures = [aws_lambda_function.this]
}

run "refuses_a_large_environment" {
  command = plan

  variables {
    environment = run.long.four_kilobytes
  }

  expect_failures = [var.environment]
}

run "refuses_what_plain_lambda_cannot" {
  command = plan

  variables {
    memory_mb       = 32768
    timeout_seconds = 3600
    tmp_mb          = 100
    tracing         = "Off"
    url             = { auth = "NONE", principals = ["210987654321"] }
    weights         = { s3_uri = "s3://models/small" }
  }

  expect_failures = [var.memory_mb, var.timeout_seconds, var.tmp_mb, var.tracing, var.url, var.weights]
}

run "refuses_what_managed_instances_cannot" {
  command = plan

  variables {
    managed_instances       = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
    vpc                     = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
    provisioned_concurrency = 1
    memory_mb               = 1769
  }

  expect_failures = [var.vpc, var.provisioned_concurrency, var.memory_mb]
}

run "restored_from_snapshots" {
  command = plan

  variables {
    snap_start = true
    url        = {}
  }

  assert {
    condition     = one(aws_lambda_function.this[0].snap_start[*].apply_on) == "PublishedVersions" && aws_lambda_function.this[0].publish
    error_message = "no snapshots of published versions"
  }
  assert {
    condition     = aws_lambda_function_url.this[0].qualifier == aws_lambda_alias.live[0].name
    error_message = "the URL does not call a published version, and only those are restored"
  }
}

run "refuses_what_snapshots_exclude" {
  command = plan

  variables {
    snap_start              = true
    tmp_mb                  = 1024
    provisioned_concurrency = 1
  }

  expect_failures = [var.snap_start]
}

run "refuses_snapshots_on_managed_instances" {
  command = plan

  variables {
    snap_start        = true
    managed_instances = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
  }

  expect_failures = [var.snap_start]
}

run "refuses_an_odd_share_of_memory" {
  command = plan

  variables {
    managed_instances = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"], memory_gib_per_vcpu = 3 }
  }

  expect_failures = [var.managed_instances]
}

run "refuses_out_of_range" {
  command = plan

  variables {
    reserved_concurrency    = 1
    provisioned_concurrency = 2
    vpc                     = { subnet_ids = [], security_group_ids = [] }
    url                     = { cors = { allow_origins = [] } }
    alarms                  = { duration_percent = 200 }
    logs                    = { retention_days = 10 }
  }

  expect_failures = [var.provisioned_concurrency, var.vpc, var.url, var.alarms, var.logs]
}

run "refuses_a_mode_that_is_not_the_urls" {
  command = plan

  variables {
    url         = {}
    environment = { LAMBDA_INVOKE_MODE = "buffered" }
  }

  expect_failures = [var.environment]
}

run "refuses_two_models_and_a_key_for_nothing" {
  command = plan

  variables {
    environment_kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/k"
    reserved_concurrency    = -2
  }

  expect_failures = [var.environment_kms_key_arn, var.reserved_concurrency]
}

run "refuses_a_fleet_of_one_core" {
  command = plan

  variables {
    managed_instances = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"], max_vcpus = 1 }
    weights           = { s3_uri = "s3://models/small/" }
    environment       = { MODEL_ID = "s3://models/other/" }
    role_name         = "team-titles-with-more-than-37-characters"
    role_path         = "llm/"
  }

  expect_failures = [var.managed_instances, var.environment, var.role_name, var.role_path]
}
