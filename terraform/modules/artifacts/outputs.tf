output "bucket" {
  description = "Name of the bucket for weights."
  value       = aws_s3_bucket.weights.bucket
}

output "s3_uri" {
  description = "The bucket as a URI, with a / at the end: add a model's prefix."
  value       = "s3://${aws_s3_bucket.weights.bucket}/"
}

output "repository_urls" {
  description = "URL of each repository, by name: push images there."
  value       = { for name, repository in aws_ecr_repository.this : name => repository.repository_url }
}

output "kms_key_arn" {
  description = "ARN of the key."
  value       = local.key
}
