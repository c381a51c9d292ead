provider "aws" {
  region = var.region
}

module "chat" {
  source = "../../modules/lambda-function"

  name              = var.name
  image             = var.image
  weights           = { s3_uri = var.weights }
  memory_mb         = 32768
  timeout_seconds   = 900
  managed_instances = merge(var.network, { max_concurrency = 32 })
  url               = {}
}
