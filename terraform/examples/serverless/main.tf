provider "aws" {
  region = var.region
}

module "small" {
  source = "../../modules/sagemaker-endpoint"

  name       = var.name
  mode       = "serverless"
  image      = var.image
  weights    = { s3_uri = var.weights, stream = true }
  serverless = { memory_mb = 6144, max_concurrency = 5 }
}
