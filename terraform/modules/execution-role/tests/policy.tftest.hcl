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
  name = "chat"
}

run "asks_for_nothing" {
  command = plan

  assert {
    condition     = [for s in jsondecode(output.policy_json).Statement : s.Sid] == ["Metrics"]
    error_message = "a role for nothing may do more than publish metrics: ${output.policy_json}"
  }
  assert {
    condition     = jsondecode(aws_iam_role.this[0].assume_role_policy).Statement[0].Condition.StringEquals["aws:SourceAccount"] == "123456789012"
    error_message = "the role can be assumed for another account: ${aws_iam_role.this[0].assume_role_policy}"
  }
  assert {
    condition     = aws_iam_role.this[0].name_prefix == "chat-"
    error_message = "the role has a fixed name, so that it cannot be replaced"
  }
}

run "asks_for_everything" {
  command = plan

  variables {
    image           = "210987654321.dkr.ecr.us-east-1.amazonaws.com/team/millrace:1.2.0"
    read_s3_uris    = ["s3://models/llama/", "s3://other/adapter.tar.gz", "s3://whole/"]
    write_s3_uris   = ["s3://answers/chat/"]
    kms_key_arns    = ["arn:aws:kms:eu-west-1:123456789012:key/k"]
    log_group_names = ["/aws/sagemaker/Endpoints/chat"]
    topic_arns      = ["arn:aws:sns:eu-west-1:123456789012:done"]
    vpc             = { subnet_ids = ["subnet-1"], security_group_ids = ["sg-1"] }
    session_manager = true
  }

  assert {
    condition = { for s in jsondecode(output.policy_json).Statement : s.Sid => s.Resource } == {
      ImageLogin     = ["*"]
      Image          = ["arn:aws:ecr:us-east-1:210987654321:repository/team/millrace"]
      Read           = ["arn:aws:s3:::models/llama/*", "arn:aws:s3:::other/adapter.tar.gz", "arn:aws:s3:::whole/*"]
      List0          = ["arn:aws:s3:::models"]
      List1          = ["arn:aws:s3:::other"]
      List2          = ["arn:aws:s3:::whole"]
      Write          = ["arn:aws:s3:::answers/chat/*"]
      Keys           = ["arn:aws:kms:eu-west-1:123456789012:key/k"]
      Logs           = ["arn:aws:logs:eu-west-1:123456789012:log-group:/aws/sagemaker/Endpoints/chat:*"]
      Metrics        = ["*"]
      Publish        = ["arn:aws:sns:eu-west-1:123456789012:done"]
      Interfaces     = ["arn:aws:ec2:eu-west-1:123456789012:network-interface/*", "arn:aws:ec2:eu-west-1:123456789012:subnet/subnet-1", "arn:aws:ec2:eu-west-1:123456789012:security-group/sg-1"]
      Network        = ["*"]
      SessionManager = ["*"]
    }
    error_message = "statements and their resources: ${output.policy_json}"
  }
  assert {
    condition = { for s in jsondecode(output.policy_json).Statement : s.Sid => s.Condition.StringLike["s3:prefix"] if startswith(s.Sid, "List") } == {
      List0 = ["llama/*"], List1 = ["adapter.tar.gz*"], List2 = ["*"]
    }
    error_message = "what may be listed: ${output.policy_json}"
  }
  # Only actions for which AWS knows no resource may be allowed on all.
  assert {
    condition = length(setsubtract(flatten([for s in jsondecode(output.policy_json).Statement : s.Action if contains(s.Resource, "*")]), [
      "cloudwatch:PutMetricData", "ecr:GetAuthorizationToken",
      "ec2:DescribeDhcpOptions", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs",
      "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
    ])) == 0
    error_message = "an action is allowed on every resource: ${output.policy_json}"
  }
  assert {
    condition     = one([for s in jsondecode(output.policy_json).Statement : s.Condition.StringLike["kms:ViaService"] if s.Sid == "Keys"]) == ["s3.*", "sns.*"]
    error_message = "the keys may be used for more than objects in S3 and topics: ${output.policy_json}"
  }
  assert {
    condition     = !strcontains(output.policy_json, "CreateLogGroup")
    error_message = "the role may create log groups: ${output.policy_json}"
  }
}

run "reads_only" {
  command = plan

  variables {
    read_s3_uris = ["s3://models/llama/"]
    kms_key_arns = ["arn:aws:kms:eu-west-1:123456789012:key/k"]
  }

  assert {
    condition     = [for s in jsondecode(output.policy_json).Statement : s.Action if s.Sid == "Keys"] == [["kms:Decrypt"]] && !strcontains(output.policy_json, "sns.*")
    error_message = "a role that writes nothing may encrypt: ${output.policy_json}"
  }
}

run "refuses" {
  command = plan

  variables {
    image         = "docker.io/millrace:1"
    read_s3_uris  = ["https://models/llama/"]
    write_s3_uris = ["s3://answers/chat"]
    name          = "two words"
    kms_key_arns  = ["alias/k"]
    topic_arns    = ["done"]
  }

  expect_failures = [var.image, var.read_s3_uris, var.write_s3_uris, var.name, var.kms_key_arns, var.topic_arns]
}

run "of_a_name" {
  command = plan

  variables {
    name            = "team-chat-of-a-name-with-more-than-37-letters"
    use_name_prefix = false
    path            = "/llm/"
  }

  assert {
    condition     = aws_iam_role.this[0].name == var.name && aws_iam_role.this[0].path == "/llm/"
    error_message = "the role ${aws_iam_role.this[0].path}${aws_iam_role.this[0].name}"
  }
}

run "refuses_a_long_prefix_and_a_path_without_its_slashes" {
  command = plan

  variables {
    name = "team-chat-of-a-name-with-more-than-37-letters"
    path = "llm"
  }

  expect_failures = [var.name, var.path]
}
