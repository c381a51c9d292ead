# Two models, one of them with adapters, that share instances; both go to no
# copy, and the endpoint to no instance, while nothing is asked.

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

variable "adapter" {
  description = "Archive or prefix in S3 of a LoRA adapter of the first."
  type        = string
}

module "fleet" {
  source = "../../modules/sagemaker-endpoint"

  name     = "fleet"
  mode     = "components"
  instance = { type = "ml.g6.12xlarge", managed_scaling = { min = 0, max = 2 } }
}

module "large" {
  source = "../../modules/inference-component"

  name          = "large"
  endpoint_name = module.fleet.name
  variant_name  = module.fleet.variant_name
  image         = var.image
  weights       = { s3_uri = var.weights }
  adapters      = { legal = var.adapter }
  resources     = { accelerators = 2, min_memory_mb = 32768 }
  copies        = { min = 0, max = 2 }
}

module "small" {
  source = "../../modules/inference-component"

  name          = "small"
  endpoint_name = module.fleet.name
  variant_name  = module.fleet.variant_name
  image         = var.image
  weights       = { s3_uri = var.small_weights }
  resources     = { accelerators = 1, min_memory_mb = 8192 }
  copies        = { min = 0, max = 2 }
}

output "endpoint" {
  value = module.fleet.name
}

output "components" {
  value = concat([module.large.name, module.small.name], values(module.large.adapter_names))
}
