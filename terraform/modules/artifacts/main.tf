data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.region
  key       = var.kms_key_arn == null ? one(aws_kms_key.this[*].arn) : var.kms_key_arn
}

resource "aws_kms_key" "this" {
  count = var.create && var.kms_key_arn == null ? 1 : 0

  description             = "Weights, images and logs of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = var.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Account" # who may use the key is said by IAM policies
        Effect    = "Allow"
        Action    = "kms:*"
        Resource  = "*"
        Principal = { AWS = "arn:${local.partition}:iam::${local.account}:root" }
      },
      {
        Sid       = "Logs"
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
        Resource  = "*"
        Principal = { Service = "logs.${local.region}.amazonaws.com" }
        Condition = { ArnLike = { "kms:EncryptionContext:aws:logs:arn" = "arn:${local.partition}:logs:${local.region}:${local.account}:log-group:*" } }
      },
    ]
  })
}

resource "aws_kms_alias" "this" {
  count = var.create && var.kms_key_arn == null ? 1 : 0

  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this[0].key_id
}

# --- Weights ---------------------------------------------------------------------

resource "aws_s3_bucket" "weights" {
  # checkov:skip=CKV_AWS_18:who read the weights is in CloudTrail, if the account has it on
  # checkov:skip=CKV_AWS_144:weights can be uploaded again; a second copy in another region is the user's to want
  # checkov:skip=CKV2_AWS_62:nothing waits for a notice of new weights
  count = var.create ? 1 : 0

  bucket_prefix = "${var.name}-"
  force_destroy = var.force_destroy
  tags          = var.tags
}

resource "aws_s3_bucket_public_access_block" "weights" {
  count = var.create ? 1 : 0

  bucket                  = aws_s3_bucket.weights[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "weights" {
  count = var.create ? 1 : 0

  bucket = aws_s3_bucket.weights[0].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "weights" {
  count = var.create ? 1 : 0

  bucket = aws_s3_bucket.weights[0].id

  rule {
    bucket_key_enabled = true # one call to KMS for many objects

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = local.key
    }
  }
}

# A server pins what it reads; with versions an upload of new weights does not
# take the old ones away under it.
resource "aws_s3_bucket_versioning" "weights" {
  count = var.create ? 1 : 0

  bucket = aws_s3_bucket.weights[0].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "weights" {
  count = var.create ? 1 : 0

  bucket = aws_s3_bucket.weights[0].id

  rule {
    id     = "old"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = var.keep_old_weights_days
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  depends_on = [aws_s3_bucket_versioning.weights]
}

resource "aws_s3_bucket_policy" "weights" {
  count = var.create ? 1 : 0

  bucket = aws_s3_bucket.weights[0].id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyTLS"
      Effect    = "Deny"
      Action    = "s3:*"
      Principal = "*"
      Resource  = [aws_s3_bucket.weights[0].arn, "${aws_s3_bucket.weights[0].arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })

  depends_on = [aws_s3_bucket_public_access_block.weights]
}

# --- Images ----------------------------------------------------------------------

resource "aws_ecr_repository" "this" {
  for_each = var.create ? var.repositories : toset([])

  name                 = each.value
  image_tag_mutability = "IMMUTABLE"
  force_delete         = var.force_destroy
  tags                 = var.tags

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = local.key
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  for_each = aws_ecr_repository.this

  repository = each.value.name
  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "Delete images without a tag ${var.keep_untagged_days} days after their push"
      selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = var.keep_untagged_days }
      action       = { type = "expire" }
    }]
  })
}

# Lambda reads images by a permission of the repository, not of a role.
resource "aws_ecr_repository_policy" "this" {
  for_each = aws_ecr_repository.this

  repository = each.value.name
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Lambda"
      Effect    = "Allow"
      Action    = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      Principal = { Service = "lambda.amazonaws.com" }
      Condition = { ArnLike = { "aws:SourceArn" = "arn:${local.partition}:lambda:${local.region}:${local.account}:function:*" } }
    }]
  })
}
