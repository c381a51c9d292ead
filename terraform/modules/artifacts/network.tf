locals {
  network = var.create ? var.network : null

  s3 = try(local.network.s3, "none")

  # A gateway holds for whole route tables, and so for all that is in their subnets.
  # What may read the weights is said by roles and by the bucket.
  s3_statements = {
    none = []
    open = [{ Sid = "All", Effect = "Allow", Action = ["s3:*"], Principal = "*", Resource = ["*"] }]
    restricted = [
      {
        Sid       = "Buckets"
        Effect    = "Allow"
        Action    = ["s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket", "s3:PutObject", "s3:AbortMultipartUpload"]
        Principal = "*"
        Resource = concat(flatten([for arn in aws_s3_bucket.weights[*].arn : [arn, "${arn}/*"]]), flatten([for name in try(local.network.buckets, []) :
        ["arn:${local.partition}:s3:::${name}", "arn:${local.partition}:s3:::${name}/*"]]))
        Condition = { StringEquals = { "aws:PrincipalAccount" = local.account } }
      },
      {
        Sid       = "ImageLayers" # ECR keeps them in a bucket of its own
        Effect    = "Allow"
        Action    = ["s3:GetObject"]
        Principal = "*"
        Resource  = ["arn:${local.partition}:s3:::prod-${local.region}-starport-layer-bucket/*"]
      },
    ]
  }
}

# Free, and the fastest way to the weights: S3 by the route table.
resource "aws_vpc_endpoint" "s3" {
  count = local.s3 == "none" ? 0 : 1

  vpc_id            = var.network.vpc_id
  service_name      = "com.amazonaws.${local.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = var.network.route_table_ids
  tags              = merge(var.tags, { Name = "${var.name}-s3" })

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [for statement in local.s3_statements[local.s3] : statement]
  })
}

resource "aws_vpc_endpoint" "service" {
  for_each = try(local.network.services, toset([]))

  vpc_id              = var.network.vpc_id
  service_name        = "com.amazonaws.${local.region}.${each.value}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = var.network.subnet_ids
  security_group_ids  = [aws_security_group.service[0].id]
  tags                = merge(var.tags, { Name = "${var.name}-${each.value}" })
}

resource "aws_security_group" "service" {
  count = local.network == null ? 0 : 1

  name_prefix = "${var.name}-services-"
  description = "Who may reach the AWS services that ${var.name} uses"
  vpc_id      = var.network.vpc_id
  tags        = var.tags

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "service" {
  for_each = toset(try(local.network.cidr_blocks, []))

  security_group_id = aws_security_group.service[0].id
  description       = "HTTPS from ${each.value}"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = each.value
  tags              = var.tags
}
