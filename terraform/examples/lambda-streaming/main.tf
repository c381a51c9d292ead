# A small model in Lambda, streamed from S3 at start, behind a URL that streams
# its answers to signed requests.
#
#   terraform apply -var image=ACCOUNT.dkr.ecr.REGION.amazonaws.com/millrace@sha256:... \
#                   -var weights=s3://BUCKET/PREFIX/

variable "name" {
  description = "Name of the function, of which an account has one in a region."
  type        = string
  default     = "small"
}

variable "image" {
  description = "Millrace's image in ECR, by its digest."
  type        = string
}

variable "weights" {
  description = "Prefix in S3 of a Hugging Face checkpoint, with a / at the end."
  type        = string
}

module "small" {
  source = "../../modules/lambda-function"

  name    = var.name
  image   = var.image
  weights = { s3_uri = var.weights }
  url     = {}
}

output "url" {
  description = "URL of the function, for signed requests."
  value       = module.small.url
}
