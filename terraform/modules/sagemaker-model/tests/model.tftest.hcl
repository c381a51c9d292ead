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
  image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace:1.2.0"
}

run "long" {
  module {
    source = "../../testdata/long"
  }
}

run "demo_model" {
  command = plan

  assert {
    condition     = length(aws_sagemaker_model.this[0].primary_container[0].model_data_source) == 0 && aws_sagemaker_model.this[0].primary_container[0].model_data_url == null
    error_message = "a model without weights has a data source"
  }
  assert {
    condition     = output.name == "chat-3492b126"
    error_message = "name is ${output.name}, not chat and the hash of this content"
  }
}

run "tags_alone_keep_the_name" {
  command = plan

  variables {
    tags = { team = "a" }
  }

  assert {
    condition     = output.name == "chat-3492b126"
    error_message = "new tags made a new model: ${output.name}"
  }
}

run "an_environment_makes_a_new_name" {
  command = plan

  variables {
    environment = { MAX_BATCH_SIZE = "8" }
  }

  assert {
    condition     = output.name != "chat-3492b126"
    error_message = "a changed model has the old one's name"
  }
}

run "prefix" {
  command = plan

  variables {
    weights           = { s3_uri = "s3://models/llama/", additional = { draft = "s3://models/small/" }, accept_eula = true, kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/k" }
    network_isolation = true
    vpc               = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
  }

  assert {
    condition = aws_sagemaker_model.this[0].primary_container[0].model_data_source[0].s3_data_source[0] == {
      s3_uri = "s3://models/llama/", s3_data_type = "S3Prefix", compression_type = "None", model_access_config = tolist([{ accept_eula = true }])
    }
    error_message = "data source: ${jsonencode(aws_sagemaker_model.this[0].primary_container[0].model_data_source)}"
  }
  assert {
    condition     = aws_sagemaker_model.this[0].primary_container[0].additional_model_data_source[0].channel_name == "draft"
    error_message = "the additional source is missing"
  }
  assert {
    condition     = aws_sagemaker_model.this[0].enable_network_isolation && aws_sagemaker_model.this[0].vpc_config[0].subnets == toset(["subnet-1"])
    error_message = "not isolated, or not in the VPC"
  }
  assert {
    condition     = strcontains(output.policy_json, "arn:aws:s3:::models/llama/*") && strcontains(output.policy_json, "arn:aws:s3:::models/small/*") && strcontains(output.policy_json, "key/k")
    error_message = "the role cannot read the weights: ${output.policy_json}"
  }
}

run "archive" {
  command = plan

  variables {
    weights = { s3_uri = "s3://models/llama.tar.gz" }
  }

  assert {
    condition     = aws_sagemaker_model.this[0].primary_container[0].model_data_url == "s3://models/llama.tar.gz" && length(aws_sagemaker_model.this[0].primary_container[0].model_data_source) == 0
    error_message = "an archive must be given as model_data_url"
  }
}

run "streamed" {
  command = plan

  variables {
    weights = { s3_uri = "s3://models/llama/", stream = true }
  }

  assert {
    condition     = aws_sagemaker_model.this[0].primary_container[0].environment.MODEL_ID == "s3://models/llama/" && length(aws_sagemaker_model.this[0].primary_container[0].model_data_source) == 0
    error_message = "streamed weights must be the server's to read, and not SageMaker's to copy"
  }
  assert {
    condition     = strcontains(output.policy_json, "arn:aws:s3:::models/llama/*")
    error_message = "the container's role cannot read the weights: ${output.policy_json}"
  }
}

run "streamed_archive" {
  command = plan

  variables {
    weights = { s3_uri = "s3://models/llama.tar.zst", stream = true }
  }

  assert {
    condition     = aws_sagemaker_model.this[0].primary_container[0].environment.MODEL_ID == "s3://models/llama.tar.zst" && aws_sagemaker_model.this[0].primary_container[0].model_data_url == null
    error_message = "a streamed archive must be the server's to read"
  }
}

run "role_of_the_user" {
  command = plan

  variables {
    execution_role_arn = "arn:aws:iam::123456789012:role/mine"
  }

  assert {
    condition     = length(module.role) == 0 && output.execution_role_arn == "arn:aws:iam::123456789012:role/mine" && output.policy_json == null
    error_message = "a role was made although one was given"
  }
}

run "refuses_a_prefix_without_slash" {
  command = plan

  variables {
    weights = { s3_uri = "s3://models/llama" }
  }

  expect_failures = [var.weights]
}

run "refuses_an_archive_that_sagemaker_cannot_unpack" {
  command = plan

  variables {
    weights = { s3_uri = "s3://models/llama.tar.zst" }
  }

  expect_failures = [var.weights]
}

run "refuses_an_image_of_another_region" {
  command = plan

  variables {
    image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/millrace:1.2.0"
  }

  expect_failures = [aws_sagemaker_model.this]
}

run "refuses_six_additional_sources" {
  command = plan

  variables {
    weights = { s3_uri = "s3://models/llama/", additional = { a = "s3://m/a/", b = "s3://m/b/", c = "s3://m/c/", d = "s3://m/d/", e = "s3://m/e/", f = "s3://m/f/" } }
  }

  expect_failures = [var.weights]
}

run "refuses_streaming_in_isolation" {
  command = plan

  variables {
    weights           = { s3_uri = "s3://models/llama/", stream = true }
    network_isolation = true
  }

  expect_failures = [var.weights]
}

run "refuses_a_long_value" {
  command = plan

  variables {
    environment = { CHAT_TEMPLATE = run.long.value }
  }

  expect_failures = [var.environment]
}

run "refuses_many_variables" {
  command = plan

  variables {
    environment = run.long.values
  }

  expect_failures = [var.environment]
}

run "refuses_a_large_environment" {
  command = plan

  variables {
    environment = run.long.many_kilobytes
  }

  expect_failures = [var.environment]
}

run "refuses_an_image_elsewhere_and_an_empty_vpc" {
  command = plan

  variables {
    image = "ghcr.io/millrace:1"
    vpc   = { subnet_ids = [], security_group_ids = ["sg-1"] }
  }

  expect_failures = [var.image, var.vpc]
}

run "says_that_it_is_on_sagemaker" {
  command = plan

  assert {
    condition     = aws_sagemaker_model.this[0].primary_container[0].environment.SAGEMAKER_REGION == "eu-west-1"
    error_message = "nothing tells a server without model data that it is on SageMaker"
  }
}

run "a_revision_makes_a_new_name" {
  command = plan

  variables {
    revision = "2"
  }

  assert {
    condition     = output.name != "chat-3492b126"
    error_message = "output.name is ${output.name}"
  }
}

run "refuses_what_would_be_ignored" {
  command = plan

  variables {
    weights                  = { s3_uri = "s3://models/llama.tar.gz", accept_eula = true, kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/k" }
    execution_role_arn       = "arn:aws:iam::123456789012:role/mine"
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/boundary"
  }

  expect_failures = [var.weights, var.permissions_boundary_arn]
}

run "refuses_two_models" {
  command = plan

  variables {
    weights     = { s3_uri = "s3://models/llama/", stream = true }
    environment = { MODEL_ID = "s3://models/other/" }
  }

  expect_failures = [var.environment]
}

run "refuses_a_role_without_an_arn" {
  command = plan

  variables {
    execution_role_arn = "mine"
  }

  expect_failures = [var.execution_role_arn]
}

run "another_role_makes_a_new_name" {
  command = plan

  variables {
    role_name            = "team-nightly"
    role_use_name_prefix = false
    role_path            = "/llm/"
  }

  assert {
    condition     = output.execution_role_name == "team-nightly" && output.name != run.demo_model.name
    error_message = "the role ${output.execution_role_name}, the model ${output.name}"
  }
}

run "refuses_a_name_for_a_role_that_exists" {
  command = plan

  variables {
    execution_role_arn = "arn:aws:iam::123456789012:role/mine"
    role_name          = "mine"
    role_path          = "llm/"
  }

  expect_failures = [var.role_name, var.role_path]
}
