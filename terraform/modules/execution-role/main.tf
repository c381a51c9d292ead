data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.region

  # ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME, which may be of another account.
  repository = var.image == null ? [] : regex("^(\\d+)\\.dkr\\.ecr\\.([a-z0-9-]+)\\.[^/]+/([^:@]+)", var.image)

  subnets         = try(var.vpc.subnet_ids, [])
  security_groups = try(var.vpc.security_group_ids, [])
  ec2             = "arn:${local.partition}:ec2:${local.region}:${local.account}"

  # A statement whose list of resources is empty is left out.
  statements = [for statement in concat([
    {
      Sid      = "ImageLogin"
      Effect   = "Allow"
      Action   = ["ecr:GetAuthorizationToken"] # has no resource
      Resource = var.image == null ? [] : ["*"]
    },
    {
      Sid      = "Image"
      Effect   = "Allow"
      Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      Resource = var.image == null ? [] : ["arn:${local.partition}:ecr:${local.repository[1]}:${local.repository[0]}:repository/${local.repository[2]}"]
    },
    {
      Sid    = "Read"
      Effect = "Allow"
      Action = ["s3:GetObject", "s3:GetObjectVersion"]
      Resource = [for uri in var.read_s3_uris :
      "arn:${local.partition}:s3:::${trimprefix(uri, "s3://")}${endswith(uri, "/") ? "*" : ""}"]
    },
    {
      Sid      = "Write"
      Effect   = "Allow"
      Action   = ["s3:PutObject", "s3:AbortMultipartUpload"]
      Resource = [for uri in var.write_s3_uris : "arn:${local.partition}:s3:::${trimprefix(uri, "s3://")}*"]
    },
    {
      Sid      = "Keys"
      Effect   = "Allow"
      Action   = concat(["kms:Decrypt"], length(var.write_s3_uris) + length(var.topic_arns) > 0 ? ["kms:GenerateDataKey"] : [])
      Resource = var.kms_key_arns
      # For objects in S3, of any region, and for messages of topics.
      Condition = { StringLike = { "kms:ViaService" = concat(["s3.*"], length(var.topic_arns) > 0 ? ["sns.*"] : []) } }
    },
    {
      Sid    = "Logs"
      Effect = "Allow"
      Action = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
      Resource = [for group in var.log_group_names :
      "arn:${local.partition}:logs:${local.region}:${local.account}:log-group:${group}:*"]
    },
    {
      Sid       = "Metrics"
      Effect    = "Allow"
      Action    = ["cloudwatch:PutMetricData"] # has no resource
      Resource  = ["*"]
      Condition = { StringLike = { "cloudwatch:namespace" = ["AWS/SageMaker", "/aws/sagemaker/*"] } }
    },
    {
      Sid      = "Publish"
      Effect   = "Allow"
      Action   = ["sns:Publish"]
      Resource = var.topic_arns
    },
    {
      Sid    = "Interfaces"
      Effect = "Allow"
      Action = [
        "ec2:CreateNetworkInterface", "ec2:CreateNetworkInterfacePermission",
        "ec2:DeleteNetworkInterface", "ec2:DeleteNetworkInterfacePermission",
      ]
      Resource = length(local.subnets) == 0 ? [] : concat(
        ["${local.ec2}:network-interface/*"],
        [for id in local.subnets : "${local.ec2}:subnet/${id}"],
        [for id in local.security_groups : "${local.ec2}:security-group/${id}"],
      )
    },
    {
      Sid    = "Network"
      Effect = "Allow"
      Action = [ # have no resource
        "ec2:DescribeDhcpOptions", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets", "ec2:DescribeVpcs",
      ]
      Resource = length(local.subnets) == 0 ? [] : ["*"]
    },
    {
      Sid    = "SessionManager"
      Effect = "Allow"
      Action = [ # have no resource
        "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
      ]
      Resource = var.session_manager ? ["*"] : []
    },
    ],
    [for i, uri in var.read_s3_uris : {
      Sid       = "List${i}"
      Effect    = "Allow"
      Action    = ["s3:ListBucket"]
      Resource  = ["arn:${local.partition}:s3:::${split("/", uri)[2]}"]
      Condition = { StringLike = { "s3:prefix" = ["${join("/", slice(split("/", uri), 3, length(split("/", uri))))}*"] } }
    }],
  ) : statement if length(statement.Resource) > 0]
}

resource "aws_iam_role" "this" {
  count = var.create ? 1 : 0

  name                 = var.use_name_prefix ? null : var.name
  name_prefix          = var.use_name_prefix ? "${var.name}-" : null
  path                 = var.path
  description          = "What ${var.name} may do as SageMaker runs it"
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "sagemaker.amazonaws.com" }
      # Else SageMaker could be made to use the role by another account.
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_iam_role_policy" "this" {
  count = var.create ? 1 : 0

  name   = "sagemaker"
  role   = aws_iam_role.this[0].id
  policy = jsonencode({ Version = "2012-10-17", Statement = local.statements })
}
