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

# Each run has one thing wrong with it, and must fail for that.

variables {
  name     = "chat"
  image    = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1.2.0"
  weights  = { s3_uri = "s3://models/llama/" }
  instance = { type = "ml.g6.xlarge" }
}

run "long" {
  module {
    source = "../../testdata/long"
  }
}

run "an_unknown_mode" {
  command = plan

  variables {
    mode = "batch"
  }

  expect_failures = [var.mode]
}

run "no_image" {
  command = plan

  variables {
    image = null
  }

  expect_failures = [var.image]
}

run "an_image_with_components" {
  command = plan

  variables {
    mode     = "components"
    weights  = null
    instance = { type = "ml.g6.xlarge", managed_scaling = { min = 0, max = 1 } }
  }

  expect_failures = [var.image]
}

run "no_instance" {
  command = plan

  variables {
    instance = null
  }

  expect_failures = [var.instance]
}

run "an_instance_type_of_ec2" {
  command = plan

  variables {
    instance = { type = "g6.xlarge" }
  }

  expect_failures = [var.instance]
}

run "no_instances" {
  command = plan

  variables {
    instance = { type = "ml.g6.xlarge", count = 0 }
  }

  expect_failures = [var.instance]
}

run "managed_scaling_without_components" {
  command = plan

  variables {
    instance = { type = "ml.g6.xlarge", managed_scaling = { min = 0, max = 1 } }
  }

  expect_failures = [var.instance]
}

run "more_instances_than_the_most" {
  command = plan

  variables {
    mode     = "components"
    image    = null
    weights  = null
    instance = { type = "ml.m7i.12xlarge", count = 2, managed_scaling = { min = 0, max = 1 } }
  }

  expect_failures = [var.instance]
}

run "dumps_to_no_prefix" {
  command = plan

  variables {
    instance = { type = "ml.c7i.xlarge", core_dump_s3_uri = "s3://dumps/chat" }
  }

  expect_failures = [var.instance]
}

run "a_disk_too_large" {
  command = plan

  variables {
    instance = { type = "ml.c7i.xlarge", volume_gb = 513 }
  }

  expect_failures = [var.instance]
}

run "a_size_for_nvme" {
  command = plan

  variables {
    instance = { type = "ml.g6.xlarge", volume_gb = 100 }
  }

  expect_failures = [var.instance]
}

run "a_key_for_nvme" {
  command = plan

  variables {
    volume_kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/k"
  }

  expect_failures = [var.volume_kms_key_arn]
}

run "async_without_output" {
  command = plan

  variables {
    mode = "async"
  }

  expect_failures = [var.async]
}

run "async_output_to_no_prefix" {
  command = plan

  variables {
    mode  = "async"
    async = { output_s3_uri = "s3://answers/out", input_s3_uris = [] }
  }

  expect_failures = [var.async]
}

run "async_input_from_no_prefix" {
  command = plan

  variables {
    mode  = "async"
    async = { output_s3_uri = "s3://answers/out/", input_s3_uris = ["questions/in/"] }
  }

  expect_failures = [var.async]
}

run "a_prefix_copied_to_serverless" {
  command = plan

  variables {
    mode     = "serverless"
    instance = null
  }

  expect_failures = [var.weights]
}

run "a_serverless_size" {
  command = plan

  variables {
    mode       = "serverless"
    instance   = null
    weights    = null
    serverless = { memory_mb = 5000 }
  }

  expect_failures = [var.serverless]
}

run "isolated_serverless" {
  command = plan

  variables {
    mode              = "serverless"
    instance          = null
    weights           = null
    network_isolation = true
    vpc               = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
  }

  expect_failures = [var.network_isolation, var.vpc]
}

run "zero_instances_of_realtime" {
  command = plan

  variables {
    autoscaling = { min = 0, max = 2 }
  }

  expect_failures = [var.autoscaling]
}

run "min_above_max" {
  command = plan

  variables {
    autoscaling = { min = 3, max = 2 }
  }

  expect_failures = [var.autoscaling]
}

run "a_startup_of_seconds" {
  command = plan

  variables {
    timeouts = { startup = 30 }
  }

  expect_failures = [var.timeouts]
}

run "an_unknown_strategy" {
  command = plan

  variables {
    deployment = { strategy = "yolo" }
  }

  expect_failures = [var.deployment]
}

run "a_batch_of_everything" {
  command = plan

  variables {
    deployment = { strategy = "rolling", percent = 100 }
  }

  expect_failures = [var.deployment]
}

run "a_linear_step_too_small" {
  command = plan

  variables {
    deployment = { strategy = "linear", percent = 5 }
  }

  expect_failures = [var.deployment]
}

run "half_a_slot" {
  command = plan

  variables {
    slots = 1.5
  }

  expect_failures = [var.slots]
}

run "a_name_with_a_space" {
  command = plan

  variables {
    name = "my chat"
  }

  expect_failures = [var.name]
}

run "long_environment_values" {
  command = plan

  variables {
    environment = { CHAT_TEMPLATE = run.long.value }
  }

  expect_failures = [var.environment]
}

run "capture_to_no_prefix" {
  command = plan

  variables {
    data_capture = { s3_uri = "s3://captured/chat" }
  }

  expect_failures = [var.data_capture]
}

run "capture_of_serverless" {
  command = plan

  variables {
    mode         = "serverless"
    instance     = null
    weights      = null
    data_capture = { s3_uri = "s3://captured/chat/" }
  }

  expect_failures = [var.data_capture]
}

# What an endpoint for components would ignore; isolation and the VPC above all.
run "of_the_components" {
  command = plan

  variables {
    mode              = "components"
    image             = null
    weights           = { s3_uri = "s3://models/llama/" }
    instance          = { type = "ml.m7i.12xlarge" }
    environment       = { MAX_TOTAL_TOKENS = "8192" }
    slots             = 8
    network_isolation = true
    vpc               = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
    timeouts          = { startup = 600 }
    deployment        = {}
    serverless        = {}
    alarms            = { action_arns = ["arn:aws:sns:eu-west-1:123456789012:pager"] }
  }

  expect_failures = [
    var.weights, var.environment, var.slots, var.network_isolation, var.vpc, var.timeouts, var.deployment, var.serverless, var.alarms,
  ]
}

run "of_a_serverless_endpoint" {
  command = plan

  variables {
    mode               = "serverless"
    instance           = null
    weights            = { s3_uri = "s3://models/llama/", stream = true, additional = { draft = "s3://models/draft/" } }
    timeouts           = { startup = 600 }
    deployment         = {}
    volume_kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/k"
  }

  expect_failures = [var.weights, var.timeouts, var.deployment, var.volume_kms_key_arn]
}

run "a_canary_of_one_instance" {
  command = plan

  variables {
    deployment = { strategy = "canary", percent = 10 }
  }

  expect_failures = [var.deployment]
}

run "a_share_of_all_at_once" {
  command = plan

  variables {
    deployment = { percent = 10 }
  }

  expect_failures = [var.deployment]
}

run "an_old_fleet_where_there_is_none" {
  command = plan

  variables {
    instance   = { type = "ml.c7i.4xlarge", count = 2 }
    deployment = { strategy = "rolling", keep_old_seconds = 60 }
  }

  expect_failures = [var.deployment]
}

run "out_of_range" {
  command = plan

  variables {
    autoscaling              = { min = 1, max = 4, target = 0 }
    alarms                   = { server_errors = -2 }
    logs                     = { retention_days = 10 }
    execution_role_arn       = "arn:aws:iam::123456789012:role/mine"
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/boundary"
  }

  expect_failures = [var.autoscaling, var.alarms, var.logs, var.permissions_boundary_arn]
}

run "a_key_for_no_dumps" {
  command = plan

  variables {
    instance           = { type = "ml.c7i.4xlarge", core_dump_kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/k" }
    execution_role_arn = "chat"
  }

  expect_failures = [var.instance, var.execution_role_arn]
}

run "more_instances_than_scaling_allows" {
  command = plan

  variables {
    instance    = { type = "ml.c7i.4xlarge", count = 9 }
    autoscaling = { min = 1, max = 4 }
  }

  expect_failures = [var.autoscaling]
}

run "an_unknown_routing_strategy" {
  command = plan

  variables {
    routing = { strategy = "KV_AWARE" }
  }

  expect_failures = [var.routing]
}

run "prefix_routing_without_a_length" {
  command = plan

  variables {
    routing = { strategy = "PREFIX_AWARE" }
  }

  expect_failures = [var.routing]
}

run "a_prefix_that_is_too_short" {
  command = plan

  variables {
    routing = { strategy = "PREFIX_AWARE", prefix_length = 1023 }
  }

  expect_failures = [var.routing]
}

run "a_prefix_length_without_its_strategy" {
  command = plan

  variables {
    routing = { prefix_length = 2048 }
  }

  expect_failures = [var.routing]
}

run "a_threshold_out_of_range" {
  command = plan

  variables {
    routing = { strategy = "PREFIX_AWARE", prefix_length = 2048, concurrency_threshold = 1025 }
  }

  expect_failures = [var.routing]
}

run "prefix_routing_of_async" {
  command = plan

  variables {
    mode    = "async"
    async   = { output_s3_uri = "s3://answers/out/", input_s3_uris = ["s3://questions/in/"] }
    routing = { strategy = "PREFIX_AWARE", prefix_length = 2048 }
  }

  expect_failures = [var.routing]
}

run "routing_without_instances" {
  command = plan

  variables {
    mode     = "serverless"
    instance = null
    weights  = null
    routing  = { strategy = "RANDOM" }
  }

  expect_failures = [var.routing]
}

run "components_routed_without_a_threshold" {
  command = plan

  variables {
    mode    = "components"
    image   = null
    weights = null
    routing = { strategy = "PREFIX_AWARE", prefix_length = 2048 }
  }

  expect_failures = [var.routing]
}

run "five_fallback_types" {
  command = plan

  variables {
    instance = { type = "ml.c7i.xlarge", fallback_types = ["ml.c6i.xlarge", "ml.m7i.xlarge", "ml.m6i.xlarge", "ml.r7i.xlarge", "ml.r6i.xlarge"] }
  }

  expect_failures = [var.instance]
}

run "a_fallback_type_twice" {
  command = plan

  variables {
    instance = { type = "ml.c7i.xlarge", fallback_types = ["ml.c7i.xlarge"] }
  }

  expect_failures = [var.instance]
}

run "a_fallback_to_another_processor" {
  command = plan

  variables {
    instance = { type = "ml.c7i.xlarge", fallback_types = ["ml.c7g.xlarge"] }
  }

  expect_failures = [var.instance]
}

run "a_fallback_from_a_gpu" {
  command = plan

  variables {
    instance = { type = "ml.g6.xlarge", fallback_types = ["ml.c7i.xlarge"] }
  }

  expect_failures = [var.instance]
}

run "a_fallback_with_another_disk" {
  command = plan

  variables {
    instance = { type = "ml.c7i.xlarge", fallback_types = ["ml.c5d.xlarge"], volume_gb = 100 }
  }

  expect_failures = [var.instance]
}

run "fallback_types_of_components" {
  command = plan

  variables {
    mode     = "components"
    image    = null
    weights  = null
    instance = { type = "ml.c7i.xlarge", fallback_types = ["ml.c6i.xlarge"] }
  }

  expect_failures = [var.instance]
}

run "a_shadow_of_async" {
  command = plan

  variables {
    mode   = "async"
    async  = { output_s3_uri = "s3://answers/out/", input_s3_uris = ["s3://questions/in/"] }
    shadow = { image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1.3.0" }
  }

  expect_failures = [var.shadow]
}

run "a_shadow_of_the_same" {
  command = plan

  variables {
    shadow = { image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1.2.0" }
  }

  expect_failures = [var.shadow]
}

run "a_shadow_of_nothing" {
  command = plan

  variables {
    shadow = { image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1.3.0", percent = 0 }
  }

  expect_failures = [var.shadow]
}

run "a_shadow_on_other_machines" {
  command = plan

  variables {
    instance = { type = "ml.g6.xlarge", fallback_types = ["ml.g5.xlarge"] }
    shadow   = { image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1.3.0" }
  }

  expect_failures = [var.shadow]
}

run "a_shadow_with_a_canary" {
  command = plan

  variables {
    instance   = { type = "ml.g6.xlarge", count = 2 }
    deployment = { strategy = "canary" }
    shadow     = { image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1.3.0" }
  }

  expect_failures = [var.shadow]
}

run "metrics_of_async" {
  command = plan

  variables {
    mode    = "async"
    async   = { output_s3_uri = "s3://answers/out/", input_s3_uris = ["s3://questions/in/"] }
    metrics = {}
  }

  expect_failures = [var.metrics]
}

run "metrics_at_odd_times" {
  command = plan

  variables {
    metrics = { frequency_seconds = 15 }
  }

  expect_failures = [var.metrics]
}

run "a_key_for_a_fallback_with_nvme" {
  command = plan

  variables {
    instance           = { type = "ml.c7i.xlarge", fallback_types = ["ml.c5d.xlarge"] }
    volume_kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/k"
  }

  expect_failures = [var.volume_kms_key_arn]
}
