provider "aws" {
  region = var.region
}

module "small" {
  source = "../../modules/lambda-function"

  name    = var.name
  image   = var.image
  weights = { s3_uri = var.weights }
  url     = {}
}
