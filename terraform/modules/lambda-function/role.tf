data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.region

  role_name = coalesce(var.role_name, var.name)

  weights = try(var.weights.s3_uri, "s3://none/")
  bucket  = split("/", local.weights)[2]
  prefix  = trimprefix(local.weights, "s3://${local.bucket}/")

  # A statement whose list of resources is empty is left out.
  statements = [for statement in [
    {
      Sid      = "Logs"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = ["arn:${local.partition}:logs:${local.region}:${local.account}:log-group:${local.log_group}:*"]
    },
    {
      Sid      = "Weights"
      Effect   = "Allow"
      Action   = ["s3:GetObject", "s3:GetObjectVersion"]
      Resource = var.weights == null ? [] : ["arn:${local.partition}:s3:::${local.bucket}/${local.prefix}${endswith(local.weights, "/") ? "*" : ""}"]
    },
    {
      Sid       = "List"
      Effect    = "Allow"
      Action    = ["s3:ListBucket"]
      Resource  = var.weights == null ? [] : ["arn:${local.partition}:s3:::${local.bucket}"]
      Condition = { StringLike = { "s3:prefix" = ["${local.prefix}*"] } }
    },
    {
      Sid       = "WeightsKey"
      Effect    = "Allow"
      Action    = ["kms:Decrypt"]
      Resource  = compact([try(var.weights.kms_key_arn, null)])
      Condition = { StringLike = { "kms:ViaService" = ["s3.*"] } }
    },
    {
      Sid      = "Queue"
      Effect   = "Allow"
      Action   = ["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
      Resource = compact([try(var.queue.arn, null)])
    },
    {
      Sid      = "Answers"
      Effect   = "Allow"
      Action   = ["s3:PutObject"]
      Resource = [for uri in compact([try(var.queue.output_s3_uri, null)]) : "arn:${local.partition}:s3:::${trimprefix(uri, "s3://")}*"]
    },
    {
      Sid       = "AnswersKey"
      Effect    = "Allow"
      Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource  = compact([try(var.queue.kms_key_arn, null)])
      Condition = { StringLike = { "kms:ViaService" = ["s3.*", "sqs.*"] } }
    },
    {
      Sid      = "EnvironmentKey"
      Effect   = "Allow"
      Action   = ["kms:Decrypt"]
      Resource = compact([var.environment_kms_key_arn])
    },
    {
      Sid      = "Trace"
      Effect   = "Allow"
      Action   = ["xray:PutTraceSegments", "xray:PutTelemetryRecords"] # have no resource
      Resource = var.tracing == "Active" ? ["*"] : []
    },
    {
      # Lambda wants these for all of the account's resources before it uses them on its own.
      Sid    = "Interfaces"
      Effect = "Allow"
      Action = [
        "ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface",
        "ec2:DeleteNetworkInterface", "ec2:UnassignPrivateIpAddresses",
      ]
      Resource = var.vpc == null ? [] : ["arn:${local.partition}:ec2:${local.region}:${local.account}:*/*"]
    },
    {
      Sid      = "Network"
      Effect   = "Allow"
      Action   = ["ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"] # have no resource
      Resource = var.vpc == null ? [] : ["*"]
    },
  ] : statement if length(statement.Resource) > 0]

  # Lambda takes a role of the function's own account only (iam:PassRole), so no
  # condition need say which; that its pollers of queues send one is not documented.
  trust = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "lambda.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role" "this" {
  count = var.create ? 1 : 0

  name                 = var.role_use_name_prefix ? null : local.role_name
  name_prefix          = var.role_use_name_prefix ? "${local.role_name}-" : null
  path                 = var.role_path
  description          = "What the function ${var.name} may do"
  assume_role_policy   = local.trust
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_iam_role_policy" "this" {
  count = var.create ? 1 : 0

  name   = "function"
  role   = aws_iam_role.this[0].id
  policy = jsonencode({ Version = "2012-10-17", Statement = local.statements })
}

# With this one Lambda starts and ends the managed instances.
resource "aws_iam_role" "operator" {
  count = local.managed ? 1 : 0

  name                 = var.role_use_name_prefix ? null : "${local.role_name}-operator"
  name_prefix          = var.role_use_name_prefix ? "${substr(local.role_name, 0, 28)}-operator-" : null
  path                 = var.role_path
  description          = "What Lambda may do to run instances for ${var.name}"
  assume_role_policy   = local.trust
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_iam_role_policy_attachment" "operator" {
  count = local.managed ? 1 : 0

  role       = aws_iam_role.operator[0].name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AWSLambdaManagedEC2ResourceOperator"
}
