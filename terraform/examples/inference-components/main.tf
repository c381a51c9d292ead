# Two models that share instances; both go to no copy, and the endpoint to no
# instance, while nothing is asked.

variable "name" {
  description = "Name of the endpoint, of which an account has one in a region."
  type        = string
  default     = "fleet"
}

variable "image" {
  description = "Millrace's image in ECR."
  type        = string
}

variable "weights" {
  description = "Prefix in S3 of a Hugging Face checkpoint, with a / at the end."
  type        = string
}

variable "small_weights" {
  description = "Prefix in S3 of the second, smaller checkpoint."
  type        = string
}

module "fleet" {
  source = "../../modules/sagemaker-endpoint"

  name     = var.name
  mode     = "components"
  instance = { type = "ml.m7i.12xlarge", managed_scaling = { min = 0, max = 2 } }
}

module "large" {
  source = "../../modules/inference-component"

  name          = "${var.name}-large"
  endpoint_name = module.fleet.name
  variant_name  = module.fleet.variant_name
  image         = var.image
  weights       = { s3_uri = var.weights }
  resources     = { cpus = 16, min_memory_mb = 32768 }
  copies        = { min = 0, max = 2 }
}

module "small" {
  source = "../../modules/inference-component"

  name          = "${var.name}-small"
  endpoint_name = module.fleet.name
  variant_name  = module.fleet.variant_name
  image         = var.image
  weights       = { s3_uri = var.small_weights }
  resources     = { cpus = 8, min_memory_mb = 8192 }
  copies        = { min = 0, max = 2 }
}

output "endpoint" {
  description = "Name of the endpoint: EndpointName for the invoke calls."
  value       = module.fleet.name
}

output "components" {
  description = "Names of the components: InferenceComponentName for the invoke calls."
  value       = [module.large.name, module.small.name]
}
