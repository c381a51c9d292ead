provider "aws" {
  region = var.region
}

provider "awscc" {
  region = var.region
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
