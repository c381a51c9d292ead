# A small model on CPUs, with no instance while nothing is asked.

variable "name" {
  description = "Name of the endpoint, of which an account has one in a region."
  type        = string
  default     = "small"
}

variable "image" {
  description = "Millrace's image in ECR."
  type        = string
}

variable "weights" {
  description = "Prefix in S3 of a Hugging Face checkpoint, with a / at the end."
  type        = string
}

module "small" {
  source = "../../modules/sagemaker-endpoint"

  name       = var.name
  mode       = "serverless"
  image      = var.image
  weights    = { s3_uri = var.weights, stream = true }
  serverless = { memory_mb = 6144, max_concurrency = 5 }
}

output "endpoint" {
  description = "Name of the endpoint: EndpointName for the invoke calls."
  value       = module.small.name
}
