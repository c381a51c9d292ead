provider "aws" {
  region = var.region
}

module "chat" {
  source = "../../modules/sagemaker-endpoint"

  name        = var.name
  image       = var.image
  weights     = { s3_uri = var.weights }
  instance    = { type = "ml.c7i.4xlarge" }
  slots       = 16
  autoscaling = { min = 1, max = 4 }
}
