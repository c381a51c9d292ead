# A small model on CPUs, with no instance while nothing is asked.

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

  name       = "small"
  mode       = "serverless"
  image      = var.image
  weights    = { s3_uri = var.weights, stream = true }
  serverless = { memory_mb = 6144, max_concurrency = 5 }
}

output "endpoint" {
  description = "Name of the endpoint: EndpointName for the invoke calls."
  value       = module.small.name
}
