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
  name = "llm"
}

run "made" {
  override_resource {
    target = aws_s3_bucket.weights
    values = { bucket = "llm-1", id = "llm-1", arn = "arn:aws:s3:::llm-1" }
  }
  override_resource {
    target = aws_kms_key.this
    values = { arn = "arn:aws:kms:eu-west-1:123456789012:key/k" }
  }

  assert {
    condition     = jsondecode(aws_s3_bucket_policy.weights[0].policy).Statement[0].Condition.Bool["aws:SecureTransport"] == "false" && jsondecode(aws_s3_bucket_policy.weights[0].policy).Statement[0].Resource == ["arn:aws:s3:::llm-1", "arn:aws:s3:::llm-1/*"]
    error_message = "the bucket can be read without TLS: ${aws_s3_bucket_policy.weights[0].policy}"
  }
  assert {
    condition     = alltrue([for flag in ["block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets"] : aws_s3_bucket_public_access_block.weights[0][flag]])
    error_message = "the bucket can be made public"
  }
  assert {
    condition     = aws_s3_bucket_versioning.weights[0].versioning_configuration[0].status == "Enabled" && one(aws_s3_bucket_server_side_encryption_configuration.weights[0].rule[*].apply_server_side_encryption_by_default[0].kms_master_key_id) == output.kms_key_arn
    error_message = "not versioned, or not encrypted with the key"
  }
  assert {
    condition     = aws_ecr_repository.this["millrace"].image_tag_mutability == "IMMUTABLE" && aws_ecr_repository.this["millrace"].image_scanning_configuration[0].scan_on_push
    error_message = "tags can be moved, or images are not scanned"
  }
  assert {
    condition     = jsondecode(aws_ecr_repository_policy.this["millrace"].policy).Statement[0].Principal.Service == "lambda.amazonaws.com" && jsondecode(aws_ecr_lifecycle_policy.this["millrace"].policy).rules[*].selection == [{ tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = 30 }]
    error_message = "Lambda cannot read images, or one with a tag may be deleted while it runs"
  }
  assert {
    condition     = output.s3_uri == "s3://llm-1/" && aws_kms_key.this[0].enable_key_rotation
    error_message = "s3_uri is ${output.s3_uri}; or the key is never rotated"
  }
  assert {
    condition     = length(aws_vpc_endpoint.s3) == 0 && length(aws_vpc_endpoint.service) == 0
    error_message = "endpoints that were not asked for"
  }
}

run "in_a_closed_network" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/mine"
    network     = { vpc_id = "vpc-1", subnet_ids = ["subnet-1"], route_table_ids = ["rtb-1"], cidr_blocks = ["10.0.0.0/16"] }
  }

  assert {
    condition     = aws_vpc_endpoint.s3[0].vpc_endpoint_type == "Gateway" && aws_vpc_endpoint.s3[0].service_name == "com.amazonaws.eu-west-1.s3"
    error_message = "no way to S3"
  }
  assert {
    condition     = jsondecode(aws_vpc_endpoint.s3[0].policy).Statement == [{ Sid = "All", Effect = "Allow", Action = ["s3:*"], Principal = "*", Resource = ["*"] }]
    error_message = "the gateway takes S3 from its neighbours: ${aws_vpc_endpoint.s3[0].policy}"
  }
  assert {
    condition     = toset(keys(aws_vpc_endpoint.service)) == toset(["ecr.api", "ecr.dkr", "logs", "sagemaker.runtime"]) && alltrue([for e in aws_vpc_endpoint.service : e.private_dns_enabled])
    error_message = "services ${join(", ", keys(aws_vpc_endpoint.service))}"
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.service["10.0.0.0/16"].from_port == 443
    error_message = "the network cannot reach the services"
  }
  assert {
    condition     = length(aws_kms_key.this) == 0 && output.kms_key_arn == "arn:aws:kms:eu-west-1:123456789012:key/mine"
    error_message = "a key was made although one was given"
  }
}

run "refuses" {
  command = plan

  variables {
    name                  = "LLM"
    repositories          = ["Millrace"]
    keep_untagged_days    = 0
    keep_old_weights_days = 0.5
    kms_key_arn           = "alias/mine"
    network               = { vpc_id = "vpc-1", subnet_ids = [], route_table_ids = [], cidr_blocks = [], s3 = "closed" }
  }

  expect_failures = [var.name, var.repositories, var.keep_untagged_days, var.keep_old_weights_days, var.kms_key_arn, var.network]
}

run "refuses_buckets_of_an_open_gateway" {
  command = plan

  variables {
    network = { vpc_id = "vpc-1", subnet_ids = ["subnet-1"], route_table_ids = ["rtb-1"], cidr_blocks = ["10.0.0.0/16"], buckets = ["answers"] }
  }

  expect_failures = [var.network]
}

run "with_a_gateway_of_its_own" {
  override_resource {
    target = aws_s3_bucket.weights
    values = { bucket = "llm-1", id = "llm-1", arn = "arn:aws:s3:::llm-1" }
  }
  override_resource {
    target = aws_kms_key.this
    values = { arn = "arn:aws:kms:eu-west-1:123456789012:key/k" }
  }

  variables {
    network = { vpc_id = "vpc-1", subnet_ids = ["subnet-1"], route_table_ids = ["rtb-1"], cidr_blocks = ["10.0.0.0/16"], s3 = "restricted", buckets = ["answers"] }
  }

  assert {
    condition     = jsondecode(aws_vpc_endpoint.s3[0].policy).Statement[0].Resource == ["arn:aws:s3:::llm-1", "arn:aws:s3:::llm-1/*", "arn:aws:s3:::answers", "arn:aws:s3:::answers/*"]
    error_message = "a restricted gateway lets through: ${aws_vpc_endpoint.s3[0].policy}"
  }
}

run "where_the_vpc_has_a_gateway" {
  command = plan

  variables {
    network = { vpc_id = "vpc-1", subnet_ids = ["subnet-1"], route_table_ids = [], cidr_blocks = ["10.0.0.0/16"], s3 = "none" }
  }

  assert {
    condition     = length(aws_vpc_endpoint.s3) == 0 && length(aws_vpc_endpoint.service) == 4
    error_message = "a second gateway, or no services"
  }
}
