output "bucket" {
  description = "Name of the bucket for weights."
  value       = one(aws_s3_bucket.weights[*].bucket)
}

output "s3_uri" {
  description = "The bucket as a URI, with a / at the end: add a model's prefix."
  value       = one([for name in aws_s3_bucket.weights[*].bucket : "s3://${name}/"])
}

output "repository_urls" {
  description = "URL of each repository, by name: push images there."
  value       = { for name, repository in aws_ecr_repository.this : name => repository.repository_url }
}

output "kms_key_arn" {
  description = "ARN of the key."
  value       = local.key
}
