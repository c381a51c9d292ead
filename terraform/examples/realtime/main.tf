# An endpoint that answers at once, streamed or whole, on one to four instances.
#
#   terraform apply -var image=ACCOUNT.dkr.ecr.REGION.amazonaws.com/millrace:TAG \
#                   -var weights=s3://BUCKET/PREFIX/

variable "name" {
  description = "Name of the endpoint, of which an account has one in a region."
  type        = string
  default     = "chat"
}

variable "image" {
  description = "Millrace's image in ECR."
  type        = string
}

variable "weights" {
  description = "Prefix in S3 of a Hugging Face checkpoint, with a / at the end."
  type        = string
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

output "endpoint" {
  description = "Name of the endpoint: EndpointName for the invoke calls."
  value       = module.chat.name
}
